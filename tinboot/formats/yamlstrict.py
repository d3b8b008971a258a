"""A strict subset of YAML: bytes to a tree of scalars, sequences and mappings that know their lines.

One document of at most 1 MiB, without directives, tags, anchors, aliases, merge keys, duplicate keys
and keys that are not strings. Nothing is given a type here: the schema asks for one, and `reads_as`
tells what a plain scalar would be to other readers of YAML (1.1 or 1.2), so that no file means one
thing to tinboot and another to them.
"""

from __future__ import annotations

from typing import NamedTuple

from yaml.error import MarkedYAMLError
from yaml.events import (
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from tinboot.formats.halt import Refusal
from tinboot.formats.yamlevents import DEPTH, Events, decode, too_deep

#: Tinfoil's published schema has this bound too; keys count.
NODES = 16384
KEY_LENGTH = 128

_NULL = ("", "~", "null")
_BOOLEAN = ("y", "n", "yes", "no", "true", "false", "on", "off")
_INFINITE = (".inf", ".nan")
_DIGITS = {"0x": "0123456789abcdef", "0o": "01234567", "0b": "01"}


class Place(NamedTuple):
    """Where a node stands: its line (from 1), and its key or index in the node above (None: the root)."""

    line: int
    step: str | int
    above: Place | None

    def __str__(self) -> str:
        """Line and path as errors name them: `line 7, containers[0].image`."""
        steps: list[str] = []
        place: Place | None = self
        while place is not None and place.above is not None:
            steps.append(f"[{place.step}]" if isinstance(place.step, int) else f".{plain_ascii(place.step)}")
            place = place.above
        path = "".join(reversed(steps)).removeprefix(".")
        return f"line {self.line}, {path}" if path else f"line {self.line}"


class Scalar(NamedTuple):
    """`plain`: written without quotes and not as a block, which is where other readers guess a type."""

    place: Place
    text: str
    plain: bool


class Sequence(NamedTuple):
    """`- one` or `[one]`."""

    place: Place
    items: list[Node]


class Mapping(NamedTuple):
    """`key: value` or `{key: value}`; `keys` gives the place of each key of `entries`."""

    place: Place
    entries: dict[str, Node]
    keys: dict[str, Place]


Node = Scalar | Sequence | Mapping


def parse(data: bytes) -> Node:
    """The document's root node.

    Raises `Refusal` with config-too-large, config-not-utf8, config-malformed or config-too-complex,
    and the line of what it found. Work is linear in the length of `data`, and stops at the first fault.
    """
    events = Events(decode(data))
    try:
        return _document(events)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else events.line + 1
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise Refusal("config-malformed", f"line {line}: {plain_ascii(problem, 160)}") from error
    except (ValueError, OverflowError) as error:  # chr() of the number in an escape
        detail = f"line {events.line + 1}: an escape that names no Unicode character"
        raise Refusal("config-malformed", detail) from error


def reads_as(text: str) -> str:
    """What other readers of YAML 1.1 or 1.2 make of `text` as a plain scalar; "" if it is a string to all.

    Errs towards naming a type: quotes are always possible.
    """
    lower = text.lower()
    if lower in _NULL:
        return "nothing"
    if lower in _BOOLEAN:
        return "a boolean"
    if text in ("<<", "="):
        return "a YAML 1.1 operator"
    if _is_date(text):
        return "a date"
    body = lower[1:] if lower[0] in "+-" else lower
    return "a number" if body in _INFINITE or _is_number(body.replace("_", "")) else ""


def plain_ascii(text: str, most: int = 80) -> str:
    """At most `most` characters of `text`; escapes stand for what is not printable ASCII."""
    shown = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text[:most])
    return shown + ("..." if len(text) > most else "")


