"""The progress server's certificate: an authority of the operator's own, kept in a Secret, no cert-manager needed.

Invariant: the authority outlives restarts, because running pods carry its certificate; the serving certificate is made
anew at each start, never leaves the process, and is good for as long as the authority: an operator may run for years.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rft_operator.errors import ConfigError, Conflict, NotFound
from rft_operator.runtime.kube import JsonObject, ObjectStore

AUTHORITY_DAYS = 3_650


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Certificate and key in PEM."""

    certificate: str
    key: str


async def load_authority(store: ObjectStore, *, namespace: str, name: str) -> Authority:
    """Read the authority from its Secret; make it first if there is none. Of two that make it, the first wins.

    Raises ConfigError for a Secret that holds none.
    """
    try:
        return _decode(await store.read(kind="Secret", namespace=namespace, name=name))
    except NotFound:
        made = make_authority()
    try:
        await store.create(_secret(made, namespace=namespace, name=name))
    except Conflict:
        return _decode(await store.read(kind="Secret", namespace=namespace, name=name))
    return made


def _decode(secret: JsonObject) -> Authority:
    try:
        crt, key = (base64.b64decode(secret["data"][entry]).decode() for entry in ("tls.crt", "tls.key"))
        certificate = x509.load_pem_x509_certificate(crt.encode())
        private = serialization.load_pem_private_key(key.encode(), None)
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(secret, f"holds no certificate and key of the operator ({error!r})") from error
    fits = isinstance(private, ec.EllipticCurvePrivateKey) and private.public_key() == certificate.public_key()
    if not fits or not _is_authority(certificate):
        raise _unusable(secret, "holds no authority of the operator's: a certificate of another kind, or another's key")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise _unusable(secret, f"holds a certificate that no pod trusts since {certificate.not_valid_after_utc:%F}")
    return Authority(certificate=crt, key=key)


def _is_authority(certificate: x509.Certificate) -> bool:
    """Return whether pods that trust a certificate trust those that it signs."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _unusable(secret: JsonObject, why: str) -> ConfigError:
    place = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
    return ConfigError(f"Secret {place} (RFT_PROGRESS_SECRET) {why}; delete it, and the next start makes a new one")


def _secret(authority: Authority, *, namespace: str, name: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "rft-operator"}},
        "stringData": {"tls.crt": authority.certificate, "tls.key": authority.key},
    }


def make_authority() -> Authority:
    """Return a new self-signed authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rft-operator-progress")])
    certificate = (
        _builder(name, name, key.public_key(), until=datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=_pem(certificate), key=_key_pem(key))


def server_context(authority: Authority, *, hostnames: tuple[str, ...]) -> ssl.SSLContext:
    """Return a TLS context with a new serving certificate for the host names."""
    ca = x509.load_pem_x509_certificate(authority.certificate.encode())
    ca_key = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:64])])
    names = x509.SubjectAlternativeName([_general_name(host) for host in hostnames])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), until=ca.not_valid_after_utc)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the ssl module reads files only
        file.write(_key_pem(key) + _pem(certificate))
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, *, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
        .not_valid_after(until)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
