"""Text in the two unit files that it goes through: Quadlet's, and the one that Quadlet writes for systemd.

Both readers split a line at blanks, take quotes away and resolve escapes; systemd also replaces `%`
specifiers and, on a command line, `$` variables (systemd.unit(5), systemd.syntax(7), systemd.service(5)
"Command lines"). So a word is quoted once for Quadlet, which quotes it again for systemd by itself, but
leaves `%` and `$` as they are: those are doubled here.

Quadlet is not to be trusted with two words (podman 5.4, pkg/systemd/parser/split.go): an empty one ends the
line, and `;` alone comes out without quotes, where it parts two commands. `word` refuses both.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinboot.formats.errors import Refused

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%", "$": "$$"}


def word(text: str) -> str:
    """One word of a key that Quadlet splits. Raises `Refused` where it would come out otherwise."""
    if text in ("", ";"):
        raise Refused(
            f"{text!r} cannot be an argument of its own here", "name the entrypoint too: both then go as JSON"
        )
    if any((c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" for c in text):
        raise Refused(f"{text!r} has control characters, expected none but line feed and tab")
    return '"' + "".join(_ESCAPES.get(c, c) for c in text) + '"'


def words(texts: Sequence[str]) -> str:
    """Several, with blanks between them."""
    return " ".join(word(text) for text in texts)
