"""Where certificates come from: the user's first, then the document's, then AMD's service; each a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import client_terms
import fake_amd
import pytest
import served_guest
import stub_nvidia
import stub_report
from fake_amd import NOW
from served_guest import Answer, Host
from stub_report import Contents

from tinboot.client import Given
from tinboot.client.cache import Cache
from tinboot.client.endorsements import gather
from tinboot.client.kds import Kds
from tinboot.formats import attestationcollateral
from tinboot.formats.certtable import Certificates
from tinboot.formats.errors import Malformed, Mismatch, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import GENOA
from tinboot.verify import certificate, roots
from tinboot.verify.appraisal import Endorsements

GIVEN = Given(pinned=client_terms.pinned())


def report(**fields: Any) -> Report:
    return fake_amd.report(Contents()._replace(**fields))


def found(given: Given = GIVEN, *brought: attestationcollateral.Collateral, **fields: Any) -> Endorsements:
    return gather(report(**fields), given, brought, None, revocations=False)


def ours() -> certificate.Certificate:
    return certificate.parse(fake_amd.authority(GENOA).issue(fake_amd.vek_form()._replace(serial=5)))


def test_what_the_user_names_comes_first() -> None:
    table = Certificates(served_guest.vcek(), None, *served_guest.issuers())
    one = ours()
    assert found(GIVEN._replace(vek=one, table=table), *served_guest.endorsements()).vek == one
    assert found(GIVEN._replace(table=table._replace(vcek=one.der)), *served_guest.endorsements()).vek == one
    assert found(GIVEN, *served_guest.endorsements()).vek.der == served_guest.vcek()


def test_lists_come_in_the_same_order() -> None:
    brought = (*served_guest.endorsements(), attestationcollateral.of_crl(b"theirs"))
    assert found(GIVEN, *brought).revocations == b"theirs"
    assert found(GIVEN._replace(revocations=b"ours"), *brought).revocations == b"ours"


def test_a_table_has_both_keys_and_the_report_says_which() -> None:
    amd = fake_amd.authority(GENOA)
    vlek = amd.issue(fake_amd.vek_form(kind="VLEK"))
    table = Certificates(served_guest.vcek(), vlek, b"no certificate", served_guest.issuers()[1])
    given = GIVEN._replace(table=table)
    assert found(given).vek.common_name == "SEV-VCEK"
    assert found(given, key_info=stub_report.VLEK).vek.common_name == "SEV-VLEK"
    assert [one.common_name for one in found(given).offered] == ["ARK-Genoa"]


def test_what_is_about_something_else_is_passed_over() -> None:
    (entry,) = served_guest.endorsements()
    with pytest.raises(Unavailable, match="there is no certificate of the report's key"):
        found(GIVEN, entry._replace(subjects=("gpu0",)))
    with pytest.raises(Unavailable):
        found(GIVEN, entry._replace(format="https://example.com/other"))


@pytest.mark.parametrize("vek", [b"no certificate", b"\x30\x00"])
def test_a_document_that_brings_nonsense(vek: bytes) -> None:
    with pytest.raises(Malformed):
        found(GIVEN, *served_guest.endorsements(vek))


def test_nobody_has_it() -> None:
    with pytest.raises(Unavailable, match="there is no certificate") as caught:
        found()
    assert "--offline" in caught.value.hint


Answers = dict[str, Callable[[served_guest.Request], Answer]]


def online(
    answers: Answers,
    given: Given = GIVEN,
    *brought: attestationcollateral.Collateral,
    revocations: bool = False,
    **fields: Any,
) -> Endorsements:
    with Host(tls=False) as service:
        service.answers = answers
        kds = Kds(f"http://{service.origin.authority}", Cache(None), NOW, seconds=10)
        return gather(report(**fields), given, brought, kds, revocations=revocations)


CHIP = f"/vcek/v1/Genoa/{stub_report.chip_id(GENOA).hex()}"
OFFERED = GIVEN._replace(offered=tuple(certificate.parse(der) for der in served_guest.issuers()))


def test_amd_is_asked_last() -> None:
    answers: Answers = {CHIP: lambda _: Answer(served_guest.vcek())}
    assert online(answers, OFFERED).vek.der == served_guest.vcek()


def test_what_amd_says_is_verified_before_it_is_used() -> None:
    """Without the test root, and so without its issuers, the chain does not hold."""
    answers: Answers = {CHIP: lambda _: Answer(served_guest.vcek())}
    with pytest.raises(Unavailable, match="is not at hand"):
        online(answers, Given())


def test_a_host_whose_certificate_is_of_an_older_tcb() -> None:
    """Firmware was updated since the host laid its certificate ready: AMD has the one that fits."""
    amd = fake_amd.authority(GENOA)
    old = stub_report.TCBS[GENOA]._replace(ucode=1)
    stale = amd.issue(amd.vcek(fake_amd.KEY, old, stub_report.chip_id(GENOA)))
    brought = served_guest.endorsements(stale)
    assert found(GIVEN, *brought).vek.der == stale  # nobody can be asked, and the check says what is wrong
    answers: Answers = {CHIP: lambda _: Answer(served_guest.vcek())}
    assert online(answers, GIVEN, *brought).vek.der == served_guest.vcek()
    assert online({}, GIVEN, *served_guest.endorsements()).vek.der == served_guest.vcek()
    ours = GIVEN._replace(vek=certificate.parse(stale))
    assert online({}, ours, *brought).vek.der == stale


def test_a_list_is_asked_for_where_it_is_demanded() -> None:
    answers: Answers = {
        CHIP: lambda _: Answer(served_guest.vcek()),
        "/vcek/v1/Genoa/crl": lambda _: Answer(served_guest.revocation_list()),
    }
    assert online(answers, OFFERED).revocations is None
    assert online(answers, OFFERED, revocations=True).revocations


def test_of_amds_own_roots_a_list_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "AMD", client_terms.pinned())
    answers: Answers = {
        CHIP: lambda _: Answer(served_guest.vcek()),
        "/vcek/v1/Genoa/crl": lambda _: Answer(served_guest.revocation_list()),
    }
    assert online(answers, OFFERED).revocations
    answers["/vcek/v1/Genoa/crl"] = lambda _: Answer(b"", 500)
    assert online(answers, OFFERED).revocations is None


@pytest.mark.parametrize("demanded", [False, True])
def test_a_host_does_not_choose_the_list_where_amds_can_be_had(
    monkeypatch: pytest.MonkeyPatch, demanded: bool
) -> None:
    """One from before its chip was revoked may be in force for months."""
    monkeypatch.setattr(roots, "AMD", client_terms.pinned())
    brought = (*served_guest.endorsements(), attestationcollateral.of_crl(b"from before"))
    ours = served_guest.revocation_list()
    answers: Answers = {"/vcek/v1/Genoa/crl": lambda _: Answer(ours)}
    assert online(answers, GIVEN, *brought, revocations=demanded).revocations == ours
    answers["/vcek/v1/Genoa/crl"] = lambda _: Answer(b"", 404)
    assert online(answers, GIVEN, *brought, revocations=demanded).revocations == b"from before"


def test_a_providers_certificate_cannot_be_asked_for() -> None:
    with pytest.raises(Unavailable, match="signed by a provider's key"):
        online({}, key_info=stub_report.VLEK)


def test_issuers_that_nobody_has_are_asked_for() -> None:
    """AMD's ASVK of Genoa is in no package."""
    amd = fake_amd.authority(GENOA)
    vlek = certificate.parse(amd.issue(fake_amd.vek_form(kind="VLEK")))
    chain = stub_nvidia.pem([amd.issue(amd.asvk()), served_guest.issuers()[1]])
    answers: Answers = {"/vlek/v1/Genoa/cert_chain": lambda _: Answer(chain)}
    got = online(answers, GIVEN._replace(vek=vlek), key_info=stub_report.VLEK)
    assert [one.common_name for one in got.offered] == ["SEV-VLEK-Genoa", "ARK-Genoa"]


