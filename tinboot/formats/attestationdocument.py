"""Attestation documents, as a guest serves them under /.well-known/tinfoil-attestation; JSON, strict.

    v2   {"format":F,"body":base64(gzip(report))}, without a nonce: whoever has it can show it again
    v3   with `?nonce=`: the report, what it binds, and collateral; only `challenge.nonce` is the caller's

Names and layout are Tinfoil's, whose clients read them. Reading says what stands where and refuses what
cannot stand there; whether a report binds what is around it is asked by verify/document.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import NamedTuple

from tinboot.formats import attestationcollateral, cryptomaterial, deviceevidence, reportdata, snpreport
from tinboot.formats.attestationcollateral import Collateral
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.jsonfields import Fields, parse_object

SEV_SNP_V2 = "https://tinfoil.sh/predicate/sev-snp-guest/v2"
V3 = "https://tinfoil.sh/predicate/attestation/v3"
SEV_SNP_REPORT = "https://tinfoil.sh/format/sev-snp-report/v1"

#: What is well-formed and no evidence of SEV-SNP.
_OTHERS = {
    "https://tinfoil.sh/predicate/tdx-guest/v2": "of TDX, which is not appraised here",
    "https://tinfoil.sh/predicate/dummy/v2": "a dummy, which is evidence of nothing",
    "https://tinfoil.sh/format/tdx-quote/v1": "of TDX, which is not appraised here",
}

MAX_V2 = 8 << 10  # bytes of JSON
MAX_V3 = 4 << 20  # of eight GPUs 250,000, and collateral
_MAX_GZIP = 4 << 10  # bytes; gzip makes a report that it cannot shrink 23 bytes longer
_GZIP = 16 + zlib.MAX_WBITS  # zlib.h, inflateInit2: a gzip header is expected


class DocumentV2(NamedTuple):
    """`body`: base64 of gzip of the report."""

    format: str
    body: str

    @property
    def report(self) -> bytes:
        """1184 bytes; raises `Malformed`. Nothing is decompressed beyond them."""
        fields = Fields("attestation document", {"body": self.body})
        return _gunzip(fields.base64("body", _MAX_GZIP))


class DocumentV3(NamedTuple):
    """Both sections are the bytes that REPORT_DATA binds; the hashes are those that the document states."""

    nonce: bytes
    report_data: bytes
    report: bytes
    crypto_material: bytes
    device_evidence: bytes
    collateral: tuple[Collateral, ...]
    crypto_material_hash: bytes
    device_evidence_hash: bytes


def parse(data: bytes) -> DocumentV2 | DocumentV3:
    """Either; raises `Malformed`, or `Refused` for a document of something else than SEV-SNP."""
    fields = parse_object("attestation document", data, MAX_V3)
    return read_v2(fields) if fields.has("body") else read_v3(fields)


def parse_v2(data: bytes) -> DocumentV2:
    """As `parse`."""
    return read_v2(parse_object("attestation document", data, MAX_V2))


def parse_v3(data: bytes) -> DocumentV3:
    """As `parse`."""
    return read_v3(parse_object("attestation document", data, MAX_V3))


def compose_v2(report: bytes) -> DocumentV2:
    """Always the same for one report: gzip without a time or a name."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return DocumentV2(SEV_SNP_V2, base64.b64encode(packer.compress(report) + packer.flush()).decode())


def render_v2(report: bytes) -> bytes:
    return _line(members_v2(compose_v2(report)))


def document_hash(document: DocumentV2) -> str:
    """64 hex digits: what a certificate's names state of the document."""
    return hashlib.sha256((document.format + document.body).encode()).hexdigest()


def compose_v3(
    nonce: bytes,
    report: bytes,
    crypto_material: bytes,
    device_evidence: bytes,
    collateral: tuple[Collateral, ...] = (),
) -> DocumentV3:
    """Around a report that was asked for with `reportdata.v3` of the same."""
    return DocumentV3(
        nonce,
        reportdata.v3(nonce, crypto_material, device_evidence),
        report,
        crypto_material,
        device_evidence,
        collateral,
        hashlib.sha256(crypto_material).digest(),
        hashlib.sha256(device_evidence).digest(),
    )


def render_v3(document: DocumentV3) -> bytes:
    """One line, members in order."""
    return _line(members_v3(document))


def members_v2(document: DocumentV2) -> dict[str, object]:
    return document._asdict()


def members_v3(document: DocumentV3) -> dict[str, object]:
    return {
        "format": V3,
        "challenge": {
            "nonce": document.nonce.hex(),
            "report_data": document.report_data.hex(),
            "report_data_algorithm": reportdata.ALGORITHM,
        },
        "cpu_evidence": {
            "format": SEV_SNP_REPORT,
            "report_base64": base64.b64encode(document.report).decode(),
            "endorsed": {
                "crypto_material_hash": document.crypto_material_hash.hex(),
                "device_evidence_hash": document.device_evidence_hash.hex(),
            },
        },
        "crypto_material": base64.b64encode(document.crypto_material).decode(),
        "device_evidence": base64.b64encode(document.device_evidence).decode(),
        "collateral": [attestationcollateral.members(entry) for entry in document.collateral],
    }


def read_v2(fields: Fields) -> DocumentV2:
    """As `parse`, of a document that is part of another."""
    document = DocumentV2(_format(fields, SEV_SNP_V2), fields.text("body", 2 * _MAX_GZIP))
    fields.end()
    _ = document.report  # read now, so that what is handed on can be read
    return document


def read_v3(fields: Fields) -> DocumentV3:
    """As `parse`, of a document that is part of another."""
    _format(fields, V3)
    challenge, evidence = fields.record("challenge"), fields.record("cpu_evidence")
    challenge.one_of("report_data_algorithm", (reportdata.ALGORITHM,))
    _format(evidence, SEV_SNP_REPORT)
    endorsed = evidence.record("endorsed")
    document = DocumentV3(
        _digits(challenge, "nonce", reportdata.NONCE),
        _digits(challenge, "report_data", reportdata.SIZE),
        evidence.base64("report_base64", snpreport.SIZE, snpreport.SIZE),
        fields.base64("crypto_material", cryptomaterial.MAX_SIZE),
        fields.base64("device_evidence", deviceevidence.MAX_SIZE),
        attestationcollateral.read(fields.records("collateral")),
        _digits(endorsed, "crypto_material_hash", 32),
        _digits(endorsed, "device_evidence_hash", 32),
    )
    for part in (endorsed, evidence, challenge, fields):
        part.end()
    return document


def _format(fields: Fields, expected: str) -> str:
    found = fields.text("format")
    if found in _OTHERS:
        raise Refused(f"{fields.where} is {_OTHERS[found]}: {found}, expected {expected}")
    if found != expected:
        raise Malformed(f"{fields.where}.format is {found!r}, expected {expected!r}")
    return found


def _digits(fields: Fields, name: str, size: int) -> bytes:
    return bytes.fromhex(fields.hexadecimal(name, 2 * size))


def _gunzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        report = unpacker.decompress(data, snpreport.SIZE + 1)
    except zlib.error as error:
        raise Malformed(f"the body of the attestation document is not gzip: {error}") from error
    if len(report) > snpreport.SIZE:
        raise Malformed(f"the body unpacks to more than the {snpreport.SIZE} bytes of a report")
    if len(report) < snpreport.SIZE or not unpacker.eof or unpacker.unused_data:
        raise Malformed(
            f"the body unpacks to {len(report)} bytes, expected {snpreport.SIZE} and nothing behind them"
        )
    return report


def _line(members: dict[str, object]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()
