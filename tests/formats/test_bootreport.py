"""The line of a boot's report: back and forth, and what it binds."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.bootreport import PREFIX, BootReport, line, parse, report_data

reports = st.binary(min_size=1184, max_size=1184)


@given(
    st.binary(max_size=300), st.sampled_from(["sev-guest", "configfs-tsm"]), reports, st.binary(max_size=300)
)
def test_parse_inverts_line(sealed: bytes, provider: str, report: bytes, certificates: bytes) -> None:
    made = BootReport(sealed, provider, report, certificates)
    text = line(made)
    assert parse(text) == made
    assert text.isascii()
    assert text.isprintable()


def test_what_is_bound() -> None:
    assert report_data(b"{}\n") == hashlib.sha512(b"tinboot-boot-report 1\n{}\n").digest()


GOOD = json.loads(line(BootReport(b"s", "sev-guest", bytes(1184), b"")).removeprefix(PREFIX))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the line of a boot's report"),
        (json.dumps(GOOD), "not the line of a boot's report"),
        (PREFIX + "[]", "has certificates, provider, report, sealed"),
        (PREFIX + json.dumps({**GOOD, "more": 1}), "has certificates"),
        (PREFIX + json.dumps({k: v for k, v in GOOD.items() if k != "sealed"}), "has certificates"),
        (PREFIX + json.dumps({**GOOD, "report": GOOD["report"][:-4]}), "a report of 1182 bytes"),
        (PREFIX + json.dumps({**GOOD, "report": "*"}), "not in base64"),
        (PREFIX + json.dumps({**GOOD, "sealed": 7}), "not in base64"),
        (PREFIX + json.dumps({**GOOD, "certificates": "A" * 21848}), "certificates of 16386"),
        (PREFIX + "{", "Expecting"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)
