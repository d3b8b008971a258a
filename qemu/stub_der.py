"""Writes DER (ITU-T X.690), so that a stub certificate can hold what no library would write.

AMD's VCEKs have serial number 0, which libraries refuse to make, and the verifier's tests need certificates
that are wrong in one place alone. Each function returns a whole element: tag, length, content.
"""

from __future__ import annotations

from datetime import UTC, datetime

INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x02, 0x03, 0x04, 0x05, 0x06
UTF8, PRINTABLE, IA5, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + content


def sequence(*parts: bytes) -> bytes:
    return element(SEQUENCE, b"".join(parts))


def context(number: int, *parts: bytes) -> bytes:
    """[number] EXPLICIT, constructed."""
    return element(0xA0 | number, b"".join(parts))


def integer(value: int) -> bytes:
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(content: bytes) -> bytes:
    return element(OCTET_STRING, content)


def bits(content: bytes, unused: int = 0) -> bytes:
    return element(BIT_STRING, bytes((unused,)) + content)


def true() -> bytes:
    return b"\x01\x01\xff"


def null() -> bytes:
    return element(NULL, b"")


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    content = bytearray((first * 40 + second,))
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | number & 0x7F)
        content += bytes(reversed(digits))
    return element(OID, bytes(content))


def time(moment: datetime) -> bytes:
    """To the second, in the form that RFC 5280 4.1.2.5 demands of the year."""
    moment = moment.astimezone(UTC)
    if moment.year < 2050:
        return element(UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return element(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())
