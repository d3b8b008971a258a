"""What pages show of `tinboot gpu` is what it prints about that H100."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nvidia_samples
import pytest
import vectors
from click.testing import CliRunner

from tinboot.builder import places
from tinboot.cli.main import cli
from tinboot.formats import gpuevidence
from tinboot.formats.gpuevidence import GpuEvidence

RIMS = {
    "NV_GPU_DRIVER_GH100_545.00.xml": "Driver_RIM_test_no_gpu.swidtag",
    "NV_GPU_VBIOS_1010_0200_882_96005E0001.xml": "1010_0200_882_96005E0001_test_no_gpu.swidtag",
}


def shown(page: str) -> list[tuple[str, str]]:
    """Commands about it, and what stands below each."""
    text = (places.REPOSITORY / page).read_text("utf-8")
    blocks = re.findall(r"```text\n(\$ tinboot gpu .*?)```", text, re.DOTALL)
    parts = [
        part for block in blocks for part in re.split(r"^\$ tinboot ", block, flags=re.MULTILINE) if part
    ]
    return [command_and_output(part) for part in parts]


def command_and_output(part: str) -> tuple[str, str]:
    lines = part.splitlines(keepends=True)
    last = next(at for at, line in enumerate(lines) if not line.endswith("\\\n"))
    return "".join(lines[: last + 1]).replace("\\\n", " "), "".join(lines[last + 1 :])


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/gpu.md", 1)])
def test_output(page: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = bytes.fromhex(vectors.read("gpu/go-nvtrust/attestationReport.txt").decode().strip())
    chain = vectors.read("gpu/go-nvtrust/gpuAkCertChain.txt")
    Path("h100.json").write_bytes(gpuevidence.render([GpuEvidence("HOPPER", chain, raw, raw[4:36])]))
    for name, sample in RIMS.items():
        Path(name).write_bytes(nvidia_samples.sample(sample))
    pin = ["gpu", "pin", *RIMS, "--at", "2024-03-01T00:00:00Z", "-o", "gpu"]
    assert CliRunner().invoke(cli, pin).exit_code == 0
    found = shown(page)
    assert len(found) == count
    for words, output in found:
        given = shlex.split(words.replace('"$NONCE"', raw[4:36].hex()))
        done = CliRunner().invoke(cli, [*given, "--force"] if "pin" in given else given)
        assert done.exit_code == 0, done.output
        assert done.stdout == output
