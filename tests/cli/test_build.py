"""`tinboot build`: one error line for each mistake, before anything costly, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_reference import write
from fakemkosi import fake

from tinboot.builder import archive, image, places, prepare
from tinboot.builder.image import Image
from tinboot.builder.mkosi import Mkosi
from tinboot.cli import build
from tinboot.formats import manifest
from tinboot.formats.errors import Refused
from tinboot.formats.verity import Verity

CONFIG = "cvm-version: 0.1.0\ncpus: 2\nmemory: 2048\nshim:\n  upstream-port: 8080\n"


def tinboot(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tinboot.cli.main import main; main()", *arguments]
    return subprocess.run(
        command, cwd=here, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tinboot.yml").write_text(CONFIG)
    return tmp_path


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    for word in said:
        assert word in done.stderr


def test_no_config(here: Path) -> None:
    refused(tinboot(here, "build", "none.yml"), 6, "error: none.yml: No such file")


def test_a_folder_as_config(here: Path) -> None:
    refused(tinboot(here, "build", "."), 6, "Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_config(here: Path) -> None:
    (here / "tinboot.yml").chmod(0)
    refused(tinboot(here, "build", "tinboot.yml"), 6, "Permission denied")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpus: [\n", "line 2"),
        (CONFIG + "cpus: 4\n", "line 6"),
        (CONFIG + "colour: blue\n", "colour"),
        (CONFIG.replace("cpus: 2", "cpus: two"), "cpus"),
        ("", "empty"),
        (CONFIG + "---\na: 1\n", "line 6"),
    ],
)
def test_a_bad_config_names_file_and_line(here: Path, text: str, said: str) -> None:
    (here / "tinboot.yml").write_text(text)
    done = tinboot(here, "build", "tinboot.yml")
    refused(done, 3, "error: tinboot.yml: ", said, "docs/config.md")
    assert listing(here) == ["tinboot.yml"]


def test_an_output_that_is_no_build(here: Path) -> None:
    (here / "tinboot.build").mkdir()
    refused(tinboot(here, "build", "tinboot.yml"), 5, "tinboot.build is there and is no build", "--output")
    assert listing(here) == ["tinboot.build", "tinboot.yml"]


def test_an_output_in_a_missing_folder(here: Path) -> None:
    refused(tinboot(here, "build", "tinboot.yml", "-o", "no/such/x"), 6, "no/such")


def test_ubuntu_without_a_lock_names_the_command(here: Path) -> None:
    done = tinboot(here, "build", "tinboot.yml", "--distribution", "ubuntu")
    refused(done, 6, "packages/ubuntu.lock is not there", "tinboot lock --distribution ubuntu")
    assert listing(here) == ["tinboot.yml"]


def test_a_build_folder_that_cannot_be(here: Path) -> None:
    (here / "file").touch()
    done = tinboot(here, "build", "tinboot.yml", "--distribution", "debian", TINBOOT_BUILD=str(here / "file"))
    refused(done, 6, "file")


def test_no_mkosi_and_no_way_to_one(here: Path) -> None:
    environment = {
        "TINBOOT_BUILD": str(here / "build"),
        archive.variable("debian"): f"file:{here}/mirror",
        "PATH": "/usr/bin:/bin",
    }
    done = tinboot(here, "build", "tinboot.yml", "--distribution", "debian", **environment)
    refused(done, 6, "mkosi_27.1-1_all.deb", "install mkosi 27.1")


@pytest.fixture
def built(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command with everything before `assemble` replaced by an image of a few bytes."""
    folder = here / "image"
    folder.mkdir()
    for name in ("kernel", "initrd", "kernel.cdx.json", "initrd.cdx.json", "root.cdx.json"):
        (folder / name).write_text(name)
    (folder / "root").write_bytes(bytes(4 * 4096))
    packages = (manifest.Package("root", "bash", "1", "amd64", "ab" * 32),)
    chain = prepare.Toolchain(Mkosi(("false",), {}, "27.1", ""), here, here, here)
    monkeypatch.setattr(prepare, "toolchain", lambda *_: chain)
    monkeypatch.setattr(image, "build", lambda *_: Image(folder, Verity("12" * 32, "34" * 32, 2), packages))
    monkeypatch.chdir(here)
    return here / "tinboot.build"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build.command, ["tinboot.yml", "--distribution", "debian", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_summary(built: Path) -> None:
    lines = run().splitlines()
    assert lines[0] == "tinboot.build/"
    assert [line.split()[0] for line in lines[1:]] == [
        "kernel",
        "initrd",
        "root",
        "root",
        "config",
        "packages",
    ]
    assert "12" * 32 in lines[4]
    assert (built / "manifest.json").exists()


def test_json_is_the_manifest(built: Path) -> None:
    printed = run("--json")
    assert printed.encode() == (built / "manifest.json").read_bytes()
    assert json.loads(printed)["profile"] == "release"


def test_output(built: Path) -> None:
    assert run("-o", "elsewhere").startswith("elsewhere/\n")
    assert (built.parent / "elsewhere/manifest.json").exists()
    assert not built.exists()


def test_a_second_time_replaces_the_first(built: Path) -> None:
    run()
    (built.parent / "tinboot.yml").write_text(CONFIG.replace("cpus: 2", "cpus: 3"))
    run()
    assert manifest.Manifest.load((built / "manifest.json").read_bytes()).cpus == 3


GPUS = CONFIG + "gpus: 2\n"


def test_gpus_take_reference_values(here: Path) -> None:
    """Or the word that says without: nobody finds out at the first boot on a GPU."""
    (here / "tinboot.yml").write_text(GPUS)
    done = tinboot(here, "build", "tinboot.yml")
    refused(done, 5, "asks for 2 GPUs", "tinboot gpu pin", "--gpu-reference-values")
    assert listing(here) == ["tinboot.yml"]


def test_with_and_without_at_once(here: Path) -> None:
    words = ["--gpu-reference-values", "x", "--without-gpu-reference-values"]
    done = tinboot(here, "build", "tinboot.yml", *words)
    assert (done.returncode, "opposites" in done.stderr) == (2, True)


def test_a_folder_that_is_not_as_pinned(here: Path) -> None:
    (here / "tinboot.yml").write_text(GPUS)
    done = tinboot(here, "build", "tinboot.yml", "--gpu-reference-values", "none")
    refused(done, 6, "none/reference-values.json: No such file")
    write(here / "pinned")
    (here / "pinned/device-root.pem").touch()
    done = tinboot(here, "build", "tinboot.yml", "--gpu-reference-values", "pinned")
    refused(done, 5, "device-root.pem", "tinboot gpu pin")
    assert listing(here) == ["pinned", "tinboot.yml"]


@pytest.mark.parametrize(
    ("alter", "code", "said"),
    [
        (lambda folder, rim: rim.write_text("altered"), 4, "has SHA-256"),
        (lambda folder, rim: rim.unlink(), 5, "lacks rims/"),
        (lambda folder, rim: (folder / "reference-values.json").unlink(), 6, "No such file"),
        (lambda folder, rim: (folder / "reference-values.json").write_text("{}"), 3, "reference-values.json"),
    ],
    ids=["a RIM altered", "a RIM missing", "values missing", "values malformed"],
)
def test_a_pinned_folder_that_was_changed(
    here: Path, alter: Callable[[Path, Path], object], code: int, said: str
) -> None:
    (here / "tinboot.yml").write_text(GPUS)
    folder = write(here / "pinned")
    alter(folder, next(folder.glob("rims/NV_GPU_VBIOS_*.xml")))
    done = tinboot(here, "build", "tinboot.yml", "--gpu-reference-values", "pinned")
    refused(done, code, said, "tinboot gpu pin")
    assert listing(here) == ["pinned", "tinboot.yml"]


def test_without_reference_values_says_what_that_means(built: Path) -> None:
    Path("tinboot.yml").write_text(GPUS)
    assert run("--without-gpu-reference-values").splitlines()[-1].endswith("this image refuses every GPU")
    assert manifest.Manifest.load((built / "manifest.json").read_bytes()).gpu_reference_values == ()


@pytest.mark.parametrize("config", [CONFIG, GPUS])
def test_reference_values_are_in_the_manifest(built: Path, config: str) -> None:
    """By their hashes, for whoever audits the image; machines without GPUs may share it."""
    Path("tinboot.yml").write_text(config)
    folder = write(Path("pinned"))
    assert "reference values of 2 RIMs" in run("--gpu-reference-values", "pinned").splitlines()[-1]
    found = manifest.Manifest.load((built / "manifest.json").read_bytes()).gpu_reference_values
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {file.file: file.sha256 for file in found} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_a_driver_that_was_not_pinned(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tinboot.yml").write_text(GPUS)
    write(Path("pinned"))
    made = image.build
    packages = (
        manifest.Package("root", "libnvidia-compute-580-server", "580.105.08-0ubuntu1", "amd64", "ab" * 32),
    )
    monkeypatch.setattr(image, "build", lambda *given: replace(made(*given), packages=packages))
    words = ["tinboot.yml", "--distribution", "debian", "--gpu-reference-values", "pinned"]
    result = CliRunner().invoke(build.command, words)
    assert isinstance(result.exception, Refused)
    assert "driver is 580.105.08, the reference values are for 580.95.05" in result.exception.message
    assert not built.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_one_line(here: Path, signum: signal.Signals) -> None:
    """In the middle of mkosi's work on the tools tree; mkosi goes too."""
    tool = f"""
if "--version" in sys.argv:
    say("mkosi 99"); sys.exit()
Path({str(here / "pid")!r} + ".new").write_text(str(os.getpid()))
os.rename({str(here / "pid")!r} + ".new", {str(here / "pid")!r})
time.sleep(60)
"""
    (here / "bin").mkdir()
    fake(here / "bin/mkosi", tool)
    packages = places.build_folder() / "packages/tools"
    if not packages.is_dir():
        pytest.skip("the tools' packages are fetched by `tinboot setup`")
    (here / "build/packages").mkdir(parents=True)
    linked = here / "build/packages/tools"
    linked.mkdir()
    for path in packages.glob("*.deb"):
        (linked / path.name).write_bytes(path.read_bytes())
    environment = {"TINBOOT_BUILD": str(here / "build"), "PATH": f"{here / 'bin'}:/usr/bin:/bin"}
    command = [sys.executable, "-c", "from tinboot.cli.main import main; main()"]
    command += ["build", "tinboot.yml", "--distribution", "debian"]
    with subprocess.Popen(
        command, cwd=here, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (here / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signum)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 128 + signum
    assert said.splitlines()[-1] == f"stopped by {signum.name}; nothing was left behind"
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((here / "pid").read_text()), 0)
    assert listing(here) == ["bin", "build", "pid", "tinboot.yml"]
    assert {path.name for path in (here / "build").iterdir()} == {".tools.lock", "packages", "tools.log"}
