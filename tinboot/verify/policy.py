"""Policies: what a relying party demands of a report. Complete: a field that is missing is an error.

JSON, strict. Every field stands in every policy; one that nobody wants to look at says so and why, as
`{"unchecked": "the reason"}`, and the reason is in the result. `baseline` and `strict` ship as data; the
reference values in them are left open on purpose and are given by whoever appraises (`pinned`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple, TypeVar

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.jsonfields import Fields, parse_object
from tinboot.formats.snpreport import VERSIONS, FirmwareVersion
from tinboot.formats.snptcb import LINES
from tinboot.verify.checks import Unchecked

SCHEMA = 1
LIMIT = 256 << 10  # bytes; a thousand measurements take 100 kB

PROFILES = ("baseline", "strict")

Rule = Literal["allow", "require", "refuse"]
RULES: tuple[Rule, ...] = ("allow", "require", "refuse")

#: Name -> bit. AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 9, "Guest Policy".
POLICY_BITS = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl": 21,
    "aes_256_xts": 22,
    "rapl_disabled": 23,
    "ciphertext_hiding": 24,
    "page_swap_disabled": 25,
}

#: Name -> bit. 56860 1.58, table 24, PLATFORM_INFO. Bit 6 is set in genuine reports of Turin, undocumented.
PLATFORM_BITS = {
    "smt": 0,
    "tsme": 1,
    "ecc": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding": 4,
    "alias_check": 5,
    "tio": 7,
}

T = TypeVar("T")


class Distrust(NamedTuple):
    """What is refused whatever else holds: product lines, chips (CHIP_ID), providers (CSP_ID)."""

    products: tuple[str, ...]
    chips: tuple[bytes, ...]
    providers: tuple[str, ...]


class Policy(NamedTuple):
    """`date`: of the day it was written. Tuples are allow-lists; versions and SVNs are minima."""

    name: str
    date: str
    versions: tuple[int, ...] | Unchecked
    products: tuple[str, ...] | Unchecked
    signing_keys: tuple[str, ...] | Unchecked
    revocation: Literal["require"] | Unchecked
    abi: tuple[int, int] | Unchecked
    guest_policy: dict[str, Rule]
    platform_info: dict[str, Rule]
    floors: str | Unchecked
    unknown_microcode: Rule
    launch_floors: str | Unchecked
    provisional_firmware: Rule
    firmware: dict[str, FirmwareVersion] | Unchecked
    guest_svn: int | Unchecked
    family_id: tuple[bytes, ...] | Unchecked
    image_id: tuple[bytes, ...] | Unchecked
    vmpl: tuple[int, ...] | Unchecked
    report_data: tuple[bytes, ...] | Unchecked
    measurement: tuple[bytes, ...] | Unchecked
    host_data: tuple[bytes, ...] | Unchecked
    id_key_digest: tuple[bytes, ...] | Unchecked
    author_key_digest: tuple[bytes, ...] | Unchecked
    report_id: tuple[bytes, ...] | Unchecked
    report_id_ma: tuple[bytes, ...] | Unchecked
    launch_mitigations: int | Unchecked
    current_mitigations: int | Unchecked
    distrust: Distrust
    #: What was changed after reading, for the result to say.
    changed: tuple[str, ...] = ()

    def pinned(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes | None = None,
        host_data: bytes | None = None,
    ) -> Policy:
        """The same with these values, and no others, allowed; raises `Refused` for one that it refuses."""
        given = {"measurement": measurement, "report_data": report_data, "host_data": host_data}
        changes = {name: (value,) for name, value in given.items() if value is not None}
        for name, (value,) in changes.items():
            allowed: tuple[bytes, ...] | Unchecked = getattr(self, name)
            if not isinstance(allowed, Unchecked) and value not in allowed:
                raise Refused(f"the policy {self.name!r} does not allow the {name} {value.hex()[:32]}…")
        notes = (*self.changed, *(f"{name} is pinned" for name in changes))
        return self._replace(**changes, changed=notes)  # type: ignore[arg-type]  # all three are of one type

    def measuring(self, *digests: bytes) -> Policy:
        """The same with these launch digests, and no others, allowed; as `pinned`, of several."""
        each = [self.pinned(measurement=digest) for digest in digests]
        return each[0]._replace(measurement=tuple(dict.fromkeys(digests)))

    def allowing(self, *products: str) -> Policy:
        """The same with these product lines allowed, too."""
        if isinstance(self.products, Unchecked):
            return self
        added = tuple(product for product in products if product not in self.products)
        notes = (*self.changed, *(f"{product} is allowed" for product in added))
        return self._replace(products=(*self.products, *added), changed=notes)


def text(profile: str) -> bytes:
    """The file of a shipped policy: something to start one's own from."""
    return resources.files("tinboot.verify.data").joinpath(f"{profile}.json").read_bytes()


