"""What the config's schema is written in: readers, each from a YAML node to one checked value.

A reader takes a node and gives a value or raises `Refusal` with config-invalid (a section also with
config-unknown-key), naming line and path, what was found, what is expected and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from tinboot.formats.halt import Refusal
from tinboot.formats.yamlstrict import Mapping, Node, Place, Scalar, Sequence, plain_ascii, reads_as

T = TypeVar("T")
Shape = TypeVar("Shape", bound=NamedTuple)
Reader = Callable[[Node], T]

LOWER, UPPER, DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
WORD = LOWER + UPPER + DIGITS


def invalid(place: Place, message: str) -> Refusal:
    return Refusal("config-invalid", f"{place}: {message}")


class Section(Generic[Shape]):
    """A mapping with a closed set of keys, read into the named tuple `shape`.

    `keys` gives each key's reader; its field has the key's name with `_` for `-`, or the one that
    `fields` gives. A field without a default is required. `refused` are keys that Tinfoil's schema or
    container engines know and tinboot does not take, with the reason.
    """

    def __init__(
        self,
        shape: type[Shape],
        keys: dict[str, Reader[object]],
        fields: dict[str, str] | None = None,
        refused: dict[str, str] | None = None,
    ) -> None:
        self.shape = shape
        self.keys = keys
        self.refused = refused or {}
        self.fields = {key: (fields or {}).get(key, key.replace("-", "_")) for key in keys}

    def __call__(self, node: Node) -> Shape:
        if not isinstance(node, Mapping):
            raise invalid(node.place, f"{_shown(node)}, expected a mapping with {', '.join(self.keys)}")
        for key, place in node.keys.items():
            if key in self.refused:
                raise invalid(place, self.refused[key])
            if key not in self.keys:
                detail = f"{place} is not a key of the schema; here it has {', '.join(self.keys)}"
                raise Refusal("config-unknown-key", detail)
        values: dict[str, object] = {}
        for key, value in node.entries.items():
            field = self.fields[key]
            if field in values:
                raise invalid(node.keys[key], "another key says the same: give one of them")
            values[field] = self.keys[key](value)
        defaults = self.shape._field_defaults
        for key, field in self.fields.items():
            if field not in values and field not in defaults:
                raise invalid(node.place, f"the key {key} is missing")
        return self.shape._make({**defaults, **values}[field] for field in self.shape._fields)


def listed(reader: Reader[T], most: int, distinct: bool = False) -> Reader[tuple[T, ...]]:
    """A list of at most `most`; `distinct`: no two of its values are equal."""

    def read(node: Node) -> tuple[T, ...]:
        if not isinstance(node, Sequence):
            raise invalid(node.place, f"{_shown(node)}, expected a list")
        if len(node.items) > most:
            raise invalid(node.place, f"{len(node.items)} entries, expected at most {most}")
        values: list[T] = []
        for item in node.items:
            value = reader(item)
            if distinct and value in values:
                raise invalid(item.place, f"stands twice, first at [{values.index(value)}]")
            values.append(value)
        return tuple(values)

    return read


def keyed(key: Callable[[str], str], reader: Reader[T], most: int) -> Reader[tuple[tuple[str, T], ...]]:
    """A mapping whose keys the file chooses; `key` raises ValueError for one that is not allowed."""

    def read(node: Node) -> tuple[tuple[str, T], ...]:
        if not isinstance(node, Mapping):
            raise invalid(node.place, f"{_shown(node)}, expected a mapping")
        if len(node.entries) > most:
            raise invalid(node.place, f"{len(node.entries)} entries, expected at most {most}")
        for name, place in node.keys.items():
            _checked(key, name, place)
        return tuple((name, reader(value)) for name, value in node.entries.items())

    return read


def text_of(check: Callable[[str], T]) -> Reader[T]:
    """A string that `check` accepts; its ValueError says what was expected."""

    def read(node: Node) -> T:
        return _checked(check, _text(node), node.place)

    return read


def line(most: int) -> Reader[str]:
    """1 to `most` characters without control characters."""

    def check(text: str) -> str:
        if not 0 < len(text) <= most or any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
            raise ValueError(f"one line of 1 to {most} characters")
        return text

    return text_of(check)


def block(most: int) -> Reader[str]:
    """0 to `most` characters; of control characters only line feeds and tabs."""

    def check(text: str) -> str:
        if len(text) > most or any((c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" for c in text):
            raise ValueError(f"at most {most} characters, no control characters but line feed and tab")
        return text

    return text_of(check)


def spelled(what: str, first: str, rest: str, most: int) -> Callable[[str], str]:
    """A check: 1 to `most` characters, the first from `first` and the others from `rest`."""

    def check(text: str) -> str:
        if not 0 < len(text) <= most or text[0] not in first or any(c not in rest for c in text):
            raise ValueError(what)
        return text

    return check


def one_of(*words: str) -> Reader[str]:
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return text_of(check)


def whole(least: int, most: int) -> Reader[int]:
    """Plain decimal digits without sign or leading zero."""

    def read(node: Node) -> int:
        digits = _plain(node, f"a whole number from {least} to {most}")
        if not is_count(digits) or not least <= int(digits) <= most:
            raise invalid(node.place, f"{_shown(node)}, expected a whole number from {least} to {most}")
        return int(digits)

    return read


def thousandths(most: int) -> Reader[int]:
    """A decimal number with at most three places, above 0 and up to `most`, in thousandths."""

    def read(node: Node) -> int:
        expected = f"a decimal number up to {most} with at most three places"
        before, point, after = _plain(node, expected).partition(".")
        if not is_count(before) or (point and not 0 < len(after) <= 3) or any(c not in DIGITS for c in after):
            raise invalid(node.place, f"{_shown(node)}, expected {expected}")
        value = int(before) * 1000 + int(after.ljust(3, "0"))
        if not 0 < value <= most * 1000:
            raise invalid(node.place, f"{_shown(node)}, expected {expected}")
        return value

    return read


def flag(node: Node) -> bool:
    """Plain `true` or `false`, and none of YAML 1.1's other words."""
    text = _plain(node, "true or false")
    if text not in ("true", "false"):
        raise invalid(node.place, f"{_shown(node)}, expected true or false")
    return text == "true"


