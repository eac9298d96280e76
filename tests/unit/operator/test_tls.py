"""The progress server's certificate: trusted by those who hold the authority, for its own names alone."""

from __future__ import annotations

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rft_operator.errors import ConfigError, Conflict
from rft_operator.runtime.tls import Authority, load_authority, make_authority, server_context
from support.fake_kube import FakeKube

HOSTS = ("rft.rft-system.svc", "rft.rft-system.svc.cluster.local")
PLACE = {"namespace": "rft-system", "name": "progress"}


class SecretKube(FakeKube):
    """As the real API server, it hands ``stringData`` out as ``data``."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)

    async def create(self, manifest: Any) -> dict[str, Any]:
        data = {name: base64.b64encode(text.encode()).decode() for name, text in manifest["stringData"].items()}
        return await super().create({**manifest, "data": data, "stringData": None})


async def shake_hands(authority: Authority, trusted: Authority, host: str) -> None:
    """Connect over TLS to a server with ``authority``, trusting ``trusted`` alone; raises ssl.SSLError."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=server_context(authority, hostnames=(*HOSTS, "10.1.2.3"))
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cadata=trusted.certificate)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=host)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", [*HOSTS, "10.1.2.3"])
async def test_server_is_trusted_by_its_names_and_addresses(host: str) -> None:
    authority = make_authority()
    await shake_hands(authority, authority, host)


async def test_server_is_not_trusted_under_another_name() -> None:
    authority = make_authority()
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for|mismatch"):
        await shake_hands(authority, authority, "evil.example.com")


async def test_server_of_another_authority_is_not_trusted() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(make_authority(), make_authority(), HOSTS[0])


def test_authority_signs_certificates_and_no_further_authorities() -> None:
    certificate = x509.load_pem_x509_certificate(make_authority().certificate.encode())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


async def test_server_is_trusted_for_as_long_as_its_authority_though_the_operator_runs_for_years() -> None:
    authority = make_authority()
    context = server_context(authority, hostnames=HOSTS)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        trust = ssl.create_default_context(cadata=authority.certificate)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=HOSTS[0])
        served = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
        await writer.wait_closed()
    trusted = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert served.not_valid_after_utc == trusted.not_valid_after_utc


async def test_authority_that_has_expired_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = SecretKube()
    monkeypatch.setattr("rft_operator.runtime.tls.AUTHORITY_DAYS", 0)
    await load_authority(kube, **PLACE)
    with pytest.raises(ConfigError, match=r"rft-system/progress.* no pod trusts since .*delete it"):
        await load_authority(kube, **PLACE)


async def test_authority_outlives_a_restart() -> None:
    kube = SecretKube()
    made = await load_authority(kube, **PLACE)
    assert await load_authority(kube, **PLACE) == made
    assert len(kube.find("Secret")) == 1
    assert kube.find("Secret")[0]["type"] == "kubernetes.io/tls"


async def test_first_authority_wins_when_two_replicas_make_one() -> None:
    kube = SecretKube()
    first, second = await asyncio.gather(load_authority(kube, **PLACE), load_authority(kube, **PLACE))
    assert first == second


async def test_authority_of_the_other_replica_is_read_when_it_was_quicker() -> None:
    kube, theirs = SecretKube(), SecretKube()
    made = await load_authority(theirs, **PLACE)

    async def too_late(_: Any) -> dict[str, Any]:
        kube.objects.update(theirs.objects)
        raise Conflict("already exists", status=409)

    kube.create = too_late  # type: ignore[method-assign, assignment]
    assert await load_authority(kube, **PLACE) == made


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"tls.crt": "eA=="},
        {"tls.crt": "eA==", "tls.key": "/w=="},
        {"tls.crt": "eA==", "tls.key": "eA=="},
        {"tls.crt": base64.b64encode(make_authority().certificate.encode()).decode(), "tls.key": "eA=="},
    ],
)
async def test_secret_without_an_authority_is_named_with_the_remedy(data: dict[str, str] | None) -> None:
    kube = SecretKube()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {**PLACE}}
    kube.put(secret if data is None else {**secret, "data": data})
    with pytest.raises(ConfigError, match=r"rft-system/progress.*delete it"):
        await load_authority(kube, **PLACE)


def self_signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, authority: bool) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody's")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("kind", "authority", "own_key"),
    [("rsa", True, True), ("ec", False, True), ("ec", True, False)],
    ids=["a key of another kind", "no authority", "a key that is another's"],
)
async def test_secret_that_would_sign_what_no_pod_trusts_is_named_with_the_remedy(
    kind: str, authority: bool, own_key: bool
) -> None:
    kube, curve = FakeKube(lambda: 0), ec.SECP256R1()
    key = rsa.generate_private_key(65_537, 2_048) if kind == "rsa" else ec.generate_private_key(curve)
    kept = key if own_key else ec.generate_private_key(curve)
    text = kept.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = self_signed(key, authority=authority).encode()
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(text).decode()}
    kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": dict(PLACE), "data": data})
    with pytest.raises(ConfigError, match=r"rft-system/progress.*delete it"):
        await load_authority(kube, **PLACE)