def _is_number(body: str) -> bool:
    """`body` in lower case, without sign and underscores."""
    if body[:2] in _DIGITS:
        return all(c in _DIGITS[body[:2]] for c in body[2:])
    first, *sixtieths = body.split(":")
    if sixtieths and first.isdecimal():
        sixtieths[-1] = sixtieths[-1].split(".")[0]
        return all(part.isdecimal() and len(part) <= 2 and int(part) < 60 for part in sixtieths)
    begins = body[1:2] if body[:1] == "." else body[:1]
    return begins.isdecimal() and body.count(".") < 2 and all(c in "0123456789.e+-" for c in body)


def _is_date(text: str) -> bool:
    year, _, rest = text.partition("-")
    month, _, day = rest.partition("-")
    return len(year) == 4 and year.isdecimal() and month.isdecimal() and day[:1].isdecimal()


def _document(events: Events) -> Node:
    """The root of the one document; a second one, or none, is refused."""
    events.take()  # the start of the stream
    if not events.check_event(DocumentStartEvent):
        raise Refusal("config-malformed", "line 1: the file holds no document")
    events.take()
    root = _tree(events)
    events.take()  # the end of the document
    after, line = events.take()
    if not isinstance(after, StreamEndEvent):
        raise Refusal("config-malformed", f"line {line}: a second document begins")
    return root


def _tree(events: Events) -> Node:
    """Iterative, so that depth is bounded by `DEPTH` alone and not by Python's stack."""
    unfinished: list[Sequence | Mapping] = []
    key: Place | None = None  # of the value that comes next, if that is in a mapping
    nodes = 0
    while True:
        event, line = events.take()
        if isinstance(event, (SequenceEndEvent, MappingEndEvent)):
            node: Node = unfinished.pop()
        else:
            nodes += 1
            if nodes > NODES:
                raise Refusal("config-too-complex", f"line {line}: more than {NODES} nodes")
            above = unfinished[-1] if unfinished else None
            if isinstance(above, Mapping) and key is None:
                key = _key(event, line, above)
                continue
            node = _node(event, _place(line, above, key))
            if isinstance(above, Sequence):
                above.items.append(node)
            elif above is not None and key is not None:
                above.entries[str(key.step)] = node
            key = None
            if not isinstance(node, Scalar):
                unfinished.append(node)
                if len(unfinished) > DEPTH:
                    raise too_deep(line)
                continue
        if not unfinished:
            return node


def _place(line: int, above: Sequence | Mapping | None, key: Place | None) -> Place:
    if above is None:
        return Place(line, "", None)
    step = len(above.items) if isinstance(above, Sequence) else key.step if key else ""
    return Place(line, step, above.place)


def _node(event: Event, place: Place) -> Node:
    if isinstance(event, ScalarEvent):
        return _scalar(event, place)
    if isinstance(event, SequenceStartEvent):
        return Sequence(place, [])
    return Mapping(place, {}, {})


def _scalar(event: ScalarEvent, place: Place) -> Scalar:
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in event.value):
        raise Refusal("config-malformed", f"{place}: an escape that gives NUL or half a surrogate pair")
    return Scalar(place, event.value, event.style is None)


def _key(event: Event, line: int, above: Mapping) -> Place:
    if not isinstance(event, ScalarEvent):
        raise Refusal("config-malformed", f"line {line}: a key that is itself a list or a mapping")
    scalar = _scalar(event, above.place._replace(line=line))
    if len(scalar.text) > KEY_LENGTH:
        raise Refusal("config-malformed", f"line {line}: a key of more than {KEY_LENGTH} characters")
    other = reads_as(scalar.text) if scalar.plain else ""
    if other:
        shown = plain_ascii(scalar.text)
        raise Refusal(
            "config-malformed", f"line {line}: the key '{shown}' reads as {other}; keys are strings"
        )
    place = Place(line, scalar.text, above.place)
    first = above.keys.get(scalar.text)
    if first is not None:
        raise Refusal("config-malformed", f"{place} stands twice, first on line {first.line}")
    above.keys[scalar.text] = place
    return place
