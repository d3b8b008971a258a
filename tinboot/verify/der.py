"""Reads DER (ITU-T X.690), the subset that certificates, revocation lists and OCSP responses are written in.

Strict: one encoding for each value, every byte accounted for, else `Malformed` with the offset in the file.
Why not a library's reader: every VCEK has serial number 0, which the one at hand warns of and says that it
will refuse; and what is compared byte by byte later is then read in one place. Tests hold it to that library.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tinboot.formats.errors import Malformed

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID, ENUMERATED = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0A
UTF8, PRINTABLE, IA5, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

_LENGTHS = 3  # bytes of a length: elements up to 16 MiB


def context(number: int) -> int:
    """The tag of [number], constructed."""
    return 0xA0 | number


class Der:
    """Elements of `data` from `at` up to `end`, taken one after another."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def take(self, tag: int) -> Der:
        """The content of the next element, which is a `tag`."""
        start, end = self._next(tag)
        self.at = end
        return Der(self.data, start, end)

    def whole(self, tag: int) -> bytes:
        """The next element, which is a `tag`, with its header."""
        begin = self.at
        self.at = self._next(tag)[1]
        return self.data[begin : self.at]

    def content(self, tag: int) -> bytes:
        """The content of the next element, which is a `tag`."""
        start, self.at = self._next(tag)
        return self.data[start : self.at]

    def next_is(self, tag: int) -> bool:
        return self.at < self.end and self.data[self.at] == tag

    @property
    def more(self) -> bool:
        return self.at < self.end

    def done(self) -> None:
        """Raises `Malformed` if anything is left."""
        if self.at != self.end:
            raise Malformed(f"offset {self.at:#x}: {self.end - self.at} bytes too many")

    def integer(self, tag: int = INTEGER) -> int:
        """A non-negative INTEGER, or an ENUMERATED or an implicit `tag` of one, in its shortest form."""
        at = self.at
        content = self.content(tag)
        if not content or (len(content) > 1 and content[0] == 0 and content[1] < 0x80):
            raise Malformed(f"offset {at:#x}: an integer that is not in its shortest form")
        if content[0] & 0x80:
            raise Malformed(f"offset {at:#x}: a negative integer")
        return int.from_bytes(content, "big")

    def boolean(self) -> bool:
        at = self.at
        content = self.content(BOOLEAN)
        if content not in {b"\x00", b"\xff"}:
            raise Malformed(f"offset {at:#x}: a boolean of {content[:8].hex()}")
        return content == b"\xff"

    def bits(self) -> bytes:
        """A BIT STRING of whole bytes."""
        at = self.at
        content = self.content(BIT_STRING)
        if not content or content[0]:
            raise Malformed(f"offset {at:#x}: a bit string that is not of whole bytes")
        return content[1:]

    def time(self) -> datetime:
        """UTCTime up to 2049, GeneralizedTime from then on, to the second (RFC 5280, 4.1.2.5)."""
        at = self.at
        short = self.next_is(UTC_TIME)
        moment = self._moment(short)
        if not short and moment.year < 2050:
            raise Malformed(f"offset {at:#x}: a time before 2050 that is not in its shortest form")
        return moment

    def generalized_time(self) -> datetime:
        """GeneralizedTime whatever the year, to the second: what OCSP has throughout (RFC 6960, 4.2.1)."""
        return self._moment(short=False)

    def _moment(self, short: bool) -> datetime:
        at = self.at
        content = self.content(UTC_TIME if short else GENERALIZED_TIME)
        digits = content[:-1]
        if content[-1:] != b"Z" or not digits.isdigit() or len(digits) != (12 if short else 14):
            raise Malformed(f"offset {at:#x}: a time that is not to the second, in UTC")
        if short:  # 50 to 99 are of the 20th century
            digits = (b"19" if digits >= b"50" else b"20") + digits
        fields = [int(digits[:4]), *(int(digits[i : i + 2]) for i in range(4, 14, 2))]
        try:
            return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type,misc]  # six ints
        except ValueError:
            raise Malformed(f"offset {at:#x}: there is no time {digits.decode()}") from None

    def _next(self, tag: int) -> tuple[int, int]:
        """Where the content of the next element begins and ends."""
        data, at = self.data, self.at
        start = at + 2
        if start > self.end:
            raise Malformed(f"offset {at:#x}: ends where an element {tag:#04x} should be")
        if data[at] != tag:
            raise Malformed(f"offset {at:#x}: an element {data[at]:#04x}, expected {tag:#04x}")
        length = data[at + 1]
        if length >= 0x80:
            digits = length & 0x7F
            start += digits
            if not 0 < digits <= _LENGTHS or start > self.end:
                raise Malformed(f"offset {at + 1:#x}: a length in {digits} bytes")
            length = int.from_bytes(data[at + 2 : start], "big")
            if length < 0x80 or length >> 8 * (digits - 1) == 0:
                raise Malformed(f"offset {at + 1:#x}: a length that is not in its shortest form")
        end = start + length
        if end > self.end:
            raise Malformed(f"offset {at:#x}: {length} bytes, of which {self.end - start} are there")
        return start, end


def dotted(oid: bytes) -> str:
    """The text of an object identifier's content; its hex digits where it is none."""
    if not oid or oid[-1] >= 0x80 or len(oid) > 64:
        return oid[:64].hex()
    numbers: list[int] = []
    number = 0
    for byte in oid:
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
