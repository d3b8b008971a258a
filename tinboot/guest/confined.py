"""A question to a program that is not trusted: it may compute for a while and say one thing, no more.

confine.py takes from it what it does not need; this side bounds how long it runs and how much it says.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tinboot.formats.errors import Unavailable
from tinboot.guest import confine

CONFINE = Path(__file__).with_name("confine.py")

ANSWER_LIMIT = 256 << 10  # bytes on descriptor 3; a verdict has 6 KiB
CHATTER_LIMIT = 1 << 20  # bytes on standard output and error; the package says 8 KiB

#: Seconds. Natively 0.2, and 0.6 from a cold disk; ten to twenty times that where all is emulated.
DEADLINE = 30.0

#: -I: nothing of the environment or the current folder; -S: no packages but those that are named.
FLAGS = ("-I", "-S", "-B", "-W", "ignore")


def ask(python: str, program: Sequence[str], question: bytes, seconds: float = DEADLINE) -> bytes:
    """What the Python program says on descriptor 3 when it is given `question` on standard input.

    `program`: its absolute path and its arguments; user nobody must be able to read it. Raises `Unavailable`
    unless it ends by itself, with exit code 0, before the deadline and within the limits above.
    """
    given = os.memfd_create("question", os.MFD_CLOEXEC)
    answer, its_answer = os.pipe()
    chatter, its_chatter = os.pipe()
    try:
        with os.fdopen(given, "w+b") as file:
            file.write(question)
            file.flush()
            file.seek(0)
            started = _start(python, program, file.fileno(), its_answer, its_chatter)
        os.close(its_answer)
        os.close(its_chatter)
        its_answer = its_chatter = -1
        try:
            said, heard = _listen(answer, chatter, time.monotonic() + seconds, seconds)
            status = started.wait(1.0)  # both pipes are closed: it has ended, or is about to
        except subprocess.TimeoutExpired:
            raise Unavailable("the verifier's process closed its output and did not end") from None
        finally:
            _end(started)
    finally:
        for file_descriptor in (answer, chatter, its_answer, its_chatter):
            if file_descriptor >= 0:
                os.close(file_descriptor)
    if status != 0:
        raise Unavailable(f"the verifier's process ended with {status}: {_last(heard)}")
    return said


def _start(
    python: str, program: Sequence[str], given: int, answer: int, chatter: int
) -> subprocess.Popen[bytes]:
    command = [python, *FLAGS, str(CONFINE), str(answer), python, *FLAGS, *program]
    try:
        return subprocess.Popen(
            command,
            stdin=given,
            stdout=chatter,
            stderr=chatter,
            pass_fds=(answer,),
            start_new_session=True,
            cwd="/",
            env={"HOME": confine.HOME, "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        )
    except OSError as error:
        raise Unavailable(f"cannot start {python}: {error.strerror}") from error


def _end(started: subprocess.Popen[bytes]) -> None:
    """With all that it started, of which nothing is left when this returns."""
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(2.0)
    with contextlib.suppress(ProcessLookupError):  # whatever did not hear that
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def _listen(answer: int, chatter: int, deadline: float, seconds: float) -> tuple[bytes, bytes]:
    """All that is said, until both pipes are closed."""
    heard = {answer: b"", chatter: b""}
    limits = {answer: ANSWER_LIMIT, chatter: CHATTER_LIMIT}
    poll = select.poll()
    for pipe in heard:
        poll.register(pipe, select.POLLIN)
    left = set(heard)
    while left:
        wait = deadline - time.monotonic()
        if wait <= 0:
            raise Unavailable(f"the verifier's process did not end within {seconds:g} s")
        for pipe, _ in poll.poll(wait * 1000):
            part = os.read(pipe, 1 << 16)
            heard[pipe] += part
            if not part:
                poll.unregister(pipe)
                left.remove(pipe)
            elif len(heard[pipe]) > limits[pipe]:
                raise Unavailable(f"the verifier's process said more than {limits[pipe]} bytes")
    return heard[answer], heard[chatter]


def _last(heard: bytes) -> str:
    lines = heard.decode("utf-8", "replace").strip().splitlines()
    return ascii(lines[-1].strip()[:300]) if lines else "without a word"
