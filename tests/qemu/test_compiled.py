"""The stubs that are C: compiled once, of nothing but their text, and needing the C library alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import compiled
import pytest

from tinboot.formats.errors import Unavailable


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder without anything."""
    monkeypatch.setenv("TINBOOT_BUILD", str(tmp_path / "build"))
    return tmp_path


def test_compiled_once(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled.nvml()
    assert made.is_relative_to(empty / "build")
    monkeypatch.setenv("PATH", "/nowhere")
    assert compiled.nvml() == made


def test_the_same_in_another_place(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled.nvml(), compiled.persistenced()
    monkeypatch.setenv("TINBOOT_BUILD", str(empty / "a longer name of a build folder"))
    monkeypatch.chdir(empty)
    second = compiled.nvml(), compiled.persistenced()
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second]
    assert set(first).isdisjoint(second)


@pytest.mark.usefixtures("empty")
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="no gcc") as error:
        compiled.nvml()
    assert error.value.hint == "run ./setup.sh"


def test_what_does_not_compile(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what the compiler said, and keeps nothing."""
    (empty / "nvml_stub.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(compiled, "_SOURCES", empty)
    with pytest.raises(Unavailable, match="nothing"):
        compiled.nvml()
    assert not list(empty.rglob("libnvidia-ml.so.1"))


def test_what_the_library_needs() -> None:
    """The C library alone."""
    words = ["objdump", "-p", str(compiled.nvml())]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in text.splitlines() if "NEEDED" in line] == ["libc.so.6"]
    assert "SONAME               libnvidia-ml.so.1" in text


@pytest.mark.parametrize("name", ["nvml_stub.c", "persistenced.c"])
def test_each_says_that_it_is_for_tests(name: str) -> None:
    source = Path(compiled.__file__).parent / "stubs" / name
    assert source.read_text("utf-8").startswith("/* TEST ONLY, never in a production image: ")


def test_one_text_one_file(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text is another file; what was made of the first stays as it is."""
    first = compiled.persistenced()
    source = (Path(compiled.__file__).parent / "stubs/persistenced.c").read_text("utf-8")
    (empty / "persistenced.c").write_text(source.replace("0755", "0700"))
    monkeypatch.setattr(compiled, "_SOURCES", empty)
    second = compiled.persistenced()
    assert first != second
    assert os.access(second, os.X_OK)
    assert first.read_bytes() != second.read_bytes()
