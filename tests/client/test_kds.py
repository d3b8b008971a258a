"""AMD's key distribution service, over a loopback one: what is asked, kept, waited for, and never kept."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fake_amd
import pytest
import served_guest
import stub_nvidia
import stub_report
from client_terms import amd_root
from fake_amd import NOW
from served_guest import Answer, Host
from stub_report import Contents

from tinboot.client import kds
from tinboot.client.cache import Cache
from tinboot.client.fetch import Busy
from tinboot.client.kds import Kds
from tinboot.formats.errors import Malformed, Mismatch, TinbootError, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import GENOA, TURIN, Line

CRL = "/vcek/v1/Genoa/crl"


def hold(_: object) -> None:
    """Where a test is not about whether a certificate holds."""


@pytest.fixture
def service() -> Iterator[Host]:
    with Host(tls=False) as service:
        yield service


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are noted and not waited."""
    waited: list[float] = []
    monkeypatch.setattr(kds, "_BACKOFF", 0.001)
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


Ask = Callable[..., Kds]


@pytest.fixture
def ask(service: Host, cache: Cache) -> Ask:
    def made(now: datetime = NOW, **options: Any) -> Kds:
        return Kds(f"http://{service.origin.authority}", cache, now, **options)

    return made


def path(line: Line = GENOA) -> str:
    return f"/vcek/v1/{line.name}/{stub_report.chip_id(line)[: line.hwid].hex()}"


def report(line: Line = GENOA, **fields: Any) -> Report:
    return fake_amd.report(Contents(line)._replace(**fields))


def vcek(line: Line = GENOA) -> bytes:
    return fake_amd.authority(line).issue(fake_amd.vek_form(line))


@pytest.mark.parametrize(
    ("line", "query"),
    [
        (GENOA, "blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=84"),
        (TURIN, "fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=72"),
    ],
    ids=["Genoa", "Turin"],
)
def test_a_chip_is_asked_for_once(service: Host, ask: Ask, line: Line, query: str) -> None:
    service.answers[path(line)] = lambda _: Answer(vcek(line))
    for _ in range(2):
        found = ask().vcek(report(line), line, hold)
        assert found.common_name == "SEV-VCEK"
    assert [sent.target for sent in service.seen] == [f"{path(line)}?{query}"]


def test_each_service_has_its_own_files(service: Host, ask: Ask, cache: Cache) -> None:
    service.answers[path()] = lambda _: Answer(vcek())
    ask().vcek(report(), GENOA, hold)
    elsewhere = Kds(f"http://{service.origin.authority}/mirror/", cache, NOW)
    service.answers[f"/mirror{path()}"] = lambda _: Answer(vcek())
    elsewhere.vcek(report(), GENOA, hold)
    assert [sent.path for sent in service.seen] == [path(), f"/mirror{path()}"]


def other_chip() -> bytes:
    amd = fake_amd.authority(GENOA)
    return amd.issue(amd.vcek(fake_amd.KEY, stub_report.TCBS[GENOA], bytes(64)))


def other_tcb() -> bytes:
    amd = fake_amd.authority(GENOA)
    tcb = stub_report.TCBS[GENOA]._replace(ucode=1)
    return amd.issue(amd.vcek(fake_amd.KEY, tcb, stub_report.chip_id(GENOA)))


