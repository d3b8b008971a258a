from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from oci_layouts import Layout, member, tar

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


@pytest.fixture
def layout(here: Path) -> str:
    """The digest of the one image in the layout `oci`, there as the archive `oci.tar` too."""
    made = Layout()
    image = made.image([tar([member("serve", data=b"#!/bin/sh\n", mode=0o755)])], "gzip")
    made.entry(image, "v1")
    made.write(here / "oci")
    made.archive(here / "oci.tar")
    return image.digest


def test_an_images_entry_alone_is_on_standard_output(here: Path, layout: str) -> None:
    done = tinboot(here, "--oci", "oci", "--image", "localhost/app:1")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    first, second = done.stdout.splitlines()
    assert first == f"- image: localhost/app:1@{layout}"
    line = second.removeprefix("  mpk: ")
    assert str(parse_volume_ref(line)) == line
    assert "localhost--app-1.mpk" in listing(here)
    assert "localhost--app-1.mpk.json" in listing(here)
    assert "made with mkfs.erofs" in done.stderr
    for words in (["--oci", "oci:v1"], ["--oci", "oci.tar", "--image", f"localhost/app:1@{layout}"], []):
        again = tinboot(here, "--check", "localhost--app-1.mpk", *words)
        assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    (here / "localhost--app-1.mpk.json").unlink()
    exact = [f"--image=localhost/app:1@{layout}", f"--expect={line}"]
    again = tinboot(here, "--check", "localhost--app-1.mpk", *exact, "--json")
    assert json.loads(again.stdout)["image"] == f"localhost/app:1@{layout}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--oci", "oci"], 2, "or --oci LAYOUT and --image NAME"),
        (["--image", "localhost/app"], 2, "or --oci LAYOUT and --image NAME"),
        (["--oci", "missing", "--image", "localhost/app"], 2, "missing does not exist"),
        (["--oci", "oci", "--image", "app"], 2, "expected an image with its registry"),
        (["--oci", "oci", "--image", "localhost/app@sha256:0"], 2, "expected an image by digest"),
        (
            ["--oci", "oci", "tree", "--image", "localhost/app"],
            2,
            "--oci goes with --image, SOURCE with --repo",
        ),
        (["--oci", "oci:v2", "--image", "localhost/app"], 5, "has 0 images called 'v2'"),
        (["--oci", "oci:v1", "--image", "localhost/app@sha256:" + "0" * 64], 4, "v1 is sha256:"),
        (["--oci", "tree", "--image", "localhost/app"], 6, "oci-layout: No such file"),
        (["--oci", "tree/weights.bin", "--image", "localhost/app"], 3, "tree/weights.bin, header at byte 0"),
    ],
)
@pytest.mark.usefixtures("layout")
def test_errors_of_images_have_their_exit_code(
    here: Path, arguments: list[str], code: int, said: str
) -> None:
    before = listing(here)
    done = tinboot(here, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert listing(here) == before


def test_a_check_of_an_image_takes_no_weights(here: Path, layout: str) -> None:
    tinboot(here, "--oci", "oci", "--image", "localhost/app", "-o", "x")
    done = tinboot(here, "--check", "x", "tree")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no SOURCE" in done.stderr
    blob = here / "oci/blobs/sha256" / layout[7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b" ")
    done = tinboot(here, "--check", "x", "--oci", "oci")
    assert (done.returncode, done.stdout) == (4, "")
    assert f"the blob {layout} hashes to" in " ".join(done.stderr.split())


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
