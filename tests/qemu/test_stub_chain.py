"""The fake AMD's certificates hold before a second opinion, and its keys are made once."""

from __future__ import annotations

import multiprocessing
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stub_chain
import stub_report
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from stub_chain import MARK

from tinboot.builder import places
from tinboot.formats.snptcb import LINES, TURIN, Line

KEYS = places.build_folder() / "stub-amd"
NOW = datetime.now(UTC)


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_openssl_accepts_the_chain(tmp_path: Path, line: Line, kind: str) -> None:
    amd, key = stub_chain.authority(KEYS, line, NOW), stub_chain.chip_key()
    tcb = stub_report.TCBS[line]
    form = amd.vcek(key, tcb, stub_report.CHIP_ID) if kind == "vcek" else amd.vlek(key, tcb)
    ask, ark = amd.chain("vcek" if kind == "vcek" else "vlek")
    for name, der in (("vek", amd.issue(form)), ("ask", ask), ("ark", ark)):
        (tmp_path / f"{name}.pem").write_bytes(stub_chain.pem([der]))
    openssl(
        *("verify", "-x509_strict", "-ignore_critical", "-CAfile", tmp_path / "ark.pem"),
        *("-untrusted", tmp_path / "ask.pem", tmp_path / "ask.pem"),
    )
    openssl(
        *("verify", "-CAfile", tmp_path / "ark.pem", "-untrusted", tmp_path / "ask.pem", tmp_path / "vek.pem")
    )
    text = openssl("x509", "-in", tmp_path / "vek.pem", "-noout", "-text")
    assert "Serial Number: 0 (0x0)" in text
    assert f"O = {MARK}, CN = SEV-{kind.upper()}" in text
    assert ("1.3.6.1.4.1.3704.1.3.9" in text) == (line is TURIN)


def test_openssl_accepts_the_revocation_list(tmp_path: Path) -> None:
    amd = stub_chain.authority(KEYS, TURIN, NOW)
    (tmp_path / "crl").write_bytes(amd.revoke(amd.revocations(0x10001)))
    (tmp_path / "ark.pem").write_bytes(stub_chain.pem([amd.chain()[1]]))
    text = openssl(
        *(
            "crl",
            "-inform",
            "der",
            "-in",
            tmp_path / "crl",
            "-noout",
            "-text",
            "-CAfile",
            tmp_path / "ark.pem",
        )
    )
    assert "Serial Number: 010001" in text


def test_dates_are_told_from_the_time_that_is_given() -> None:
    later = NOW + timedelta(days=10_000)
    form = stub_chain.authority(KEYS, TURIN, later).ask()
    assert form.not_before < later < form.not_after
    assert b"\x18\x0f20" in stub_chain.authority(KEYS, TURIN, later).issue(form)


def _key_of(folder: Path) -> bytes:
    return stub_chain.spki(stub_chain.chip_key(folder).public_key())


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_key_of, [tmp_path] * 8))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "chip.pem"]
    kept = serialization.load_pem_private_key((tmp_path / "chip.pem").read_bytes(), None)
    assert isinstance(kept, ec.EllipticCurvePrivateKey)


def test_without_a_folder_each_chip_is_another() -> None:
    assert stub_chain.chip_key().private_numbers() != stub_chain.chip_key().private_numbers()
