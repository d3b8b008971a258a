"""A mkosi that does what a test tells it: a program as real as the real one to whoever starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from tinboot.builder.mkosi import Mkosi

_HEAD = """#!{python}
import json, os, sys, time
from pathlib import Path
option = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
def say(text):
    print(text, flush=True)
"""


def fake(program: Path, body: str) -> Mkosi:
    """`body`: Python that finds mkosi's options in `option` and prints with `say`."""
    program.write_text(_HEAD.format(python=sys.executable) + body)
    program.chmod(0o755)
    return Mkosi((str(program),), {}, "27.1", str(program))
