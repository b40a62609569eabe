"""Certificates: who is valid, who may read the keys, and that nothing is made twice. TLS itself: test_rpc.py."""

from __future__ import annotations

import datetime
import shutil
import stat

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from edge_cloud import certificates
from edge_cloud.rpc import Identity


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_each_node_is_certified_by_name_and_host(tmp_path):
    assert certificates.make(tmp_path, {"S1": ["192.0.2.1", "s1.example"], "edge": []}) == ["S1", "edge"]
    authority, node = read(tmp_path / "ca.pem"), read(tmp_path / "S1.pem")
    node.verify_directly_issued_by(authority)
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["S1", "s1.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
    assert not node.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(node.public_key(), ec.EllipticCurvePublicKey)


def test_keys_are_their_owners_only(tmp_path):
    certificates.make(tmp_path, {"S1": []})
    for name in ("ca.key", "S1.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_what_is_there_is_kept_and_new_nodes_join_the_same_authority(tmp_path):
    certificates.make(tmp_path, {"S1": []})
    before = (tmp_path / "S1.pem").read_bytes()
    assert certificates.make(tmp_path, {"S1": [], "S2": []}) == ["S2"]
    assert (tmp_path / "S1.pem").read_bytes() == before
    read(tmp_path / "S2.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))


def test_two_authorities_do_not_certify_each_others_nodes(tmp_path):
    for folder in ("one", "other"):
        certificates.make(tmp_path / folder, {"S1": []})
    with pytest.raises(InvalidSignature):
        read(tmp_path / "one" / "S1.pem").verify_directly_issued_by(read(tmp_path / "other" / "ca.pem"))


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("gone", ["ca.key", "ca.pem"])
def test_an_authority_is_never_replaced(tmp_path, gone):
    """Its key is in a safe place, say: what it has signed must stay good."""
    certificates.make(tmp_path, {"S1": []})
    kept = (tmp_path / gone).read_bytes()
    (tmp_path / gone).unlink()
    before = listing(tmp_path)
    other = ({"ca.key", "ca.pem"} - {gone}).pop()
    with pytest.raises(ValueError, match=f"{gone}: expected it beside {other}, found none"):
        certificates.make(tmp_path, {"S1": [], "S2": []})
    assert listing(tmp_path) == before
    (tmp_path / gone).write_bytes(kept)
    assert certificates.make(tmp_path, {"S1": [], "S2": []}) == ["S2"]
    read(tmp_path / "S1.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))


def test_the_authoritys_key_may_be_elsewhere_while_nothing_is_to_be_made(tmp_path):
    certificates.make(tmp_path, {"S1": []})
    (tmp_path / "ca.key").unlink()
    assert certificates.make(tmp_path, {"S1": []}) == []


def empty(folder, name):
    (folder / name).write_bytes(b"")


def cut_off(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def text(folder, name):
    (folder / name).write_text("not a certificate\n")


@pytest.mark.parametrize("damage", [empty, cut_off, text])
@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "S1.pem", "S1.key"])
def test_damaged_files_are_told_when_they_are_read_and_kept(tmp_path, damage, name):
    certificates.make(tmp_path, {"S1": []})
    damage(tmp_path, name)
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=rf"^{name}: expected a (certificate|private key), found") as error:
        certificates.make(tmp_path, {"S1": [], "S2": []})
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == before
    if name != "ca.key":  # which no node has
        with pytest.raises(ValueError, match="certificates: expected a key and a certificate of 'S1'"):
            Identity.read(tmp_path, "S1")


def exchanged(folder, name, by):
    for end in ("pem", "key"):
        shutil.copy(folder / f"{by}.{end}", folder / f"{name}.{end}")


def test_files_that_do_not_belong_together_are_told(tmp_path):
    for folder in ("one", "other"):
        certificates.make(tmp_path / folder, {"S1": [], "edge": []})
    for number, (change, expected) in enumerate(
        [
            (lambda at: shutil.copy(at / "edge.key", at / "S1.key"), "S1.key: expected the key of S1.pem, found"),
            (lambda at: shutil.copy(at.parent / "other" / "ca.key", at / "ca.key"), "ca.key: expected the key of ca"),
            (
                lambda at: shutil.copy(at.parent / "other" / "ca.pem", at / "ca.pem"),
                "S1.pem: expected a certificate of",
            ),
            (lambda at: exchanged(at, "S1", "edge"), "S1.pem: expected a certificate of 'S1', found one of 'edge'"),
        ]
    ):
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(tmp_path / "one", folder)
        change(folder)
        before = listing(folder)
        with pytest.raises(ValueError, match=expected):
            certificates.make(folder, {"S1": [], "edge": [], "S2": []})
        assert listing(folder) == before
        if "ca.key" not in expected:
            with pytest.raises(ValueError, match="certificates: expected a key and a certificate of 'S1'"):
                Identity.read(folder, "S1")


def test_what_expires_is_renewed_and_an_expired_authority_is_told(tmp_path):
    year = datetime.timedelta(days=365)
    now = datetime.datetime.now(datetime.UTC)
    certificates.make(tmp_path, {"S1": []}, now - certificates.YEARS * year + 20 * datetime.timedelta(days=1))
    assert certificates.make(tmp_path, {"S1": []}) == ["S1"]  # 20 days were left
    assert read(tmp_path / "S1.pem").not_valid_after_utc > now + (certificates.YEARS - 1) * year
    assert certificates.make(tmp_path, {"S1": []}) == []
    Identity.read(tmp_path, "S1")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=r"ca.pem: expected an authority that is valid now, found one of .*; move"):
        certificates.make(tmp_path, {"S1": []}, now + year)
    assert listing(tmp_path) == before


def test_a_node_reads_no_expired_certificate(tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    certificates.make(tmp_path, {"S1": []}, now - (365 * certificates.YEARS + 1) * datetime.timedelta(days=1))
    with pytest.raises(ValueError, match=r"certificates: expected .*, found certificate has expired at .*S1.pem"):
        Identity.read(tmp_path, "S1")
