"""Two builds, the same bytes: run for real once; and that the conditions were what they are said to be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_reference import write

from tinboot.builder import mkosi, places, prepare, rebuild, recipe
from tinboot.formats.errors import Unavailable

NAMES = ["path", "umask", "locale", "time zone", "host name", "user", "CPUs", "leftovers", "time"]


@pytest.mark.build
@pytest.mark.skipif(os.geteuid() != 0, reason="a rebuild changes host name and user, which takes root")
def test_two_builds_are_the_same(tmp_path: Path) -> None:
    """With reference values, whose lines of the inventory no other test builds."""
    words = ["rebuild", "--gpu-reference-values", str(write(tmp_path / "pinned"))]
    done = subprocess.run(
        [sys.executable, "-c", "from tinboot.cli.main import main; main()", *words],
        cwd=places.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *conditions, end = done.stdout.splitlines()
    assert end == "two builds, the same bytes"
    table, hashes = conditions[: len(NAMES)], conditions[len(NAMES) :]
    assert [line[:10].strip() for line in table] == NAMES
    seen = {line[:10].strip(): re.split(r" {2,}", line[11:]) for line in table}
    alike = {"CPUs"} if len(os.sched_getaffinity(0)) == 1 else set()
    if not rebuild._users_may_build():  # in a container, or a chroot
        alike.add("user")
    assert {name for name, (one, other) in seen.items() if one == other} <= alike, table
    assert [line.split()[1] for line in hashes] == [
        "image.json",
        "initrd",
        "initrd.cdx.json",
        "kernel",
        "kernel.cdx.json",
        "kernel.config",
        "root",
        "root.cdx.json",
    ]


def test_every_condition_differs() -> None:
    one, other = rebuild.PLAIN, rebuild.OTHER
    assert [name for name in one.__slots__ if getattr(one, name) == getattr(other, name)] == []


def test_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="takes root") as refused:
        next(twice())
    assert refused.value.hint == "sudo tinboot rebuild"


def twice(report: mkosi.Report = lambda _: None) -> Iterator[rebuild.Built]:
    chain = prepare.Toolchain(mkosi.Mkosi(("false",), {}, "27.1", ""), *[Path("/usr")] * 3)
    return rebuild.twice(recipe.this_checkout("debian", "release"), chain, report)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_a_build_that_fails_is_said_and_cleaned_up() -> None:
    with pytest.raises(Unavailable, match=r"the build in .* failed:") as failed:
        next(twice())
    (scratch,) = set(re.findall(r"/var/tmp/tinboot-rebuild-\w+", failed.value.message))
    assert not Path(scratch).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_where_users_may_not_both_are_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used: list[rebuild.Conditions] = []

    def build(*arguments: object) -> rebuild.Built:
        conditions = arguments[2]
        assert isinstance(conditions, rebuild.Conditions)
        used.append(conditions)
        return rebuild.Built(tmp_path, {})

    said: list[str] = []
    monkeypatch.setattr(rebuild, "_users_may_build", lambda: False)
    monkeypatch.setattr(rebuild, "_build", build)
    assert len(list(twice(said.append))) == 2
    assert [conditions.user for conditions in used] == [None, None]
    assert "forbids user namespaces" in said[0]