WRONG: dict[str, tuple[Callable[[], bytes], type[TinbootError]]] = {
    "another chip": (other_chip, Mismatch),
    "another TCB": (other_tcb, Mismatch),
    "nothing": (lambda: b"", Malformed),
    "text": (lambda: b"<html>", Malformed),
    "two": (lambda: stub_nvidia.pem([vcek(), vcek()]), Malformed),
    "large": (lambda: bytes(1 << 20), Malformed),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_not_kept(service: Host, ask: Ask, name: str, tmp_path: Path) -> None:
    make, kind = WRONG[name]
    service.answers[path()] = lambda _: Answer(make())
    with pytest.raises(kind):
        ask().vcek(report(), GENOA, hold)
    assert list(tmp_path.iterdir()) == []
    service.answers[path()] = lambda _: Answer(vcek())
    ask().vcek(report(), GENOA, hold)


def test_what_does_not_hold_is_not_kept(service: Host, ask: Ask, tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise Mismatch("not of AMD's")

    service.answers[path()] = lambda _: Answer(vcek())
    with pytest.raises(Mismatch, match="not of AMD's"):
        ask().vcek(report(), GENOA, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_as_if_it_were_not_there(service: Host, ask: Ask, tmp_path: Path) -> None:
    service.answers[path()] = lambda _: Answer(vcek())
    ask().vcek(report(), GENOA, hold)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"half")
    ask().vcek(report(), GENOA, hold)
    assert len(service.seen) == 2
    assert kept.read_bytes() != b"half"


def test_a_chip_that_is_masked(ask: Ask, service: Host) -> None:
    with pytest.raises(Unavailable, match="names no chip"):
        ask().vcek(report(chip_id=bytes(64)), GENOA, hold)
    assert service.seen == []


def test_busy_is_waited_out(service: Host, ask: Ask, quick: list[float]) -> None:
    answers = [Answer(vcek()), Answer(b"", 429), Answer(b"", 429, (("Retry-After", "3"),))]
    service.answers[path()] = lambda _: answers.pop()
    said: list[str] = []
    ask(told=said.append).vcek(report(), GENOA, hold)
    assert [round(seconds) for seconds in quick] == [3, 10]
    assert f"{service.origin.authority} takes no request for 3 seconds" in said


def test_busy_is_waited_out_without_a_cache(service: Host, quick: list[float]) -> None:
    answers = [Answer(vcek()), Answer(b"", 429, (("Retry-After", "3"),))]
    service.answers[path()] = lambda _: answers.pop()
    Kds(f"http://{service.origin.authority}", Cache(None), NOW).vcek(report(), GENOA, hold)
    assert [round(seconds) for seconds in quick] == [3]


def test_busy_holds_for_every_process(service: Host, ask: Ask, quick: list[float]) -> None:
    service.answers[path()] = lambda _: Answer(b"", 429, (("Retry-After", "100"),))
    with pytest.raises(Busy, match="takes no request for 100 seconds more"):
        ask(seconds=20).vcek(report(), GENOA, hold)
    with pytest.raises(Busy, match="takes no request"):
        ask(seconds=20).vcek(report(), GENOA, hold)
    assert len(service.seen) == 1
    assert quick == []


@pytest.mark.parametrize("noted", [b"soon", b"nan", b"inf", b"-1", b"99999999999"])
def test_a_note_that_cannot_be_ours(service: Host, ask: Ask, cache: Cache, noted: bytes) -> None:
    service.answers[path()] = lambda _: Answer(b"", 429, (("Retry-After", "1"),))
    with pytest.raises(Busy):
        ask(seconds=20).vcek(report(), GENOA, hold)
    (name,) = [found.name for found in Path(str(cache._folder)).iterdir()]
    cache.put(name, noted)
    service.answers[path()] = lambda _: Answer(vcek())
    ask(seconds=20).vcek(report(), GENOA, hold)


def test_what_may_pass_is_tried_again(service: Host, ask: Ask, quick: list[float]) -> None:
    answers = [Answer(vcek()), Answer(b"", 500), Answer(b"", 502)]
    service.answers[path()] = lambda _: answers.pop()
    ask().vcek(report(), GENOA, hold)
    assert len(quick) == 2
    assert quick[0] < quick[1] * 2.01


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (400, 1), (500, 4)])
def test_tries_come_to_an_end(service: Host, ask: Ask, status: int, tries: int) -> None:
    service.answers[path()] = lambda _: Answer(b"", status)
    with pytest.raises(Unavailable, match=f"status {status}"):
        ask().vcek(report(), GENOA, hold)
    assert len(service.seen) == tries


def test_time_comes_to_an_end(service: Host, ask: Ask) -> None:
    service.instead = lambda _: service.stopped(10)
    with pytest.raises(Unavailable, match="in time"):
        ask(seconds=0.2).vcek(report(), GENOA, hold)


