"""Strict JSON objects: every member is asked for by name and type, and none may be left over.

Python's decoder keeps the last of two equal keys, reads `NaN`, and takes `true` for an integer;
none of this gets past here. Every error names the member by its path.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import TypeVar

from tinboot.formats.errors import Malformed

T = TypeVar("T")

#: Objects and arrays within each other; what any document here needs is below ten, a Sigstore bundle's too.
MAX_DEPTH = 32


class Fields:
    """The members of one object, taken out one by one; `end()` refuses what nobody asked for."""

    def __init__(self, where: str, members: object) -> None:
        if not isinstance(members, dict):
            raise Malformed(f"{where} is {_kind(members)}, expected an object")
        self.where = where
        self._members: dict[str, object] = dict(members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def end(self) -> None:
        if self._members:
            raise Malformed(f"{self.where} has the unknown member {min(self._members)!r}")

    def record(self, name: str) -> Fields:
        return Fields(f"{self.where}.{name}", self._take(name))

    def records(self, name: str) -> list[Fields]:
        return [Fields(f"{self.where}.{name}[{at}]", item) for at, item in enumerate(self._list(name))]

    def has(self, name: str) -> bool:
        """Whether the member is there; it is not taken."""
        return name in self._members

    def is_null(self, name: str) -> bool:
        """Takes the member if it is null."""
        if name in self._members and self._members[name] is None:
            del self._members[name]
            return True
        return False

    def opaque(self, name: str, limit: int) -> bytes:
        """An object that nobody looks into here, as JSON in one line; at most `limit` bytes of it."""
        value, where = self._take(name), f"{self.where}.{name}"
        if not isinstance(value, dict):
            raise Malformed(f"{where} is {_kind(value)}, expected an object")
        data = json.dumps(value, separators=(",", ":")).encode()
        if len(data) > limit:
            raise Malformed(f"{where} has {len(data)} bytes, expected at most {limit}")
        return data

    def is_record(self, name: str) -> bool:
        """Whether the member is there and an object; it is not taken."""
        return isinstance(self._members.get(name), dict)

    def text(self, name: str, limit: int = 256, least: int = 1) -> str:
        """One line of `least` to `limit` characters."""
        return _text(f"{self.where}.{name}", self._take(name), limit, least)

    def lines(self, name: str, limit: int) -> str:
        """Printable ASCII, with line feeds: 1 to `limit` characters."""
        value, where = self._take(name), f"{self.where}.{name}"
        if not isinstance(value, str):
            raise Malformed(f"{where} is {_kind(value)}, expected a string")
        if len(value) > limit or not re.fullmatch(r"[\n -~]+", value):
            raise Malformed(f"{where} is not text of 1 to {limit} characters of ASCII")
        return value

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in known:
            raise Malformed(f"{self.where}.{name} is {value!r}, expected {' or '.join(known)}")
        return value

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise Malformed(f"{self.where}.{name} is {_kind(value)}, expected true or false")
        return value

    def base64(self, name: str, limit: int, least: int = 1) -> bytes:
        """`least` to `limit` bytes in the one spelling of RFC 4648, section 4, that has no stray bit."""
        value, where = self._take(name), f"{self.where}.{name}"
        if not isinstance(value, str):
            raise Malformed(f"{where} is {_kind(value)}, expected a string")
        if len(value) > 4 * (limit // 3 + 1):
            raise Malformed(f"{where} has {len(value)} characters, expected base64 of at most {limit} bytes")
        try:
            data = base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error) as error:
            raise Malformed(f"{where} is not in base64: {error}") from error
        # as many characters as the bytes take: what stands before the last four has no bit to spare
        last = base64.b64encode(data[(len(data) - 1) // 3 * 3 :]).decode() if data else ""
        if len(value) != (len(data) + 2) // 3 * 4 or not value.endswith(last):
            raise Malformed(f"{where} is not in canonical base64")
        if not least <= len(data) <= limit:
            raise Malformed(f"{where} has {len(data)} bytes, expected {least} to {limit}")
        return data

    def texts(self, name: str, distinct: bool = True) -> tuple[str, ...]:
        """An array of such lines; `distinct`: no two alike."""
        return self._array(name, lambda where, item: _text(where, item, 256), distinct)

    def integer(self, name: str, least: int, most: int) -> int:
        return _integer(f"{self.where}.{name}", self._take(name), least, most)

    def integers(self, name: str, least: int, most: int) -> tuple[int, ...]:
        """An array of such numbers, no two alike."""
        return self._array(name, lambda where, item: _integer(where, item, least, most))

    def hexadecimal(self, name: str, digits: int) -> str:
        value = self.text(name)
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
            raise Malformed(f"{self.where}.{name} is {value!r}, expected {digits} lower-case hex digits")
        return value

    def file_name(self, name: str) -> str:
        """A base name: nothing that could lead out of the directory or be taken for an option."""
        value = self.text(name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", value):
            raise Malformed(f"{self.where}.{name} is {value!r}, expected a plain file name")
        return value

    def _array(self, name: str, read: Callable[[str, object], T], distinct: bool = True) -> tuple[T, ...]:
        where = f"{self.where}.{name}"
        found = tuple(read(f"{where}[{at}]", item) for at, item in enumerate(self._list(name)))
        if distinct and len(set(found)) != len(found):
            raise Malformed(f"{where} has an item twice")
        return found

    def _list(self, name: str) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list):
            raise Malformed(f"{self.where}.{name} is {_kind(value)}, expected an array")
        return value

    def _take(self, name: str) -> object:
        if name not in self._members:
            raise Malformed(f"{self.where}.{name} is missing")
        return self._members.pop(name)


def parse_object(where: str, data: bytes, limit: int) -> Fields:
    """The one object that `data` is, at most `limit` bytes of UTF-8; raises `Malformed` otherwise."""
    return Fields(where, _decode(where, data, limit))


def parse_array(where: str, data: bytes, limit: int) -> list[Fields]:
    """The objects of the one array that `data` is; as `parse_object`."""
    value = _decode(where, data, limit)
    if not isinstance(value, list):
        raise Malformed(f"{where} is {_kind(value)}, expected an array")
    return [Fields(f"{where}[{at}]", item) for at, item in enumerate(value)]


def _decode(where: str, data: bytes, limit: int) -> object:
    if len(data) > limit:
        raise Malformed(f"{where} has {len(data)} bytes, expected at most {limit}")
    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=_once, parse_float=_no_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{where} is not strict JSON: {error}") from error
    _shallow(where, value)
    return value


def _shallow(where: str, value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise Malformed(f"{where} is nested deeper than {MAX_DEPTH} objects and arrays")


def _text(where: str, value: object, limit: int, least: int = 1) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{where} is {_kind(value)}, expected a string")
    if not least <= len(value) <= limit or not value.isprintable():
        raise Malformed(f"{where} is not one line of {least} to {limit} printable characters")
    return value


def _integer(where: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"{where} is {_kind(value)}, expected a whole number")
    if not least <= value <= most:
        raise Malformed(f"{where} is {value}, expected {least} to {most}")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the member {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return members


def _no_number(text: str) -> object:
    raise ValueError(f"{text[:40]} is not a whole number")


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "an array", str: "a string", int: "a number"}
    return kinds[type(value)]
