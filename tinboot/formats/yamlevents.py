"""The lexical half of the strict YAML: bytes to text, and text to PyYAML's parsing events.

PyYAML's scanner and parser do the syntax, in Python, and nothing else of it is imported: a folder with
only its error, tokens, events, scanner and parser modules (no `__init__`) is enough, and that is what
the initrd may hold. Its reader, constructor and resolver are not used.
"""

from __future__ import annotations

from yaml.error import Mark
from yaml.events import Event
from yaml.parser import Parser
from yaml.scanner import Scanner

from tinboot.formats import configdisk
from tinboot.formats.halt import Refusal

BYTES = configdisk.LIMIT

#: Tinfoil's published schema has this bound too; the document's root has depth 1.
DEPTH = 64

#: What may not stand in the file: control characters but line feed and tab (a carriage return only
#: before a line feed); the line breaks of YAML 1.1 that YAML 1.2 and editors do not break at; marks
#: that reorder text on the reviewer's screen (Unicode TR 36, 2.10); the byte-order mark; non-characters.
_FORBIDDEN = frozenset(
    chr(code)
    for first, last in (
        *((0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F), (0x061C, 0x061C), (0x200E, 0x200F), (0x2028, 0x202E)),
        *((0x2066, 0x2069), (0xFEFF, 0xFEFF), (0xFFFE, 0xFFFF)),
    )
    for code in range(first, last + 1)
)


class Events(Scanner, Parser):
    """PyYAML's event parser over a string instead of its stream reader.

    What is not allowed is refused in the scanner, before anything is made of it. `index`, `line` and
    `column` (from 0), `encoding`, `peek`, `prefix`, `forward` and `get_mark` are what the scanner expects
    of a reader.
    """

    def __init__(self, text: str) -> None:
        self._text = text + "\0" * 8  # the scanner looks at most 4 characters beyond the end
        self.index = self.line = self.column = 0
        self.encoding = None
        Scanner.__init__(self)
        Parser.__init__(self)

    def peek(self, index: int = 0) -> str:
        return self._text[self.index + index]

    def prefix(self, length: int = 1) -> str:
        return self._text[self.index : self.index + length]

    def forward(self, length: int = 1) -> None:
        lines = self._text.count("\n", self.index, self.index + length)
        self.index += length
        self.column += length
        if lines:
            self.line += lines
            self.column = self.index - self._text.rindex("\n", 0, self.index) - 1

    def get_mark(self) -> Mark:
        return Mark("config", self.index, self.line, self.column, None, 0)

    def take(self) -> tuple[Event, int]:
        """The next event and the line it starts on, from 1."""
        event: Event = self.get_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves it open
        return event, (event.start_mark.line if event.start_mark else self.line) + 1

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        # up to here the scanner reads ahead of the events, 1024 characters for a possible key
        if self.flow_level >= DEPTH:
            raise too_deep(self.line + 1)
        super().fetch_flow_collection_start(TokenClass)

    def fetch_directive(self) -> None:
        raise self._refusal("a directive (%)")

    def fetch_tag(self) -> None:
        raise self._refusal("a tag (!): the schema gives the types")

    def fetch_anchor(self) -> None:
        raise self._refusal("an anchor (&)")

    def fetch_alias(self) -> None:
        raise self._refusal("an alias (*); quote the value if it begins with an asterisk")

    def _refusal(self, what: str) -> Refusal:
        return Refusal("config-malformed", f"line {self.line + 1}: {what}")


def decode(data: bytes) -> str:
    """UTF-8 with line feeds only; raises `Refusal` with config-too-large or config-not-utf8."""
    if len(data) > BYTES:
        raise Refusal("config-too-large", f"the config has {len(data)} bytes, {BYTES} are allowed")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        detail = f"line {line}: byte {error.start} of the file is not UTF-8: {error.reason}"
        raise Refusal("config-not-utf8", detail) from error
    found = _FORBIDDEN.intersection(text)
    if found:
        at = min(text.index(character) for character in found)
        detail = f"line {text.count(chr(10), 0, at) + 1}: the character U+{ord(text[at]):04X} is not allowed"
        raise Refusal("config-not-utf8", detail)
    return text


def too_deep(line: int) -> Refusal:
    return Refusal("config-too-complex", f"line {line}: nested deeper than {DEPTH}")