@cache
def shipped(profile: str) -> Policy:
    """One of `PROFILES`."""
    return load(f"policy {profile}", text(profile))


def load(where: str, data: bytes) -> Policy:
    """Raises `Malformed` with the member's path."""
    fields = parse_object(where, data, LIMIT)
    fields.integer("schema", SCHEMA, SCHEMA)
    policy = Policy(
        name=fields.text("name"),
        date=_date(fields),
        versions=_or_unchecked(fields, "versions", _versions),
        products=_or_unchecked(fields, "products", lambda f, n: _words(f, n, _PRODUCTS)),
        signing_keys=_or_unchecked(fields, "signing_keys", lambda f, n: _words(f, n, ("VCEK", "VLEK"))),
        revocation=_or_unchecked(fields, "revocation", _required),
        abi=_or_unchecked(fields, "abi", _abi),
        guest_policy=_rules(fields.record("guest_policy"), POLICY_BITS),
        platform_info=_rules(fields.record("platform_info"), PLATFORM_BITS),
        floors=_or_unchecked(fields, "floors", lambda f, n: _word(f, n, PROFILES)),
        unknown_microcode=_rule(fields, "unknown_microcode", ("allow", "refuse")),
        launch_floors=_or_unchecked(fields, "launch_floors", lambda f, n: _word(f, n, PROFILES)),
        provisional_firmware=_rule(fields, "provisional_firmware", ("allow", "refuse")),
        firmware=_or_unchecked(fields, "firmware", _firmware),
        guest_svn=_or_unchecked(fields, "guest_svn", lambda f, n: f.integer(n, 0, (1 << 32) - 1)),
        family_id=_or_unchecked(fields, "family_id", lambda f, n: _digests(f, n, 16)),
        image_id=_or_unchecked(fields, "image_id", lambda f, n: _digests(f, n, 16)),
        vmpl=_or_unchecked(fields, "vmpl", lambda f, n: f.integers(n, 0, 3)),
        report_data=_or_unchecked(fields, "report_data", lambda f, n: _digests(f, n, 64)),
        measurement=_or_unchecked(fields, "measurement", lambda f, n: _digests(f, n, 48)),
        host_data=_or_unchecked(fields, "host_data", lambda f, n: _digests(f, n, 32)),
        id_key_digest=_or_unchecked(fields, "id_key_digest", lambda f, n: _digests(f, n, 48)),
        author_key_digest=_or_unchecked(fields, "author_key_digest", lambda f, n: _digests(f, n, 48)),
        report_id=_or_unchecked(fields, "report_id", lambda f, n: _digests(f, n, 32)),
        report_id_ma=_or_unchecked(fields, "report_id_ma", lambda f, n: _digests(f, n, 32)),
        launch_mitigations=_or_unchecked(fields, "launch_mitigations", _mask),
        current_mitigations=_or_unchecked(fields, "current_mitigations", _mask),
        distrust=_distrust(fields.record("distrust")),
    )
    fields.end()
    return policy


