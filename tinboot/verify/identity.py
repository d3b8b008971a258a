"""What AMD writes into a VCEK or VLEK beside the key: product, TCB, and which chip or provider it is for.

AMD VCEK Certificate and KDS Interface Specification (57230) 1.00, chapter 3, table 8 (X.509 extensions);
Turin's from certificates: structure version 1, FMC at .9, no .3.4.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.snptcb import TURIN, Line, Tcb
from tinboot.verify.certificate import Certificate
from tinboot.verify.der import IA5, OCTET_STRING, Der, dotted
from tinboot.verify.usage import BASIC_CONSTRAINTS, KEY_USAGE

_ARC = bytes.fromhex("2b060104019c7801")  # 1.3.6.1.4.1.3704.1

_STRUCT_VERSION, _PRODUCT, _HWID, _CSP_ID = (_ARC + bytes((n,)) for n in (1, 2, 4, 5))
_BL, _TEE, _SNP, _UCODE, _FMC = (_ARC + bytes((3, n)) for n in (1, 2, 3, 8, 9))
_RESERVED = tuple(_ARC + bytes((3, n)) for n in (4, 5, 6, 7))

#: RFC 5280's, which may stand there as long as nothing depends on them; no certificate of AMD's has them.
_HARMLESS = frozenset(bytes.fromhex(x) for x in ("551d0e", "551d23", "551d1f"))  # key ids, CRL's address

_CHECKED = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})  # elsewhere, in usage.py

_PRODUCT_NAME = re.compile(r"(Milan|Genoa|Turin)(-[A-Z][0-9])?")


class Identity(NamedTuple):
    """`product`: the line's name. `hwid`: 64 or 8 bytes, of a chip; `csp_id`: of a cloud service provider."""

    product: str
    tcb: Tcb
    hwid: bytes | None
    csp_id: str | None


def read_identity(vek: Certificate, line: Line) -> Identity:
    """Raises `Malformed` for an extension that is unknown, missing, or not encoded as AMD's are."""
    turin = line is TURIN
    values = {extension.oid: extension.value for extension in vek.extensions}
    for extension in vek.extensions:
        known = extension.oid in _HARMLESS and not extension.critical
        if not known and not extension.oid.startswith(_ARC) and extension.oid not in _CHECKED:
            raise Malformed(
                f"the certificate has the extension {dotted(extension.oid)}, which AMD's have not"
            )
    version = _integer(values, _STRUCT_VERSION)
    if version != int(turin):
        raise Malformed(f"version {version} of the extensions, expected {int(turin)} of {line.name}")
    for oid in _RESERVED:
        if not (turin and oid == _RESERVED[0] and oid not in values) and _integer(values, oid):
            raise Malformed(f"the certificate's extension {dotted(oid)} is reserved and is not zero")
    product = _text(values, _PRODUCT)
    if product is None or not (match := _PRODUCT_NAME.fullmatch(product)):
        raise Malformed(f"the certificate's product is {(product or '')[:40]!r}, expected as 'Milan-B0'")
    tcb = Tcb(
        _integer(values, _BL),
        _integer(values, _TEE),
        _integer(values, _SNP),
        _integer(values, _UCODE),
        _integer(values, _FMC) if turin else None,
    )
    identity = Identity(match[1], tcb, _hwid(values, line), _text(values, _CSP_ID))
    left = [oid for oid in values if oid.startswith(_ARC)]
    if left:
        raise Malformed(f"the certificate has the extension {dotted(left[0])}, which {line.name} has not")
    return identity


def _integer(values: dict[bytes, bytes], oid: bytes) -> int:
    """Takes a number of one byte out of `values`."""
    value = values.pop(oid, None)
    if value is None:
        raise Malformed(f"the certificate lacks the extension {dotted(oid)}")
    try:
        reader = Der(value)
        number = reader.integer()
        reader.done()
    except Malformed as error:
        raise Malformed(f"the certificate's extension {dotted(oid)}: {error.message}") from None
    if number > 0xFF:
        raise Malformed(f"the certificate's extension {dotted(oid)} is {number}, expected at most 255")
    return number


def _text(values: dict[bytes, bytes], oid: bytes) -> str | None:
    value = values.pop(oid, None)
    if value is None:
        return None
    try:
        reader = Der(value)
        content = reader.content(IA5)
        reader.done()
    except Malformed as error:
        raise Malformed(f"the certificate's extension {dotted(oid)}: {error.message}") from None
    text = content.decode("ascii", "backslashreplace")
    if not 0 < len(text) <= 256 or not content.isascii() or not text.isprintable():
        raise Malformed(
            f"the certificate's extension {dotted(oid)} is {text[:80]!r}, expected a line of text"
        )
    return text


def _hwid(values: dict[bytes, bytes], line: Line) -> bytes | None:
    """AMD's hold the bytes as they are; an OCTET STRING around them is what the specification says."""
    value = values.pop(_HWID, None)
    if value is None or len(value) == line.hwid:
        return value
    if len(value) == line.hwid + 2 and value[:2] == bytes((OCTET_STRING, line.hwid)):
        return value[2:]
    raise Malformed(
        f"the certificate's hardware id has {len(value)} bytes, expected {line.hwid} of {line.name}"
    )