@pytest.mark.parametrize("end", ["no root", "another signature"])
def test_issuers_that_are_not_amds(end: str) -> None:
    """They would be kept for a month."""
    amd = fake_amd.authority(GENOA)
    vlek = certificate.parse(amd.issue(fake_amd.vek_form(kind="VLEK")))
    asvk, ark = amd.issue(amd.asvk()), served_guest.issuers()[1]
    made = {"no root": [asvk], "another signature": [asvk[:-1] + bytes([asvk[-1] ^ 1]), ark]}[end]
    answers: Answers = {"/vlek/v1/Genoa/cert_chain": lambda _: Answer(stub_nvidia.pem(made))}
    with pytest.raises(Mismatch, match=r"no root that is trusted|signature of"):
        online(answers, GIVEN._replace(vek=vlek), key_info=stub_report.VLEK)


def test_version_2_names_no_product_so_both_are_tried() -> None:
    asked: list[str] = []

    def milan(request: served_guest.Request) -> Answer:
        asked.append(request.path)
        return Answer(b"no such chip", 404)

    other = CHIP.replace("Genoa", "Milan")
    answers: Answers = {CHIP: lambda _: Answer(served_guest.vcek()), other: milan}
    assert online(answers, OFFERED, version=2).vek.der == served_guest.vcek()
    assert asked == [other]
