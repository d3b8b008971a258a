"""Wheels by their SHA-256: the lock's grammar, which wheel is for which Python, and what is fetched anew."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tinboot.builder import places, wheels
from tinboot.builder.wheels import Requirement
from tinboot.formats.errors import Malformed, Unavailable

DATA = {
    "one-1.0-py3-none-any.whl": b"one",
    "two-2.0-cp311-cp311-manylinux_2_28_x86_64.whl": b"two for 3.11",
    "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl": b"two for 3.13",
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ONE = Requirement("one", "1.0", frozenset({digest(b"one")}))
TWO = Requirement("two", "2.0", frozenset({digest(b"two for 3.11"), digest(b"two for 3.13")}))


class Pip:
    """Puts files into --dest, as pip would; `told` what it was asked."""

    def __init__(self, files: dict[str, bytes] | None = None, error: str = "") -> None:
        self.files = DATA if files is None else files
        self.error = error
        self.told: list[tuple[str, list[str]]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        target = next(word.removeprefix("--dest=") for word in command if word.startswith("--dest="))
        listed = next(word.removeprefix("--requirement=") for word in command if "--requirement=" in word)
        self.told.append((Path(listed).read_text(), command))
        for name, data in self.files.items():
            Path(target, name).write_bytes(data)
        return subprocess.CompletedProcess(command, bool(self.error), "", self.error)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    made = Pip()
    monkeypatch.setattr(subprocess, "run", made)
    return made


def fetch(folder: Path, python: str = "3.13") -> list[str]:
    return [path.name for path in wheels.fetch([ONE, TWO], python, folder, lambda *_: None)]


def test_the_locks_of_this_checkout() -> None:
    for name, count in (("nvml", 1), ("nv-verifier", 11)):
        path = places.lock_file(name)
        found = wheels.parse(path.name, path.read_text())
        assert len(found) == count
        assert {len(requirement.hashes) for requirement in found} <= {1, 3}
        assert "://" not in path.read_text()


def test_a_lock_is_read() -> None:
    text = f"# why\none==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
    assert wheels.parse("x", text) == (Requirement("one", "1.0", frozenset({"a" * 64, "b" * 64})),)


@pytest.mark.parametrize(
    "line",
    [
        "one",
        "one==1.0",
        f"one>=1.0 --hash=sha256:{'a' * 64}",
        f"one==1.* --hash=sha256:{'a' * 64}",
        f"one==1.0 --hash=md5:{'a' * 32}",
        f"one==1.0 --hash=sha256:{'a' * 63}",
        f"--index-url=x one==1.0 --hash=sha256:{'a' * 64}",
        f"one @ file:///x --hash=sha256:{'a' * 64}",
        f"one==1.0; python_version<'4' --hash=sha256:{'a' * 64}",
        "-r other",
    ],
)
def test_what_is_no_line_of_a_lock(line: str) -> None:
    with pytest.raises(Malformed, match="x: "):
        wheels.parse("x", line + "\n")


@pytest.mark.parametrize(
    ("name", "pythons"),
    [
        ("a-1-py3-none-any.whl", {"3.11", "3.12", "3.13"}),
        ("a-1-py2.py3-none-any.whl", {"3.11", "3.12", "3.13"}),
        ("a-1-py2-none-any.whl", set()),
        ("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", {"3.12"}),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64.whl", set()),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", {"3.11", "3.12", "3.13"}),
        ("a-1-cp312-abi3-manylinux_2_28_x86_64.whl", {"3.12", "3.13"}),
    ],
)
def test_which_wheel_is_for_which_python(name: str, pythons: set[str]) -> None:
    assert {python for python in ("3.11", "3.12", "3.13") if wheels.fits(name, python)} == pythons


def test_fetches_what_is_missing_and_nothing_twice(pip: Pip, tmp_path: Path) -> None:
    assert fetch(tmp_path) == ["one-1.0-py3-none-any.whl", "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl"]
    assert [asked for asked, _ in pip.told] == [ONE.line() + "\n", TWO.line() + "\n"]
    assert fetch(tmp_path) == ["one-1.0-py3-none-any.whl", "two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl"]
    assert len(pip.told) == 2
    assert fetch(tmp_path, "3.11")[1] == "two-2.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert len(pip.told) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(DATA)


def test_pip_resolves_nothing_and_builds_nothing(pip: Pip, tmp_path: Path) -> None:
    fetch(tmp_path)
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.13"} <= set(
        pip.told[0][1]
    )


def test_progress_goes_to_the_end(pip: Pip, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    wheels.fetch([ONE, TWO], "3.13", tmp_path, lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_an_altered_file_is_fetched_anew(pip: Pip, tmp_path: Path) -> None:
    fetch(tmp_path)
    (tmp_path / "one-1.0-py3-none-any.whl").write_bytes(b"altered")
    fetch(tmp_path)
    assert (tmp_path / "one-1.0-py3-none-any.whl").read_bytes() == b"one"


def test_a_file_of_another_hash_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(dict.fromkeys(DATA, b"other")))
    with pytest.raises(Unavailable, match=r"cannot fetch one 1\.0 for Python 3\.13"):
        fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", Pip({}, "WARNING: a\nERROR: no such version\n"))
    with pytest.raises(Unavailable, match="no such version") as caught:
        fetch(tmp_path)
    assert "only the SHA-256 counts" in caught.value.hint


def test_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(Unavailable, match="no answer within"):
        fetch(tmp_path)


def test_what_arrived_before_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", Pip({"one-1.0-py3-none-any.whl": b"one"}))
    with pytest.raises(Unavailable, match="two"):
        fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one-1.0-py3-none-any.whl"]
