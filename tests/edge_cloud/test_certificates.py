"""Certificates: who is valid, who may read the keys, and that nothing is made twice. TLS itself: test_rpc.py."""

from __future__ import annotations

import stat

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from edge_cloud import certificates


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
