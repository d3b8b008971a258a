"""Attestation documents: byte for byte what clients read, read back strictly, a bomb refused by its bound."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import attestationcollateral, cryptomaterial, deviceevidence, reportdata
from tinboot.formats.attestationcollateral import Collateral, Vcek
from tinboot.formats.attestationdocument import (
    MAX_V2,
    MAX_V3,
    DocumentV2,
    DocumentV3,
    compose_v2,
    compose_v3,
    document_hash,
    parse,
    parse_v2,
    parse_v3,
    render_v2,
    render_v3,
)
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.errors import Malformed, Refused, TinbootError
from tinboot.formats.gpuevidence import GpuEvidence

REPORT = bytes(range(256)) * 4 + bytes(160)
NONCE = bytes(range(32))
KEYS = cryptomaterial.render(CryptoMaterial(b"\xaa" * 32, b"\xbb" * 32))
GPUS = deviceevidence.render([GpuEvidence("HOPPER", b"chain", b"report", NONCE)])
V2 = compose_v2(REPORT)
V3 = compose_v3(
    NONCE,
    REPORT,
    KEYS,
    GPUS,
    (
        attestationcollateral.of_vcek(Vcek(b"\x30\x00", "-----BEGIN CERTIFICATE-----\n")),
        Collateral("code", "reference-values", "https://tinfoil.sh/collateral/other/v1", (), b'{"a":[1]}'),
    ),
)


def packed(data: bytes, **options: Any) -> DocumentV2:
    return DocumentV2(V2.format, base64.b64encode(gzip.compress(data, **options)).decode())


def v2(**members: object) -> bytes:
    found = V2._asdict() | members
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def v3(path: str, value: object) -> bytes:
    """`V3` with the member at `path` replaced, added, or taken out (`...`)."""
    found = json.loads(render_v3(V3))
    where = found
    *folders, name = path.split(".")
    for folder in folders:
        where = where[folder]
    if value is ...:
        del where[name]
    else:
        where[name] = value
    return json.dumps(found).encode()


# --- v2 ---


def test_the_written_form_of_v2_does_not_change() -> None:
    data = render_v2(REPORT)
    assert data.startswith(b'{"format":"https://tinfoil.sh/predicate/sev-snp-guest/v2","body":"H4sIAAAAAAAC')
    assert data.endswith(b'"}')
    assert render_v2(REPORT) == data
    body = base64.b64decode(json.loads(data)["body"])
    assert (
        body[:10].hex() == "1f8b0800000000000203"
    )  # RFC 1952, 2.3: no flags, no time; best compression, Unix
    assert gzip.decompress(body) == REPORT


def test_the_hash_is_of_format_and_body() -> None:
    text = V2.format + V2.body
    assert document_hash(V2) == hashlib.sha256(text.encode()).hexdigest()


@given(st.binary(min_size=1184, max_size=1184))
def test_what_is_written_of_v2_is_read(report: bytes) -> None:
    document = parse_v2(render_v2(report))
    assert document == parse(render_v2(report)) == compose_v2(report)
    assert document.report == report


@pytest.mark.parametrize("level", [0, 1, 9])
def test_however_it_was_compressed(level: int) -> None:
    """Other servers have a time, a name, another level."""
    assert packed(REPORT, compresslevel=level, mtime=1_700_000_000).report == REPORT


def test_a_stream_in_several_blocks() -> None:
    """As Go's compress/gzip ends one: a flush, then an empty last block; the system is unknown."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    data = packer.compress(REPORT) + packer.flush(zlib.Z_SYNC_FLUSH) + packer.flush()
    data = data[:9] + b"\xff" + data[10:]
    assert DocumentV2(V2.format, base64.b64encode(data).decode()).report == REPORT


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (packed(REPORT[:-1]), "unpacks to 1183 bytes, expected 1184 and nothing behind"),
        (packed(REPORT + b"x"), "unpacks to more than the 1184 bytes"),
        (packed(b""), "unpacks to 0 bytes"),
        (packed(bytes(3 << 20)), "unpacks to more than the 1184 bytes"),
        (
            DocumentV2(V2.format, base64.b64encode(gzip.compress(REPORT) + b"x").decode()),
            "nothing behind",
        ),
        (
            DocumentV2(V2.format, base64.b64encode(gzip.compress(REPORT) * 2).decode()),
            "nothing behind",
        ),
        (DocumentV2(V2.format, base64.b64encode(gzip.compress(REPORT)[:-1]).decode()), "nothing behind"),
        (DocumentV2(V2.format, base64.b64encode(zlib.compress(REPORT)).decode()), "is not gzip"),
        (DocumentV2(V2.format, base64.b64encode(REPORT).decode()), "is not gzip"),
        (DocumentV2(V2.format, base64.b64encode(bytes(5000)).decode()), "has 6668 characters|has 5000 bytes"),
        (DocumentV2(V2.format, ""), "has 0 bytes"),
        (DocumentV2(V2.format, V2.body + "\n"), "not in base64"),
    ],
)
def test_a_body_that_is_no_report(document: DocumentV2, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        _ = document.report
    with pytest.raises(Malformed):
        parse_v2(json.dumps(document._asdict()).encode())


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times its size would come of it; no more than a report and a byte is asked for."""
    asked = []

    class Unpacker:
        def __init__(self, wbits: int) -> None:
            self._own = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            asked.append(most)
            return self._own.decompress(data, most)

    real = zlib.decompressobj
    bomb = packed(bytes(3_000_000))
    assert len(bomb.body) < 4200
    monkeypatch.setattr(zlib, "decompressobj", Unpacker)
    with pytest.raises(Malformed, match="unpacks to more than"):
        _ = bomb.report
    assert asked == [1185]


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        (v2(format=...), Malformed, "format is missing"),
        (
            v2(format="https://tinfoil.sh/predicate/sev-snp-guest/v1"),
            Malformed,
            "expected '.*sev-snp-guest/v2'",
        ),
        (v2(format="https://tinfoil.sh/predicate/tdx-guest/v2"), Refused, "of TDX, which is not appraised"),
        (
            v2(format="https://tinfoil.sh/predicate/dummy/v2"),
            Refused,
            "a dummy, which is evidence of nothing",
        ),
        (v2(body=1), Malformed, "body is a number"),
        (v2(more=1), Malformed, "unknown member 'more'"),
        (v2()[:-1] + b',"body":""}', Malformed, "stands twice"),
        (v2() + b"}", Malformed, "not strict JSON"),
        (b" " * (MAX_V2 + 1), Malformed, "expected at most"),
        (b"[]", Malformed, "an array, expected an object"),
        (v2(body=...), Malformed, "body is missing"),
    ],
)
def test_no_document_of_v2(data: bytes, kind: type[TinbootError], told: str) -> None:
    with pytest.raises(kind, match=told):
        parse_v2(data)


# --- v3 ---


def test_the_written_form_of_v3_does_not_change() -> None:
    bare = V3._replace(collateral=())
    data = reportdata.v3(NONCE, KEYS, GPUS).hex()
    keys, gpus = (base64.b64encode(section).decode() for section in (KEYS, GPUS))
    hashes = [hashlib.sha256(section).hexdigest() for section in (KEYS, GPUS)]
    assert render_v3(bare).decode() == (
        '{"format":"https://tinfoil.sh/predicate/attestation/v3",'
        f'"challenge":{{"nonce":"{NONCE.hex()}","report_data":"{data}",'
        '"report_data_algorithm":"https://tinfoil.sh/report-data/v1"},'
        '"cpu_evidence":{"format":"https://tinfoil.sh/format/sev-snp-report/v1",'
        f'"report_base64":"{base64.b64encode(REPORT).decode()}",'
        f'"endorsed":{{"crypto_material_hash":"{hashes[0]}","device_evidence_hash":"{hashes[1]}"}}}},'
        f'"crypto_material":"{keys}","device_evidence":"{gpus}","collateral":[]}}'
    )


def test_what_is_written_of_v3_is_read() -> None:
    assert parse_v3(render_v3(V3)) == parse(render_v3(V3)) == V3


@given(
    st.builds(
        DocumentV3,
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=64, max_size=64),
        st.binary(min_size=1184, max_size=1184),
        st.binary(min_size=1, max_size=300),
        st.binary(min_size=1, max_size=300),
        st.just(V3.collateral),
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=32, max_size=32),
    )
)
def test_reading_judges_nothing(document: DocumentV3) -> None:
    """Hashes that do not fit, sections that are none: a check says so, and has a name."""
    assert parse_v3(render_v3(document)) == document


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        (v3("format", ...), Malformed, "format is missing"),
        (
            v3("format", "https://tinfoil.sh/predicate/attestation/v4"),
            Malformed,
            "expected '.*attestation/v3'",
        ),
        (v3("Format", "x"), Malformed, "unknown member 'Format'"),
        (v3("generated_at", "2026"), Malformed, "unknown member 'generated_at'"),
        (v3("challenge", ...), Malformed, "challenge is missing"),
        (v3("challenge.nonce", ...), Malformed, "challenge.nonce is missing"),
        (v3("challenge.nonce", NONCE.hex().upper()), Malformed, "expected 64 lower-case hex digits"),
        (v3("challenge.nonce", NONCE.hex()[2:]), Malformed, "expected 64 lower-case hex digits"),
        (v3("challenge.report_data", "00" * 32), Malformed, "expected 128 lower-case hex digits"),
        (
            v3("challenge.report_data_algorithm", "https://tinfoil.sh/report-data/v2"),
            Malformed,
            "expected https",
        ),
        (v3("challenge.more", 1), Malformed, "challenge has the unknown member 'more'"),
        (v3("cpu_evidence.format", "https://tinfoil.sh/format/tdx-quote/v1"), Refused, "of TDX"),
        (v3("cpu_evidence.format", "x"), Malformed, "cpu_evidence.format is 'x'"),
        (v3("cpu_evidence.report_base64", "AAAA"), Malformed, "has 3 bytes, expected 1184 to 1184"),
        (v3("cpu_evidence.more", 1), Malformed, "cpu_evidence has the unknown member"),
        (v3("cpu_evidence.endorsed", ...), Malformed, "endorsed is missing"),
        (v3("cpu_evidence.endorsed.crypto_material_hash", "00"), Malformed, "expected 64 lower-case"),
        (v3("cpu_evidence.endorsed.device_evidence_hash", "AA" * 32), Malformed, "expected 64 lower-case"),
        (v3("cpu_evidence.endorsed.more", 1), Malformed, "endorsed has the unknown member"),
        (v3("crypto_material", ...), Malformed, "crypto_material is missing"),
        (v3("crypto_material", ""), Malformed, "has 0 bytes"),
        (v3("crypto_material", {}), Malformed, "an object, expected a string"),
        (v3("crypto_material", "AB=="), Malformed, "not in canonical base64"),
        (v3("crypto_material", "A" * 100_000), Malformed, "has 100000 characters"),
        (v3("device_evidence", "AA A"), Malformed, "not in base64"),
        (v3("device_evidence", "A" * 2_000_000), Malformed, "has 2000000 characters"),
        (v3("collateral", ...), Malformed, "collateral is missing"),
        (v3("collateral", {}), Malformed, "an object, expected an array"),
        (v3("collateral", [1]), Malformed, r"collateral\[0\] is a number"),
        (render_v3(V3)[:-1] + b',"collateral":[]}', Malformed, "stands twice"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", Malformed, "nested deeper|not strict JSON"),
        (b" " * (MAX_V3 + 1), Malformed, "expected at most"),
    ],
)
def test_no_document_of_v3(data: bytes, kind: type[TinbootError], told: str) -> None:
    with pytest.raises(kind, match=told):
        parse_v3(data)
    with pytest.raises(kind):
        parse(data)


# --- either ---


@settings(deadline=None)
@given(st.data(), st.sampled_from([render_v2(REPORT), render_v3(V3)]))
def test_mutations_are_refused_or_read_as_something_else(data: st.DataObject, good: bytes) -> None:
    at = data.draw(st.integers(0, len(good) - 1))
    mutant = good[:at] + data.draw(st.binary(max_size=2)) + good[at + 1 :]
    try:
        found = parse(mutant)
    except (Malformed, Refused):
        return
    if found in (V2, V3):
        assert json.loads(mutant) == json.loads(good)


@given(st.binary(max_size=80))
def test_noise_is_refused(noise: bytes) -> None:
    for read in (parse, parse_v2, parse_v3):
        with pytest.raises(Malformed):
            read(noise)
