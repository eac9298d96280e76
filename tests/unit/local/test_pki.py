"""Certificates of the cluster: trusted through its own authority, keys readable by their owner alone."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from rft_local.pki import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def verify(authority: Authority, certificate: x509.Certificate, host: x509.GeneralName) -> None:
    assert isinstance(host, x509.DNSName | x509.IPAddress)
    store = Store([read(authority.certificate)])
    PolicyBuilder().store(store).build_server_verifier(host).verify(certificate, [])


@pytest.mark.parametrize(
    "host", [x509.DNSName("kubernetes.default"), x509.IPAddress(ipaddress.ip_address("198.18.0.1"))], ids=str
)
def test_server_is_trusted_by_name_and_by_address(authority: Authority, host: x509.GeneralName) -> None:
    path, _ = authority.issue("api", common_name="kube-apiserver", hosts=["kubernetes.default", "198.18.0.1"])
    verify(authority, read(path), host)


def test_server_is_not_trusted_under_another_name_or_by_another_authority(authority: Authority, tmp_path: Path) -> None:
    path, _ = authority.issue("api", common_name="kube-apiserver", hosts=["kubernetes.default"])
    with pytest.raises(VerificationError):
        verify(authority, read(path), x509.DNSName("evil.example.com"))
    with pytest.raises(VerificationError):
        verify(Authority(tmp_path / "other"), read(path), x509.DNSName("kubernetes.default"))


def test_client_certificate_carries_user_and_group(authority: Authority) -> None:
    path, _ = authority.issue("client", common_name="kubelet-client", organisation="system:masters")
    certificate = read(path)

    def value(oid: x509.ObjectIdentifier) -> list[object]:
        return [each.value for each in certificate.subject.get_attributes_for_oid(oid)]

    assert value(NameOID.COMMON_NAME) == ["kubelet-client"]
    assert value(NameOID.ORGANIZATION_NAME) == ["system:masters"]
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in uses
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_user_without_a_group_has_none(authority: Authority) -> None:
    path, _ = authority.issue("client", common_name="somebody")
    assert not read(path).subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)


def test_key_belongs_to_its_certificate(authority: Authority) -> None:
    certificate_path, key_path = authority.issue("api", common_name="x", hosts=["x"])
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    assert key.public_key() == read(certificate_path).public_key()


def test_keys_are_readable_by_their_owner_alone_also_when_the_file_was_there(
    authority: Authority, tmp_path: Path
) -> None:
    careless = tmp_path / "pki" / "api.key"
    careless.touch(mode=0o644)
    authority.issue("api", common_name="x")
    authority.service_account_key()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pki").glob("*.key")}
    assert modes == {"ca.key": 0o600, "api.key": 0o600, "sa.key": 0o600}


def test_service_account_key_is_one_that_the_api_server_can_sign_with(authority: Authority) -> None:
    key = serialization.load_pem_private_key(authority.service_account_key().read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size >= 2_048
