"""A RIM's bytes: whatever XML has beyond elements, attributes and white space never gets to a parser."""

from __future__ import annotations

import contextlib

import fake_nvidia
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.builder import rim_document
from tinboot.builder.rim_document import MAX_SIZE, parse
from tinboot.formats.errors import Malformed

GOOD = fake_nvidia.rim("driver")


def test_the_tree() -> None:
    root = parse(GOOD)
    assert root.tag.endswith("}SoftwareIdentity")
    assert [child.tag.rpartition("}")[2] for child in root.children()] == [
        "Entity",
        "Meta",
        "Payload",
        "Signature",
    ]
    assert [child.line for child in root.children()] == [2, 3, 4, 70]


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "before",
    [
        b'<?xml version="1.0"?>',
        b'<?xml version="1.0" encoding="UTF-7"?>',
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b" ",
        b"\n",
        b"<!-- -->",
        b"<?a?>",
        b"<!DOCTYPE SoftwareIdentity>",
        b'<!DOCTYPE SoftwareIdentity SYSTEM "http://127.0.0.1:1/x.dtd">',
        BOMB,
        EXTERNAL,
        b"<SoftwareIdentity/>"[:-2] + b"s>",
    ],
)
def test_what_stands_before(before: bytes) -> None:
    with pytest.raises(Malformed, match=r"line 1: begins with b.*, expected b'<SoftwareIdentity '"):
        parse(before + GOOD)


@pytest.mark.parametrize(
    ("within", "message"),
    [
        (b"<!-- -->", "line 4: '<!', expected elements and text alone"),
        (b"<?a?>", r"line 4: '<\?', expected"),
        (b"<![CDATA[ ]]>", "line 4: '<!', expected"),
        (BOMB, "line 4: '<!'"),
        (EXTERNAL, "line 4: '<!'"),
        (b"&amp;", "line 4: '&'"),
        (b"&#32;", "line 4: '&'"),
        (b"&b;", "line 4: '&'"),
        (b"\0", "line 4: a byte 00, expected printable ASCII and newlines"),
        (b"\r\n", "line 4: a byte 0d"),
        (b"\t", "line 4: a byte 09"),
        ("\N{NO-BREAK SPACE}".encode(), "line 4: a byte c2"),
        (b"</ns0:Payload>", "line [0-9]+: Opening and ending tag mismatch"),
        (b"<ns0:Resource", "line [0-9]+: "),
        (b"<a:b/>", "line 4: Namespace prefix a on b is not defined"),
        (b"<ns0:Resource a='' a=''/>", "line 4: Attribute a redefined"),
        (
            b"<ns0:Resource ns2:Hash0='' SHA384:Hash0=''/>",
            "line 4: Namespaced Attribute Hash0 in .* redefined",
        ),
        (b"<a>" * 300, "line 4: Excessive depth|line 4: .*[dD]epth"),
    ],
)
def test_what_stands_within(within: bytes, message: str) -> None:
    at = GOOD.index(b">", GOOD.index(b"<ns0:Payload")) + 1
    with pytest.raises(Malformed, match=message):
        parse(GOOD[:at] + within + GOOD[at:])


@pytest.mark.parametrize("behind", [b"<SoftwareIdentity />", b"x", b"<!-- -->", b"<?a?>", b"\0"])
def test_what_stands_behind(behind: bytes) -> None:
    with pytest.raises(Malformed, match=r"^line 129: "):
        parse(GOOD + behind)


def test_size() -> None:
    parse(GOOD + b"\n" * (MAX_SIZE - len(GOOD)))
    with pytest.raises(Malformed, match=f"a RIM of {MAX_SIZE + 1} bytes, expected at most {MAX_SIZE}"):
        parse(GOOD + b"\n" * (MAX_SIZE - len(GOOD) + 1))


@pytest.mark.parametrize("data", [b"", b"<", b"<SoftwareIdentity ", GOOD[:-2], GOOD[:5000]])
def test_what_ends_too_soon(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"^line [0-9]+: "):
        parse(data)


def test_the_parser_reads_no_files(tmp_path: pytest.TempPathFactory) -> None:
    """Even if it got to see a document type."""
    from lxml import etree

    root = etree.fromstring(EXTERNAL + b"<x>&a;</x>", rim_document.parser())
    assert root.text is None
    assert [child.tag for child in root] == [etree.Entity]


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_bytes_that_are_none(data: bytes, at: int) -> None:
    for whole in (data, GOOD[:at] + data + GOOD[at:], b"<SoftwareIdentity " + data):
        with contextlib.suppress(Malformed):
            parse(whole)
