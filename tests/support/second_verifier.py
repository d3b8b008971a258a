"""NVIDIA's verifier as the image has it, for the tests' own Python, in a place that user nobody may read."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tinboot.builder import nv_verifier
from tinboot.formats.errors import Unavailable
from tinboot.guest import confined
from tinboot.guest.nv_verifier import Place

#: As it was before any test put another in its place: what is asked here is kept for all of them.
_ASK = confined.ask

_TELL = "import os, sys\nos.write(3, b'%d.%d' % sys.version_info[:2])\n"


def folder() -> Path:
    """A new one that everybody may look into, removed at the end of the tests."""
    made = Path(tempfile.mkdtemp(prefix="tinboot-confined-", dir="/tmp"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    made.chmod(0o755)
    return made


@cache
def interpreter() -> tuple[str, str]:
    """A Python that user nobody may start, this one if he may, and its version.

    Skips where namespaces cannot be had: to an unprivileged user some distributions give none.
    """
    tell = folder() / "tell.py"
    tell.write_text(_TELL)
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        try:
            return candidate, _ASK(candidate, [str(tell)], b"").decode()
        except Unavailable as error:
            said = error.message
    if os.geteuid() != 0:
        pytest.skip(f"no confined process here: {said}")
    raise AssertionError(said)


@cache
def place() -> Place:
    """Compiled, as the image's is: half of the time of a process otherwise goes into that."""
    python, version = interpreter()
    made = nv_verifier.make(version, lambda _: None, lambda *_: None) / "nv-verifier"
    copy = folder() / "nv-verifier"
    shutil.copytree(made, copy)
    compiling = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(copy)]
    subprocess.run(compiling, check=True)
    # a machine that is busy with other tests is slow
    return Place(copy, python, 60.0)