def _or_unchecked(fields: Fields, name: str, read: Callable[[Fields, str], T]) -> T | Unchecked:
    """What `read` makes of the member, or the reason why nobody wants to look at it."""
    if not fields.is_record(name):
        return read(fields, name)
    record = fields.record(name)
    reason = record.text("unchecked", 500)
    record.end()
    return Unchecked(reason)


_PRODUCTS = tuple(line.name for line in LINES)


def _date(fields: Fields) -> str:
    found = fields.text("date")
    if not re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]", found):
        raise Malformed(f"{fields.where}.date is {found!r}, expected a day like 2026-11-25")
    return found


def _versions(fields: Fields, name: str) -> tuple[int, ...]:
    found = fields.integers(name, min(VERSIONS), max(VERSIONS))
    if unknown := set(found) - set(VERSIONS):
        raise Malformed(f"{fields.where}.{name} has {min(unknown)}, expected some of {VERSIONS}")
    return found


def _words(fields: Fields, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    found = fields.texts(name)
    if unknown := set(found) - set(known):
        raise Malformed(f"{fields.where}.{name} has {min(unknown)!r}, expected some of {', '.join(known)}")
    return found


def _word(fields: Fields, name: str, known: tuple[str, ...]) -> str:
    found = fields.text(name)
    if found not in known:
        raise Malformed(f"{fields.where}.{name} is {found!r}, expected one of {', '.join(known)}")
    return found


def _required(fields: Fields, name: str) -> Literal["require"]:
    _word(fields, name, ("require",))
    return "require"


def _rule(fields: Fields, name: str, known: tuple[Rule, ...] = RULES) -> Rule:
    found = _word(fields, name, known)
    return next(rule for rule in RULES if rule == found)


def _rules(fields: Fields, bits: dict[str, int]) -> dict[str, Rule]:
    rules = {name: _rule(fields, name) for name in bits}
    fields.end()
    return rules


def _abi(fields: Fields, name: str) -> tuple[int, int]:
    found = fields.text(name)
    match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", found)
    if match is None:
        raise Malformed(f"{fields.where}.{name} is {found!r}, expected a version like 1.51")
    return int(match[1]), int(match[2])


def _firmware(fields: Fields, name: str) -> dict[str, FirmwareVersion]:
    """An array of product and version, one of each product."""
    found: dict[str, FirmwareVersion] = {}
    for record in fields.records(name):
        product, version = _word(record, "product", _PRODUCTS), record.text("version")
        record.end()
        match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})", version)
        if match is None or product in found:
            raise Malformed(f"{record.where}: {product} {version!r}, expected each once, as 1.55.22")
        found[product] = FirmwareVersion(*map(int, match.groups()))
    return found


def _digests(fields: Fields, name: str, size: int) -> tuple[bytes, ...]:
    found = fields.texts(name)
    for item in found:
        if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", item):
            raise Malformed(f"{fields.where}.{name} has {item[:40]!r}, expected {2 * size} hex digits")
    return tuple(map(bytes.fromhex, found))


def _mask(fields: Fields, name: str) -> int:
    return fields.integer(name, 0, (1 << 64) - 1)


def _distrust(fields: Fields) -> Distrust:
    distrust = Distrust(_words(fields, "products", _PRODUCTS), _chips(fields), fields.texts("providers"))
    fields.end()
    return distrust


def _chips(fields: Fields) -> tuple[bytes, ...]:
    """CHIP_ID of 64 bytes, of Turin 8; compared without the zeros behind it."""
    found = fields.texts("chips")
    for item in found:
        if not re.fullmatch("[0-9a-f]{16}|[0-9a-f]{128}", item):
            raise Malformed(f"{fields.where}.chips has {item[:40]!r}, expected 16 or 128 hex digits")
    return tuple(bytes.fromhex(item).rstrip(b"\0") for item in found)
