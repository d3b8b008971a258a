"""Reads and verifies a RIM: what NVIDIA says the measurements of one driver or one VBIOS are.

A SWID tag (ISO/IEC 19770-2:2015) with the attributes of TCG's RIM information model:

    SoftwareIdentity    Entity  Meta (product, version, maker)  Payload (64 x Resource)  Signature

What is not of this shape is `Malformed`, with the line; what does not hold is `Mismatch`; what is genuine and
of no use here is `Refused`. The values come from the bytes that were signed, not from those around them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, final

from tinboot.builder import rim_chain, rim_document, rim_signature
from tinboot.builder.rim_chain import Signer
from tinboot.builder.rim_document import Node
from tinboot.formats import gpureport
from tinboot.formats.errors import Mismatch, Refused
from tinboot.formats.gpureference import MAX_ALTERNATIVES, Kind

_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_TCG = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_SHA384 = "{http://www.w3.org/2001/04/xmlenc#sha384}"
#: Values that are compared as numbers: NVIDIA, Opaque Data RIM Attributes, whose address the name is.
_NUMERIC = "{https://docs.nvidia.com/attestation/specs/latest/opaque-data.html}"

_NVIDIA = "5703"  # IANA private enterprise number
_ROOT = {
    "corpus": "false",
    "patch": "false",
    "supplemental": "false",
}
_META = {
    "edition": "GPU",
    "PayloadType": "direct",
    f"{_TCG}BindingSpec": "RIMIM",
    f"{_TCG}PlatformManufacturerId": _NVIDIA,
    f"{_TCG}FirmwareManufacturerId": _NVIDIA,
}
#: There in every RIM, and of no consequence.
_META_TEXTS = (
    "revision",
    f"{_TCG}BindingSpecVersion",
    f"{_TCG}PlatformManufacturerStr",
    f"{_TCG}PlatformModel",
    f"{_TCG}FirmwareManufacturer",
)
#: In none yet; the schemas allow them, and they change nothing of what a RIM says.
_META_OPTIONAL = (
    *("description", "generator", "productFamily", "summary"),
    *(f"{_TCG}{name}" for name in ("PlatformVersion", "FirmwareModel", "FirmwareVersion")),
)
_RESOURCE = ("type", "index", "active", "alternatives", "name", "size")

_PRODUCT = re.compile("GH100|GB[0-9]{3}")
_DRIVER = re.compile(r"[0-9]{3,4}(?:\.[0-9]{1,3}){1,3}")
_VBIOS = re.compile(r"[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2}){4}")
_NUMBER = re.compile("0|[1-9][0-9]?")
_DIGEST = re.compile("[0-9a-f]{96}")

#: Indexes that every RIM of Hopper has had active, so that one that says nothing is no reference; of
#: Blackwell those that its VBIOSs share with Hopper's, and as many as any driver's has.
_LEAST: dict[Kind, frozenset[int]] = {
    "driver": frozenset({7, *range(21, 41)}),
    "vbios": frozenset({*range(7), *range(8, 13)}),
}


class Content(NamedTuple):
    """`measurements`: of each active index, the digests that it may have, lower-case hex."""

    product: str
    kind: Kind
    version: str
    measurements: dict[int, tuple[str, ...]]


_SEAL = object()


@final
class VerifiedRim:
    """A RIM that NVIDIA signed, and what it says; `data`: its bytes as they came. `verify` makes one."""

    __slots__ = ("content", "data", "signer")

    content: Content
    signer: Signer
    data: bytes

    def __init__(self, seal: object, content: Content, signer: Signer, data: bytes) -> None:
        if seal is not _SEAL:
            raise TypeError("a verified RIM is made by verifying one")
        object.__setattr__(self, "content", content)
        object.__setattr__(self, "signer", signer)
        object.__setattr__(self, "data", data)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a verified RIM cannot be set")

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()


def verify(data: bytes, at: datetime, trusted: Collection[str] = (rim_chain.NVIDIA,)) -> VerifiedRim:
    """`trusted`: fingerprints of the roots; `at`: when every certificate must be valid."""
    root = rim_document.parse(data)
    content, signature = _read(root)
    if signature is None:
        raise root.malformed("there is no signature")
    signer = rim_chain.verify(rim_signature.read(signature), at, trusted)
    signed, beside = _read(rim_signature.verify(data, signer.certificate, at))
    if beside is not None or signed != content:
        raise Mismatch("what was signed is not what the RIM says")
    _enough(signed)
    return VerifiedRim(_SEAL, signed, signer, data)


def _read(root: Node) -> tuple[Content, Node | None]:
    """What it says, and its signature, where there is one."""
    root.expect(f"{_SWID}SoftwareIdentity")
    attributes = root.attributes({*_ROOT, "name", "tagId", "version", "tagVersion"})
    _equal(root, attributes, _ROOT)
    tags = [f"{_SWID}{name}" for name in ("Entity", "Meta", "Payload")]
    children = root.children()
    is_signed = len(children) > len(tags)
    entity, meta, payload, *signature = root.parts(*tags, *[rim_signature.SIGNATURE] * is_signed)

    entity.attributes({"name", "role"})
    entity.parts()

    found = meta.attributes({*_META, *_META_TEXTS, "colloquialVersion", "product"}, _META_OPTIONAL)
    meta.parts()
    _equal(meta, found, _META)
    product = found["product"]
    if not _PRODUCT.fullmatch(product):
        raise Refused(f"line {meta.line}: a RIM of {product[:60]!r}, expected GH100 or GB and three digits")
    if attributes["name"] != product or found[f"{_TCG}PlatformModel"] != product:
        raise meta.malformed(f"of the product {product}, beside another name of it")
    kind, version = _version(meta, found["colloquialVersion"])
    content = Content(product, kind, version, _payload(payload))
    return content, signature[0] if signature else None


def _version(meta: Node, text: str) -> tuple[Kind, str]:
    """A driver's is of decimal numbers, a VBIOS's five bytes in hex."""
    if _VBIOS.fullmatch(text):
        return "vbios", text.upper()
    if _DRIVER.fullmatch(text):
        return "driver", text
    raise meta.malformed(f"the version {text[:60]!r}, expected one as 550.90.07 or as 96.00.9F.00.01")


def _payload(payload: Node) -> dict[int, tuple[str, ...]]:
    payload.attributes(())
    resources = payload.children()
    seen: dict[int, int] = {}
    found: dict[int, tuple[str, ...]] = {}
    for resource in resources:
        resource.expect(f"{_SWID}Resource")
        if any(name.startswith(_NUMERIC) for name in resource.names):
            raise Refused(
                f"line {resource.line}: a value that is to be compared as a number, which tinboot cannot do",
                "pin a driver whose RIM has digests alone",
            )
        index, digests = _resource(resource)
        if index in seen:
            raise resource.malformed(f"the index {index} for the second time, after line {seen[index]}")
        seen[index] = resource.line
        if digests:
            found[index] = digests
    if missing := set(range(gpureport.BLOCKS)) - set(seen):
        raise payload.malformed(f"no measurement {min(missing)}; expected 0 to {gpureport.BLOCKS - 1}")
    return found


def _resource(resource: Node) -> tuple[int, tuple[str, ...]]:
    """Its index, and its digests where it is active."""
    resource.parts()
    hashes = [name for name in resource.names if name.startswith(_SHA384)]
    attributes = resource.attributes({*_RESOURCE, *hashes})
    _equal(resource, attributes, {"type": "Measurement", "size": str(gpureport.DIGEST)})
    index = _number(resource, attributes, "index", gpureport.BLOCKS - 1)
    count = _number(resource, attributes, "alternatives", MAX_ALTERNATIVES)
    if attributes["active"] not in {"True", "False"}:
        raise resource.malformed(f"active is {attributes['active'][:60]!r}, expected True or False")
    expected = [f"{_SHA384}Hash{number}" for number in range(count)]
    if set(hashes) != set(expected) or not count:
        raise resource.malformed(f"{count} alternatives, and {len(hashes)} digests that are not just those")
    digests = tuple(attributes[name] for name in expected)
    for digest in digests:
        if not _DIGEST.fullmatch(digest):
            raise resource.malformed(f"the digest {digest[:100]!r}, expected 96 lower-case hex digits")
    if len(set(digests)) != len(digests):
        raise resource.malformed("two equal alternatives")
    return index, digests if attributes["active"] == "True" else ()


def _number(node: Node, attributes: dict[str, str], name: str, most: int) -> int:
    text = attributes[name]
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise node.malformed(f"{name} is {text[:60]!r}, expected 0 to {most}")
    return int(text)


def _equal(node: Node, attributes: dict[str, str], expected: dict[str, str]) -> None:
    for name, value in expected.items():
        if attributes[name] != value:
            raise node.malformed(f"{name} is {attributes[name][:60]!r}, expected {value!r}")


def _enough(content: Content) -> None:
    """Refuses a genuine RIM that leaves out what others of its kind measure."""
    active, least = set(content.measurements), _LEAST[content.kind]
    if content.product != "GH100" and content.kind == "driver":
        if len(active) < len(least):
            raise Refused(f"{len(active)} measurements of a driver, expected {len(least)} or more")
    elif missing := least - active:
        listed = ", ".join(str(index) for index in sorted(missing))
        raise Refused(
            f"the RIM says nothing of the measurements {listed}, which every {content.kind}'s does",
            "a GPU must not be accepted by what is left out",
        )
