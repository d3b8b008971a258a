"""Programs with a deadline: what they say, and what becomes of those that do not end."""

from __future__ import annotations

import pytest

from tinboot.guest import podman


def test_output_of_one_that_succeeds() -> None:
    assert podman.run(["/bin/echo", "a"], 30) == podman.Done(0, "a\n")


def test_the_last_words_of_one_that_fails() -> None:
    done = podman.run(["/bin/sh", "-c", "echo out; echo bad >&2; exit 3"], 30)
    assert done == podman.Done(3, "bad")
    long = podman.run(["/bin/sh", "-c", "yes x | head -c 100000 >&2; exit 1"], 30)
    assert len(long.output) == 4096


def test_one_that_does_not_end() -> None:
    assert podman.run(["/bin/sleep", "60"], 0.1).status == podman.TIMED_OUT


def test_one_that_is_not_there() -> None:
    assert podman.run(["/nowhere/program"], 1).status == 127


def test_knows_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "evil")
    names = {line.partition("=")[0] for line in podman.run(["/usr/bin/env"], 30).output.splitlines()}
    assert names == set(podman.ENVIRONMENT)


def test_expect_raises_with_the_words() -> None:
    with pytest.raises(RuntimeError, match="sh -c ended with 4: no"):
        podman.expect(["/bin/sh", "-c", "echo no >&2; exit 4"], 30)


@pytest.mark.parametrize(("status", "there"), [(0, True), (1, False), (125, True), (podman.TIMED_OUT, True)])
def test_an_image_is_missing_only_where_podman_says_so(
    monkeypatch: pytest.MonkeyPatch, status: int, there: bool
) -> None:
    monkeypatch.setattr(podman, "run", lambda *_: podman.Done(status, ""))
    assert podman.image_is_there("a") is there
