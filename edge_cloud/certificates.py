"""A certificate authority and a certificate per node, for mutual TLS.

A node is known by its name in the inventory, not by its address: it may be reached through a relay. Keys are ECDSA
P-256; private files are readable by their owner only. Nodes need their own three files, not this module.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import pathlib
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS = 10
CA_NAME = "hl-jax certificate authority"


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(_subject(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back, for machines whose clocks don't agree.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    )


def _write_key(path: pathlib.Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _authority(folder: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    """The key of the folder's authority, which is made if there is none."""
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    if certificate_path.exists() and key_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"ca.key: expected an elliptic-curve key, found {type(key).__name__} in {folder}")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(CA_NAME, CA_NAME, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_path, key)
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key


def make(folder: pathlib.Path, hosts: Mapping[str, Sequence[str]]) -> list[str]:
    """Makes `ca.pem`, and `NAME.pem` and `NAME.key` for every name that has none yet.

    Args:
      folder: where to; made if need be.
      hosts: by node name, further host names or addresses that its certificate is valid for.

    Returns:
      The names for which a certificate was made now.

    Raises:
      OSError: if the folder can't be written to.
      ValueError: if the authority there can't be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = _authority(folder)
    made = []
    for name, further in hosts.items():
        if (folder / f"{name}.pem").exists() and (folder / f"{name}.key").exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        for host in further:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(name, CA_NAME, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        _write_key(folder / f"{name}.key", key)
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.append(name)
    return made
