from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinboot.formats.verity import parse_volume_ref

REPO = "org/model@0123abcd"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "weights.bin").write_bytes(random.Random(0).randbytes(500_000))
    return tmp_path


def tinboot(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tinboot.cli.main import main; main()", "wrap", *arguments]
    return subprocess.run(
        command, cwd=here, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_line_alone_is_on_standard_output(here: Path) -> None:
    done = tinboot(here, "tree", "--repo", REPO)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert str(parse_volume_ref(done.stdout.strip())) + "\n" == done.stdout
    assert listing(here) == ["org--model@0123abcd.mpk", "org--model@0123abcd.mpk.json", "tree"]
    assert "made with mkfs.erofs" in done.stderr
    again = tinboot(here, "--check", "org--model@0123abcd.mpk", "tree")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    exact = tinboot(
        here, "--check", "org--model@0123abcd.mpk", "--repo", REPO, "--expect", done.stdout.strip(), "--json"
    )
    assert json.loads(exact.stdout) == json.loads((here / "org--model@0123abcd.mpk.json").read_text())


def test_what_is_left_out_is_said(here: Path) -> None:
    (here / "tree" / ".cache" / "huggingface").mkdir(parents=True)
    done = tinboot(here, "tree", "--repo", REPO, "-o", "x")
    assert "left out: .cache/huggingface (bookkeeping of a Hugging Face download)" in done.stderr


def test_a_mismatch_is_4_and_names_what_differs(here: Path) -> None:
    line = tinboot(here, "tree", "--repo", REPO, "-o", "x").stdout.strip()
    (here / "tree" / "weights.bin").write_bytes(bytes(500_000))
    done = tinboot(here, "--check", "x", "tree")
    assert (done.returncode, done.stdout) == (4, "")
    assert "weights.bin differs at byte 0" in done.stderr
    other = "0" * 64 + line[64:]
    done = tinboot(here, "--check", "x", "--expect", other)
    assert (done.returncode, done.stdout) == (4, "")
    assert "not to the root hash 0000" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tree"], 2, "--repo NAME@REVISION"),
        (["tree", "--repo", "org/model"], 2, "is not NAME@REVISION"),
        (["missing", "--repo", REPO], 2, "does not exist"),
        (["--check", "x"], 2, "give --repo NAME@REVISION"),
        (["--check", "x", "--repo", REPO, "--force"], 2, "--check writes nothing"),
        (["tree", "--repo", REPO, "--expect", "x"], 2, "<roothash>_<hashoffset>_<uuid>"),
        (["--check", "missing", "--repo", REPO], 6, "missing: No such file"),
        (["--check", "tree/weights.bin", "--repo", REPO], 3, "is not a volume"),
        (["tree", "--repo", REPO, "-o", "no/x"], 6, "No such file or directory"),
        (["tree", "--repo", REPO, "-o", "tree"], 5, "exists already"),
    ],
)
def test_errors_have_their_exit_code(here: Path, arguments: list[str], code: int, said: str) -> None:
    done = tinboot(here, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(here) == ["tree"]


def test_a_missing_tool_is_6_with_the_remedy(here: Path) -> None:
    (here / "tools").mkdir()
    done = tinboot(here, "tree", "--repo", REPO, TINBOOT_TOOLS=str(here / "tools"))
    assert done.returncode == 6
    assert "mkfs.erofs" in done.stderr
    assert "tinboot setup" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(here: Path, signum: signal.Signals) -> None:
    """The stand-in for mkfs.erofs sends the signal in the middle of its work and goes on for a minute."""
    (here / "bin").mkdir()
    script = here / "bin" / "mkfs.erofs"
    script.write_text(
        '#!/bin/sh\n[ "$1" = -V ] && { echo 9.9; exit; }\n'
        'for i; do case $i in */volume) echo x > "$i"; esac; done\n'
        f"kill -{signum.value} $PPID\nexec sleep 60\n"
    )
    script.chmod(0o755)
    environment = {"PATH": f"{here / 'bin'}:/usr/bin:/bin", "TINBOOT_BUILD": str(here), "TINBOOT_TOOLS": ""}
    done = tinboot(here, "tree", "--repo", REPO, "-o", "x", **environment)
    assert (done.returncode, done.stdout) == (128 + signum, "")
    assert f"stopped by {signum.name}; nothing was left behind" in done.stderr
    assert listing(here) == ["bin", "tree"]
