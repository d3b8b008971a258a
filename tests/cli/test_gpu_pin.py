"""`tinboot gpu pin`, as a user runs it."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import fake_nvidia
import nvidia_samples
import pytest
import stub_nvidia
import vectors

from tinboot.builder import gpu_reference

DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_G520_0200_885_96009F0001"
REAL = "NV_GPU_DRIVER_GH100_550.144.03"
AT = ("--at", "2026-06-01T12:00:00Z")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / f"{DRIVER}.xml").write_bytes(fake_nvidia.rim("driver"))
    (tmp_path / "vbios.xml").write_bytes(fake_nvidia.rim("vbios"))
    (tmp_path / "root.pem").write_bytes(stub_nvidia.pem([fake_nvidia.rim_root()]))
    return tmp_path


STUBS = (f"{DRIVER}.xml", f"{VBIOS}=vbios.xml", "--trust-root", "root.pem", *AT)


def tinboot(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tinboot.cli.main import main; main()", "gpu", "pin", *arguments]
    environment = {**os.environ, "no_proxy": "*"}
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" not in done.stderr
    return done


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


MADE = ["reference-values.json", "rims", f"rims/{DRIVER}.xml", f"rims/{VBIOS}.xml"]


def test_stub_rims(here: Path) -> None:
    done = tinboot(here, *STUBS, "-o", "gpu")
    assert done.returncode == 0
    assert listing(here / "gpu") == MADE
    driver, vbios = (sha256(fake_nvidia.rim(kind)).hexdigest() for kind in ("driver", "vbios"))
    assert done.stdout.splitlines() == [
        DRIVER,
        "  21 measurements, by HCC RIM L4 Signer, until 2027-06-01T12:00:00Z",
        f"  sha256 {driver}",
        VBIOS,
        "  12 measurements, by HCC RIM L4 Signer, until 2027-06-01T12:00:00Z",
        f"  sha256 {vbios}",
        "gpu: 2 RIMs, for clocks from 2026-06-01T12:00:00Z on",
        "native takes them for ever, nv-local-gpu-verifier until 2027-06-01T12:00:00Z",
        "by a TEST ROOT: nothing of this says what NVIDIA's GPUs measure",
    ]
    assert done.stderr == (
        "WARNING: trusting the root 'NVIDIA CoRIM signing Root CA' of root.pem, which is not NVIDIA's\n"
    )
    assert gpu_reference.read(here / "gpu").values.rim(VBIOS) is not None


def test_json(here: Path) -> None:
    done = tinboot(here, *STUBS, "-o", "gpu", "--json")
    fields = json.loads(done.stdout)
    assert (fields["output"], fields["created"]) == ("gpu", "2026-06-01T12:00:00Z")
    assert [rim["id"] for rim in fields["rims"]] == [DRIVER, VBIOS]
    assert fields["rims"][0] == {
        "id": DRIVER,
        "kind": "driver",
        "version": "550.90.07",
        "product": "GH100",
        "entries": 21,
        "not_after": "2027-06-01T12:00:00Z",
        "signer": "HCC RIM L4 Signer",
        "root": sha256(fake_nvidia.rim_root()).hexdigest(),
        "nvidia": False,
        "sha256": sha256(fake_nvidia.rim("driver")).hexdigest(),
        "origin": f"{DRIVER}.xml",
    }


def test_nvidias(tmp_path: Path) -> None:
    (tmp_path / f"{REAL}.xml").write_bytes(vectors.read(f"gpu/nvidia-attestation-sdk/rims/{REAL}.xml"))
    done = tinboot(tmp_path, f"{REAL}.xml", "-o", "gpu", "--at", "2026-11-25T00:00:00Z")
    assert done.returncode == 0
    assert "TEST ROOT" not in done.stdout
    assert done.stderr == "note: no RIM of a vbios: every GPU needs one of each\n"
    late = tinboot(tmp_path, f"{REAL}.xml", "-o", "late", "--at", "2027-01-01T00:00:00Z")
    assert (late.returncode, late.stdout) == (4, "")
    assert f"error: {REAL}.xml: 'HCC RIM L4 Signer' is valid from" in late.stderr
    assert listing(tmp_path) == [
        f"{REAL}.xml",
        *sorted(["gpu", *(f"gpu/{x}" for x in listing(tmp_path / "gpu"))]),
    ]


def test_nvidias_samples(tmp_path: Path) -> None:
    """Named as they are in the wheel, they say which board they are of."""
    names = ["Driver_RIM_test_no_gpu.swidtag", "1010_0200_882_96005E0001_test_no_gpu.swidtag"]
    for name in names:
        (tmp_path / name).write_bytes(nvidia_samples.sample(name))
    done = tinboot(tmp_path, *names, "-o", "gpu", "--at", "2025-02-01T00:00:00Z")
    assert (done.returncode, done.stderr) == (0, "")
    reference = gpu_reference.read(tmp_path / "gpu")
    assert [rim.id for rim in reference.values.rims] == [
        "NV_GPU_DRIVER_GH100_545.00",
        "NV_GPU_VBIOS_1010_0200_882_96005E0001",
    ]
    assert 4000 < len(dict(reference.files)["reference-values.json"]) < 7000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give a RIM, --driver or --vbios"),
        (["x.xml"], 6, "x.xml: No such file or directory"),
        (["root.pem"], 3, "root.pem: line 1: begins with"),
        ([f"{DRIVER}.xml"], 4, "'NVIDIA CoRIM signing Root CA'"),
        (["vbios.xml", "--trust-root", "root.pem"], 5, "and nothing says of which board"),
        ([f"NV_GPU_DRIVER_GH100_550.1.1={DRIVER}.xml", "--trust-root", "root.pem"], 5, f"and is {DRIVER}"),
        (["vbios.xml", "--trust-root", "vbios.xml"], 3, "vbios.xml: no certificate in PEM"),
        (["vbios.xml", "--trust-root", "none"], 6, "none: No such file or directory"),
        (["--driver", "x"], 2, "is not as 550.90.07"),
        (["--vbios", "96.00.9F.00.01"], 2, "is not as 550.90.07"),
        (["--driver", "1.1.1", "--rim-service", "ftp://a.example"], 2, "is not as 550.90.07"),
        (["--driver", "550.90.07", "--rim-service", "ftp://a.example"], 3, "is no http or https URL"),
        (["vbios.xml", "--at", "2026"], 2, "no time"),
    ],
)
def test_what_is_refused(here: Path, arguments: list[str], code: int, message: str) -> None:
    before = listing(here)
    at = () if "--at" in arguments else AT
    done = tinboot(here, *arguments, *at, "-o", "gpu")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert listing(here) == before


def test_what_stands_there(here: Path) -> None:
    assert tinboot(here, *STUBS, "-o", "gpu").returncode == 0
    again = tinboot(here, *STUBS, "-o", "gpu")
    assert (again.returncode, again.stdout) == (5, "")
    assert "gpu exists already" in again.stderr
    assert tinboot(here, *STUBS, "-o", "gpu", "--force").returncode == 0
    assert tinboot(here, *STUBS, "-o", "root.pem", "--force").returncode == 5
    assert listing(here / "gpu") == MADE


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        identifier = self.path.rpartition("/")[2]
        found = {DRIVER: fake_nvidia.rim("driver"), VBIOS: fake_nvidia.rim("vbios")}.get(identifier)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        if found is not None:
            self.wfile.write(json.dumps({"id": identifier, "rim": b64encode(found).decode()}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/rim"
        server.shutdown()
        thread.join()


def test_fetched(here: Path, service: str) -> None:
    common = ("--rim-service", service, "--trust-root", "root.pem", *AT)
    done = tinboot(here, "--driver", "550.90.07", "--vbios", VBIOS, *common, "-o", "fetched")
    assert done.returncode == 0
    assert listing(here / "fetched") == MADE
    values = gpu_reference.read(here / "fetched").values
    assert [rim.origin for rim in values.rims] == [f"{service}/{DRIVER}", f"{service}/{VBIOS}"]
    mixed = tinboot(here, f"{DRIVER}.xml", "--vbios", VBIOS, *common, "-o", "mixed")
    assert (mixed.returncode, listing(here / "mixed")) == (0, MADE)


def test_fetched_and_not_there(here: Path, service: str) -> None:
    done = tinboot(here, "--driver", "550.90.08", "--rim-service", service, *AT, "-o", "gpu")
    assert (done.returncode, done.stdout) == (6, "")
    assert "HTTP 404" in done.stderr
    assert "hint: is the version spelled as NVIDIA does?" in done.stderr
    assert not (here / "gpu").exists()
