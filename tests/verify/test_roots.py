"""AMD's certificates that ship, and the pins that decide about roots."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import fake_amd
import pytest
import stub_chain
from fake_amd import failures

from tinboot.formats.errors import Unavailable
from tinboot.formats.snptcb import GENOA, LINES, TURIN, Line, line_named
from tinboot.verify import amd_certificates, roots
from tinboot.verify.certificate import parse, read
from tinboot.verify.chain import ALGORITHMS, Kind, examine, issuer_key, present, verify_signature


@pytest.mark.parametrize("root", roots.AMD, ids=lambda root: root.line.name)
def test_the_pinned_roots_ship(root: roots.Root) -> None:
    (certificate,) = read(amd_certificates.ROOTS[root.line.name])
    assert certificate.fingerprint == root.fingerprint
    assert certificate.common_name == f"ARK-{root.line.name}"
    verify_signature(certificate, certificate)


def test_every_line_has_one_pinned_root() -> None:
    assert [root.line for root in roots.AMD] == list(LINES)


@pytest.mark.parametrize("name", amd_certificates.INTERMEDIATES)
def test_each_intermediate_is_signed_by_its_root(name: str) -> None:
    (certificate,) = read(amd_certificates.INTERMEDIATES[name])
    root = roots.root_of(certificate, ())
    verify_signature(certificate, root)
    issuer_key(certificate)
    assert certificate.common_name == name
    assert certificate.algorithm in ALGORITHMS
    assert root.fingerprint in {pinned.fingerprint for pinned in roots.AMD}


@pytest.mark.parametrize("name", amd_certificates.INTERMEDIATES)
def test_amds_chain_fails_for_a_stubs_key_by_its_signature_alone(name: str) -> None:
    """So all else that is asked of roots and intermediates holds for AMD's own."""
    kind: Kind = "VLEK" if "VLEK" in name else "VCEK"
    line = line_named(name.rpartition("-")[2])
    form = fake_amd.vek_form(line, kind)._replace(organisation="Advanced Micro Devices")
    vek = parse(fake_amd.authority(line).issue(form))
    assert list(failures(examine(present(vek)).verdicts)) == ["certificate-signatures"]


def test_each_stands_under_its_digest() -> None:
    text = Path(amd_certificates.__file__).read_text("utf-8")
    stated = dict(re.findall(r"^#: ([0-9a-f]{64})\n([A-Z_]+) = ", text, re.MULTILINE))
    stated = {name: digest for digest, name in stated.items()}
    assert len(stated) == len(amd_certificates.ROOTS) + len(amd_certificates.INTERMEDIATES)
    for name, digest in stated.items():
        assert hashlib.sha256(read(getattr(amd_certificates, name))[0].der).hexdigest() == digest


@pytest.mark.parametrize("line", [GENOA, TURIN], ids=lambda line: line.name)
def test_an_intermediate_that_does_not_ship(line: Line) -> None:
    amd = fake_amd.authority(line)
    vlek = parse(amd.issue(fake_amd.vek_form(line, "VLEK")))
    with pytest.raises(Unavailable, match=f"certificate of 'SEV-VLEK-{line.name}'") as refused:
        present(vlek)
    assert "--chain" in refused.value.hint


def test_a_root_of_nobody() -> None:
    form = fake_amd.authority().ask()._replace(issuer="ARK-Rome")
    with pytest.raises(Unavailable, match="the root 'ARK-Rome' is not at hand"):
        roots.root_of(parse(fake_amd.authority().issue(form)), ())


def test_the_fake_amd_never_names_amd() -> None:
    for line in LINES:
        for der in fake_amd.authority(line).chain():
            assert stub_chain.MARK.encode() in der
            assert b"Advanced Micro Devices" not in der