def test_a_chain_is_kept_for_a_month(service: Host, ask: Ask) -> None:
    service.answers["/vlek/v1/Genoa/cert_chain"] = lambda _: Answer(
        stub_nvidia.pem([*served_guest.issuers()])
    )
    for _ in range(2):
        names = [certificate.common_name for certificate in ask().chain(GENOA, "vlek", hold)]
        assert names == ["SEV-Genoa", "ARK-Genoa"]
    assert len(service.seen) == 1


def test_issuers_that_do_not_hold_are_not_kept(service: Host, ask: Ask, tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise Mismatch("no")

    service.answers["/vcek/v1/Genoa/cert_chain"] = lambda _: Answer(
        stub_nvidia.pem([*served_guest.issuers()])
    )
    with pytest.raises(Mismatch, match="no"):
        ask().chain(GENOA, "vcek", fail)
    assert list(tmp_path.iterdir()) == []


def listed(days: int = 0) -> bytes:
    amd = fake_amd.authority(GENOA)
    form = amd.revocations()
    step = timedelta(days=days)
    next_update = None if form.next_update is None else form.next_update + step
    return amd.revoke(form._replace(this_update=form.this_update + step, next_update=next_update))


def test_a_list_is_kept_for_a_day(service: Host, ask: Ask, tmp_path: Path) -> None:
    service.answers[CRL] = lambda _: Answer(listed())
    for _ in range(2):
        assert ask().revocations(GENOA, amd_root())
    assert len(service.seen) == 1
    age(tmp_path)
    ask().revocations(GENOA, amd_root())
    assert len(service.seen) == 2


def age(folder: Path) -> None:
    """As if all of it had been written two days ago."""
    for kept in folder.iterdir():
        os.utime(kept, (time.time() - 2 * 24 * 3600,) * 2)


def test_an_older_list_will_do_while_it_is_in_force(service: Host, ask: Ask, tmp_path: Path) -> None:
    service.answers[CRL] = lambda _: Answer(listed())
    first = ask().revocations(GENOA, amd_root())
    age(tmp_path)
    service.answers[CRL] = lambda _: Answer(b"", 500)
    assert ask().revocations(GENOA, amd_root()) == first
    with pytest.raises(Unavailable, match="status 500"):
        ask(NOW + timedelta(days=1000)).revocations(GENOA, amd_root())


def test_who_can_do_without_a_list_asks_once_an_hour(
    service: Host, ask: Ask, tmp_path: Path, quick: list[float]
) -> None:
    service.answers[CRL] = lambda _: Answer(b"", 500)
    for _ in range(2):
        assert ask().revocations_or_none(GENOA, amd_root()) is None
    assert len(service.seen) == 1
    assert quick == []
    age(tmp_path)
    service.answers[CRL] = lambda _: Answer(listed())
    assert ask().revocations_or_none(GENOA, amd_root()) is not None


@pytest.mark.parametrize("days", [-1000, 1000])
def test_a_list_that_is_not_in_force(service: Host, ask: Ask, days: int, tmp_path: Path) -> None:
    service.answers[CRL] = lambda _: Answer(listed(days))
    with pytest.raises(Unavailable, match="is not in force"):
        ask().revocations(GENOA, amd_root())
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_another_root(service: Host, ask: Ask, tmp_path: Path) -> None:
    data = listed()
    changed = data[:-1] + bytes([data[-1] ^ 1])
    service.answers[CRL] = lambda _: Answer(changed)
    with pytest.raises(Mismatch, match="signature of"):
        ask().revocations(GENOA, amd_root())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kds",
        "ftp://kds.example",
        "https://",
        "https://u:p@kds.example",
        "https://kds.example/?x",
        "https://k.example#x",
    ],
)
def test_urls_that_are_none(url: str, cache: Cache) -> None:
    with pytest.raises(ValueError, match=r"is no http|is no HOST|has no port"):
        Kds(url, cache, NOW)


def test_amds_own_is_spoken_to_over_tls_that_an_authority_vouches_for(cache: Cache) -> None:
    with Host() as host:
        service = Kds(f"https://{host.origin.authority}", cache, NOW)
        with pytest.raises(Unavailable, match=re.compile("certificate verify failed", re.IGNORECASE)):
            service.vcek(report(), GENOA, hold)
    assert host.seen == []
