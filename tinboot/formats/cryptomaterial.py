"""The keys that a v3 document endorses: TLS by its fingerprint, HPKE, and whatever else the guest attests.

    {"format":"https://tinfoil.sh/crypto-material/v1","items":[
      {"id":"tls","format":"https://tinfoil.sh/key/spki-fp-sha256/v1","data":"<64 hex>"},
      {"id":"hpke","format":"https://tinfoil.sh/key/x25519-hpke/v1","data":"<64 hex>"},
      {"id":"<name>","format":"https://tinfoil.sh/key/spki/v1","data":"<hex of DER>"}]}

REPORT_DATA binds these very bytes, so they are written once and kept.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object

FORMAT = "https://tinfoil.sh/crypto-material/v1"
SPKI_FINGERPRINT = "https://tinfoil.sh/key/spki-fp-sha256/v1"
X25519_HPKE = "https://tinfoil.sh/key/x25519-hpke/v1"
SPKI = "https://tinfoil.sh/key/spki/v1"

TLS, HPKE = "tls", "hpke"

MAX_SIZE = 64 << 10  # bytes
MAX_KEYS = 16  # beside the two
MAX_SPKI = 1024  # bytes: RSA of 4096 bits takes 550


class Key(NamedTuple):
    """One that the config asks to be attested. `spki`: DER of its SubjectPublicKeyInfo."""

    id: str
    spki: bytes


class CryptoMaterial(NamedTuple):
    """32 bytes each: `tls` the SHA-256 of the TLS key's SubjectPublicKeyInfo, `hpke` the raw X25519 key."""

    tls: bytes
    hpke: bytes
    keys: tuple[Key, ...] = ()


def render(material: CryptoMaterial) -> bytes:
    """Always the same bytes: one line, in order."""
    items = [(TLS, SPKI_FINGERPRINT, material.tls), (HPKE, X25519_HPKE, material.hpke)]
    items += [(key.id, SPKI, key.spki) for key in material.keys]
    listed = [{"id": name, "format": form, "data": data.hex()} for name, form, data in items]
    return json.dumps({"format": FORMAT, "items": listed}, separators=(",", ":")).encode()


def parse(data: bytes) -> CryptoMaterial:
    """Raises `Malformed` with the member's path: both keys are there, in any order, and no name is twice."""
    fields = parse_object("crypto_material", data, MAX_SIZE)
    fields.one_of("format", (FORMAT,))
    items = fields.records("items")
    fields.end()
    if len(items) > MAX_KEYS + 2:
        raise Malformed(f"crypto_material.items has {len(items)} items, expected at most {MAX_KEYS + 2}")
    known: dict[str, bytes] = {}
    for item in items:
        name = item.text("id", 64)
        if name in known:
            raise Malformed(f"crypto_material.items has {name!r} twice")
        known[name] = _key(item, name)
    missing = {TLS, HPKE} - set(known)
    if missing:
        raise Malformed(f"crypto_material.items has no {max(missing)!r}")
    tls, hpke = known.pop(TLS), known.pop(HPKE)
    return CryptoMaterial(tls, hpke, tuple(Key(*item) for item in known.items()))


def _key(item: Fields, name: str) -> bytes:
    expected = {TLS: SPKI_FINGERPRINT, HPKE: X25519_HPKE}.get(name, SPKI)
    item.one_of("format", (expected,))
    if expected is SPKI:
        digits = item.text("data", 2 * MAX_SPKI)
        if not re.fullmatch("([0-9a-f]{2})+", digits):
            raise Malformed(f"{item.where}.data is {digits[:40]!r}, expected lower-case hex digits")
    else:
        digits = item.hexadecimal("data", 64)
    item.end()
    return bytes.fromhex(digits)
