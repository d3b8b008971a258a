"""How systemd reads a command line of a unit file, written down again from its manual pages, and strictly.

systemd.syntax(7) "Quoting", systemd.service(5) "Command lines", systemd.unit(5) "Specifiers". What the manual
leaves open, or what would be replaced by something of the machine, is an error here.
"""

from __future__ import annotations

_ESCAPES = dict(zip("abfnrtv\\\"'s", "\a\b\f\n\r\t\v\\\"' ", strict=True))
_BLANKS = " \t\n\r"


def command(line: str) -> list[str]:
    """The words of `ExecStart=` behind the equals sign. Raises ValueError."""
    found = []
    at = 0
    while at < len(line):
        if line[at] in _BLANKS:
            at += 1
            continue
        raw, at = _raw(line, at)
        if raw == ";":
            raise ValueError("a second command begins")
        found.append(_plain(_unquoted(raw)))
    return found


def _raw(line: str, at: int) -> tuple[str, int]:
    """One word as it is written, and where it ends."""
    begin, quote = at, ""
    while at < len(line) and (quote or line[at] not in _BLANKS):
        if line[at] == "\\":
            at += 1
        elif quote:
            quote = "" if line[at] == quote else quote
        elif line[at] in "\"'":
            quote = line[at]
        at += 1
    if quote or at > len(line):
        raise ValueError(f"a quote or an escape is open: {line[begin:]!r}")
    return line[begin:at], at


def _unquoted(raw: str) -> str:
    made, quote, at = "", "", 0
    while at < len(raw):
        c = raw[at]
        if c == "\\":
            made += _ESCAPES[raw[at + 1]]
            at += 2
            continue
        if c in "\"'" and quote in ("", c):
            quote = "" if quote else c
        else:
            made += c
        at += 1
    return made


def _plain(word: str) -> str:
    """`%%` and `$$` are themselves; a specifier or a variable is what nobody here asks for."""
    for mark in "%$":
        if mark in word.replace(mark * 2, ""):
            raise ValueError(f"{word!r} has a {mark} that stands for something")
        word = word.replace(mark * 2, mark)
    return word