def is_count(digits: str) -> bool:
    """Decimal, without sign or leading zero, and short enough to convert."""
    return 0 < len(digits) <= 18 and all(c in DIGITS for c in digits) and (digits[0] != "0" or digits == "0")


def is_nothing(node: Node) -> bool:
    """`key:` with no value, `~` or `null`."""
    return isinstance(node, Scalar) and node.plain and reads_as(node.text) == "nothing"


def _checked(check: Callable[[str], T], text: str, place: Place) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise invalid(place, f"'{plain_ascii(text)}', expected {error}") from error


def _text(node: Node) -> str:
    if not isinstance(node, Scalar):
        raise invalid(node.place, f"{_shown(node)}, expected a string")
    if node.plain and is_nothing(node):
        raise invalid(node.place, "no value, expected a string; leave the key out, or write ''")
    other = reads_as(node.text) if node.plain else ""
    if other:
        shown = plain_ascii(node.text)
        raise invalid(node.place, f"{shown} reads as {other}, expected a string; quote it: '{shown}'")
    return node.text


def _plain(node: Node, expected: str) -> str:
    if not isinstance(node, Scalar) or is_nothing(node):
        raise invalid(node.place, f"{_shown(node)}, expected {expected}")
    if not node.plain:
        raise invalid(node.place, f"the string {_shown(node)}, expected {expected}; remove the quotes")
    return node.text


def _shown(node: Node) -> str:
    if isinstance(node, Scalar):
        return "no value" if is_nothing(node) else f"'{plain_ascii(node.text)}'"
    return "a list" if isinstance(node, Sequence) else "a mapping"
