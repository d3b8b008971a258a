"""A RIM's bytes as a tree of elements, and nothing else that XML can be.

NVIDIA's RIMs are plain: ASCII, elements and attributes, white space between them. What XML offers beyond that
(declarations, document types and their entities, references, comments, CDATA, processing instructions) is
refused before a parser sees it, since each is a way to make two readers see two documents. What the tree may
hold is for who asks it, element by element: nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from lxml import etree

from tinboot.formats.errors import Malformed

MAX_SIZE = 256 << 10  # NVIDIA's have 18 to 22 KB

_FIRST = b"<SoftwareIdentity "
_UNPRINTABLE = re.compile(rb"[^\n\x20-\x7e]")
_BEYOND = re.compile(rb"<[!?]|&")


def parse(data: bytes) -> Node:
    """The document's one element. Raises `Malformed` with the line."""
    if len(data) > MAX_SIZE:
        raise Malformed(f"a RIM of {len(data)} bytes, expected at most {MAX_SIZE}")
    if not data.startswith(_FIRST):
        raise Malformed(f"line 1: begins with {data[:20]!r}, expected {_FIRST!r}", "is it a RIM, in XML?")
    if found := _UNPRINTABLE.search(data):
        raise Malformed(
            f"line {_line(data, found)}: a byte {found[0].hex()}, expected printable ASCII and newlines",
            "a RIM must be the bytes that NVIDIA published: fetch it again",
        )
    if found := _BEYOND.search(data):
        raise Malformed(f"line {_line(data, found)}: {found[0].decode()!r}, expected elements and text alone")
    try:
        return Node(etree.fromstring(data, parser()))
    except etree.XMLSyntaxError as error:
        raise Malformed(f"line {error.lineno}: {error.msg}") from None


def parser() -> etree.XMLParser:
    """One that fetches nothing, expands nothing, mends nothing and keeps libxml2's limits."""
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        collect_ids=False,
    )


def _line(data: bytes, found: re.Match[bytes]) -> int:
    return data.count(b"\n", 0, found.start()) + 1


class Node:
    """An element, of which every attribute, child and text is asked for. Names as {namespace}name."""

    __slots__ = ("_element",)

    def __init__(self, element: etree._Element) -> None:
        self._element = element

    @property
    def tag(self) -> str:
        return str(self._element.tag)

    @property
    def line(self) -> int:
        line = self._element.sourceline
        return line if isinstance(line, int) else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self._element.attrib)

    def attributes(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, str]:
        """All attributes. Raises `Malformed` unless they are all of `required`, some of `optional`."""
        found = {str(name): str(value) for name, value in self._element.attrib.items()}
        for name in required:
            if name not in found:
                raise self.malformed(f"no attribute {name}")
        for name in found:
            if name not in required and name not in optional:
                raise self.malformed(f"an unknown attribute {name[:200]}")
        return found

    def children(self) -> tuple[Node, ...]:
        """Raises `Malformed` where text stands beside them."""
        found = tuple(Node(child) for child in self._element)
        texts = [self._element.text, *(child.tail for child in self._element)]
        if any(text and not text.isspace() for text in texts):
            raise self.malformed("text where elements alone should be")
        return found

    def parts(self, *tags: str) -> tuple[Node, ...]:
        """The children, which are one of each of `tags`, in that order."""
        found = self.children()
        for index, tag in enumerate(tags):
            if index >= len(found):
                raise self.malformed(f"ends where {tag} should be")
            found[index].expect(tag)
        if len(found) > len(tags):
            raise found[len(tags)].malformed("an element too many")
        return found

    def expect(self, tag: str) -> None:
        """Raises `Malformed` unless it is a `tag`."""
        if self.tag != tag:
            raise Malformed(f"line {self.line}: {self.tag[:200]}, expected {tag}")

    def text(self) -> str:
        """All that an element holds that has neither attributes nor children."""
        self.attributes(())
        if len(self._element):
            raise self.malformed("elements where text alone should be")
        return self._element.text or ""

    def malformed(self, what: str) -> Malformed:
        return Malformed(f"line {self.line}: {etree.QName(self._element).localname[:60]}: {what}")
