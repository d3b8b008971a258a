"""What a v3 document brings along for its verifier: endorsements and reference values, bound by nothing.

    {"id":"cpu-endorsement","role":"endorsement","format":"https://tinfoil.sh/collateral/amd-vcek/v1",
     "subjects":["cpu"],"data":{"vcek_der_base64":"<base64>","cert_chain_pem":"<PEM>"}}

It is a hint: what is in it counts where a signature of a pinned root covers it. An entry of another format is
kept as it is and not looked into.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object

AMD_VCEK = "https://tinfoil.sh/collateral/amd-vcek/v1"
AMD_CRL = "https://tinfoil.sh/collateral/amd-crl/v1"

ENDORSEMENT, REFERENCE_VALUES = "endorsement", "reference-values"
CPU = "cpu"  # what the report's own entries are about

MAX_COUNT = 32  # entries
MAX_DATA = 512 << 10  # bytes of one entry's data: a Sigstore bundle has 10,000, a CRL fewer
_MAX_CERTIFICATE = 8 << 10
_MAX_CHAIN = 32 << 10
_MAX_CRL = 256 << 10


class Collateral(NamedTuple):
    """`data`: an object's JSON, in one line. `subjects`: ids; empty where the entry is about none."""

    id: str
    role: str
    format: str
    subjects: tuple[str, ...]
    data: bytes


class Vcek(NamedTuple):
    """`vcek`: DER. `chain`: PEM, the intermediate first."""

    vcek: bytes
    chain: str


def of_vcek(vcek: Vcek) -> Collateral:
    """An entry for the CPU's report; a VLEK goes under the same names."""
    data = {"vcek_der_base64": base64.b64encode(vcek.vcek).decode(), "cert_chain_pem": vcek.chain}
    return Collateral("cpu-endorsement", ENDORSEMENT, AMD_VCEK, (CPU,), _line(data))


def of_crl(crl: bytes) -> Collateral:
    """`crl`: DER."""
    data = {"crl_der_base64": base64.b64encode(crl).decode()}
    return Collateral("cpu-crl", ENDORSEMENT, AMD_CRL, (CPU,), _line(data))


def vcek(entry: Collateral) -> Vcek:
    """What an entry of `AMD_VCEK` holds. Raises `Malformed`."""
    fields = parse_object(f"collateral {entry.id}", entry.data, MAX_DATA)
    found = Vcek(
        fields.base64("vcek_der_base64", _MAX_CERTIFICATE), fields.lines("cert_chain_pem", _MAX_CHAIN)
    )
    fields.end()
    return found


def crl(entry: Collateral) -> bytes:
    """What an entry of `AMD_CRL` holds: DER. Raises `Malformed`."""
    fields = parse_object(f"collateral {entry.id}", entry.data, MAX_DATA)
    found = fields.base64("crl_der_base64", _MAX_CRL)
    fields.end()
    return found


def members(entry: Collateral) -> dict[str, object]:
    """The entry as the document has it."""
    found: dict[str, object] = {"id": entry.id, "role": entry.role, "format": entry.format}
    if entry.subjects:
        found["subjects"] = list(entry.subjects)
    return found | {"data": json.loads(entry.data)}


def read(entries: list[Fields]) -> tuple[Collateral, ...]:
    """The inverse, for all of a document's entries. Raises `Malformed` with the member's path."""
    if len(entries) > MAX_COUNT:
        raise Malformed(f"{len(entries)} entries of collateral, expected at most {MAX_COUNT}")
    found: dict[str, Collateral] = {}
    for entry in entries:
        one = Collateral(
            entry.text("id", 64),
            entry.one_of("role", (ENDORSEMENT, REFERENCE_VALUES)),
            entry.text("format"),
            entry.texts("subjects") if entry.has("subjects") else (),
            entry.opaque("data", MAX_DATA),
        )
        entry.end()
        if found.setdefault(one.id, one) is not one:
            raise Malformed(f"collateral has {one.id!r} twice")
    return tuple(found.values())


def _line(data: dict[str, str]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
