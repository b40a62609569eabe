"""A certificate authority and a certificate per node, for mutual TLS.

A node is known by its name in the inventory, not by its address: it may be reached through a relay. Keys are ECDSA
P-256; private files are readable by their owner only. Nodes need their own three files, not this module.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import pathlib
import secrets
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS = 10
RENEWED_BEFORE = datetime.timedelta(days=30)  # that it expires
CA_NAME = "hl-jax certificate authority"


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
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
    _replace(path, content, 0o600)


def _replace(path: pathlib.Path, content: bytes, mode: int) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _read_certificate(path: pathlib.Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name}: expected a certificate, found {_of(error)} in {path}") from error


def _read_key(path: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path.name}: expected a private key, found {_of(error)} in {path}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name}: expected an elliptic-curve key, found {type(key).__name__} in {path}")
    return key


def _of(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _name_of(certificate: x509.Certificate) -> str:
    return ", ".join(str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def _belongs(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    own = certificate.public_key()
    return isinstance(own, ec.EllipticCurvePublicKey) and own.public_numbers() == key.public_key().public_numbers()


def _is_there(folder: pathlib.Path, name: str) -> bool:
    """Whether both files of a name are.

    Raises:
      ValueError: if only one of them is. The other may be in a safe place: neither is made anew.
    """
    there = [(folder / f"{name}.{end}").exists() for end in ("pem", "key")]
    if any(there) and not all(there):
        found, missing = (f"{name}.pem", f"{name}.key") if there[0] else (f"{name}.key", f"{name}.pem")
        remedy = "put it back, or move both away"
        raise ValueError(f"{missing}: expected it beside {found}, found none in {folder}; {remedy}")
    return all(there)


class _Authority:
    """Who signs: the folder's own, which is made if neither of its files is there, and is never replaced.

    Raises:
      ValueError: if a file of it is missing or can't be used, if they don't belong together, or if it has expired.
    """

    def __init__(self, folder: pathlib.Path, now: datetime.datetime) -> None:
        self._folder, self._now = folder, now
        if not (folder / "ca.pem").exists() and not (folder / "ca.key").exists():
            _make_authority(folder, now)
        if not (folder / "ca.pem").exists():
            _is_there(folder, "ca")  # without its certificate its key is of no use, and must not be lost
        self.certificate = _read_certificate(folder / "ca.pem")
        first, last = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if not first <= now <= last:
            expected, found = "an authority that is valid now", f"one of {first:%Y-%m-%d} to {last:%Y-%m-%d}"
            remedy = "move ca.pem and ca.key away to have another made"
            raise ValueError(f"ca.pem: expected {expected}, found {found} in {folder}; {remedy}")

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Its key, only needed to sign: it may be kept elsewhere."""
        _is_there(self._folder, "ca")
        key = _read_key(self._folder / "ca.key")
        if not _belongs(self.certificate, key):
            raise ValueError(f"ca.key: expected the key of ca.pem, found another's in {self._folder}")
        return key

    def issued(self, name: str) -> bool:
        """Whether a node has a certificate of this authority that is good for a while.

        Raises:
          ValueError: if what is there is damaged or another's; it isn't replaced, since somebody may miss it.
        """
        if not _is_there(self._folder, name):
            return False
        path, remedy = self._folder / f"{name}.pem", f"move {name}.pem and {name}.key away to have others made"
        certificate, key = _read_certificate(path), _read_key(self._folder / f"{name}.key")
        if not _belongs(certificate, key):
            raise ValueError(f"{name}.key: expected the key of {name}.pem, found another's in {path.parent}; {remedy}")
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            found = "one of another's"
            expected = "a certificate of the authority in ca.pem"
            raise ValueError(f"{path.name}: expected {expected}, found {found} in {path.parent}; {remedy}") from error
        if _name_of(certificate) != name:
            found = f"{_name_of(certificate)[:40]!r}"
            raise ValueError(f"{path.name}: expected a certificate of {name!r}, found one of {found}; {remedy}")
        return certificate.not_valid_after_utc - self._now > RENEWED_BEFORE


def _make_authority(folder: pathlib.Path, now: datetime.datetime) -> None:
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
        _builder(CA_NAME, CA_NAME, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_pair(folder, "ca", certificate, key)


def _write_pair(
    folder: pathlib.Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """Each file whole or not at all, the key first: a key without its certificate is told, and never taken for both."""
    _write_key(folder / f"{name}.key", key)
    _replace(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def make(folder: pathlib.Path, hosts: Mapping[str, Sequence[str]], now: datetime.datetime | None = None) -> list[str]:
    """Makes `ca.pem`, and `NAME.pem` and `NAME.key` for every name that has none, or one that expires soon.

    An authority is never replaced. Its key may be kept elsewhere while nothing is to be made.

    Args:
      folder: where to; made if need be.
      hosts: by node name, further host names or addresses that its certificate is valid for.

      now: with a time zone; default the present.

    Returns:
      The names for which a certificate was made now.

    Raises:
      OSError: if the folder can't be written to.
      ValueError: if a file there is damaged, another's, expired (the authority's), or misses its other half.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = now or datetime.datetime.now(datetime.UTC)
    authority = _Authority(folder, now)
    made = [name for name in hosts if not authority.issued(name)]
    if not made:
        return []
    authority_key = authority.key()
    for name in made:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        for host in hosts[name]:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(name, CA_NAME, key, now)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        _write_pair(folder, name, certificate, key)
    return made
