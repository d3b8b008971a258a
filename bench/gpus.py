"""`tinboot gpu verify` of one GPU beside NVIDIA's own verifier and beside bare cryptography, and how eight
GPUs' evidence is collected; in one run.

    from bytes   evidence as bytes, to an accepted result, nothing kept from before: beside the cryptography
                 that nobody can save, through `cryptography` from the same bytes: the chain's four signatures
                 and the report's, the pinned root's digest, FWID, nonce, each measurement compared
    chain kept   the same evidence, its chain's signatures verified before: beside the report's signature with
                 the key decoded, nonce and comparisons
    NVIDIA's     `attest` of nv-local-gpu-verifier 2.7.3 on the same evidence, in its own environment and in a
                 process that has called it before; RIMs are handed over, and revocation is looked at by
                 neither (tinboot/guest/nv_child.py's seams)
    collecting   nvml.py's collector and the stub library, where a certificate takes NVML 30 ms and a report
                 100: all eight at once, as the gate does, beside one after another

Evidence is the harness's, of an H100's shape and size. Each is run --rounds times in turn; the table has the
best.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pynvml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tinboot.builder import nv_verifier as nv_tree
from tinboot.formats.errors import Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import Kind, ReferenceValues, Rim
from tinboot.guest import nv_child, nvml
from tinboot.guest.attended import Attendance
from tinboot.verify import gpu_appraisal, gpu_chain
from tinboot.verify.gpu_appraisal import AcceptedGpu, Collateral
from tinboot.verify.gpu_chain import Endorsement
from tinboot.verify.gpu_platform import Versions
from tinboot.verify.gpu_policy import RELYING_PARTY, Policy

sys.path.insert(0, str(Path(__file__).parents[1] / "qemu"))

import compiled
import stub_gpu_report
import stub_nvidia
import stub_rim
from gpu import Gpus
from gpu_faults import good
from stub_gpu_report import Contents

#: NVIDIA's takes at least so many times as long; ours at most so many times the cryptography alone.
PEER, BARE = 10, 1.5

REPEAT = 20
GPUS = 8
#: Seconds of NVML in each call; in all others none.
DELAYS = {
    "nvmlDeviceGetConfComputeGpuCertificate": 0.03,
    "nvmlDeviceGetConfComputeGpuAttestationReport": 0.1,
}

_SCHEME = ec.ECDSA(hashes.SHA384())
_FWID = x509.ObjectIdentifier("2.23.133.5.4.1")

#: Calls NVIDIA's verifier once for each line that it is sent, and answers with the seconds.
_PEER = """
import os, sys, time
channel, site, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.path[:0] = [site, folder]
import child
from verifier import cc_admin
original = cc_admin.attest

def attest(*words):
    found = original(*words)
    with os.fdopen(channel, "r+b", buffering=0) as lines:
        lines.write(b"0\\n")
        while lines.read(1):
            began = time.perf_counter()
            found = original(*words)
            lines.write(b"%r\\n" % (time.perf_counter() - began))
    return found

cc_admin.attest = attest
child.VERDICT = os.open("verdict", os.O_WRONLY | os.O_CREAT)
sys.exit(child.main(site))
"""


class Given(NamedTuple):
    """Evidence that is accepted, with what it takes. `rims`: by id, as NVIDIA would sign them."""

    evidence: GpuEvidence
    collateral: Collateral
    policy: Policy
    versions: Versions
    now: datetime
    rims: dict[str, bytes]
    rim_root: bytes
    root: bytes


def given(now: datetime) -> Given:
    contents = Contents(nonce=bytes(range(32)))
    chain, signers = stub_nvidia.chain(), stub_nvidia.rim_chain(now, stub_nvidia.CHIPS["HOPPER"])
    report = stub_gpu_report.sign(contents.pack(), chain.key)
    kinds: tuple[Kind, ...] = ("driver", "vbios")
    rims, files = [], {}
    for kind in kinds:
        made = stub_rim.Rim.of(kind, contents)
        files[made.id] = made.xml(signers)
        digests = [sha256(data).hexdigest() for data in (files[made.id], signers.der()[-1])]
        ends = min(form.not_after for form in signers.forms[:-1])
        signed = (digests[0], "bench", digests[1], "HCC RIM L4 Signer", ends)
        rims.append(Rim(made.id, kind, made.version, made.product, *signed, made.active()))
    root = chain.der()[-1]
    return Given(
        GpuEvidence("HOPPER", chain.pem(), report, contents.nonce),
        Collateral(ReferenceValues(now, tuple(rims)), (), (sha256(root).hexdigest(),)),
        Policy("HOPPER", 1, contents.nonce, RELYING_PARTY),
        Versions(*contents.versions),
        now,
        files,
        signers.der()[-1],
        root,
    )


def accept(what: Given, known: Endorsement | None = None) -> AcceptedGpu:
    demands = (what.collateral, what.policy, what.now, what.versions, known)
    return gpu_appraisal.appraise(what.evidence, *demands).accept()


def accept_from_bytes(what: Given) -> AcceptedGpu:
    """As the first of a process, but for its imports."""
    gpu_chain._public_key.cache_clear()
    return accept_with_keys(what)


def accept_with_keys(what: Given) -> AcceptedGpu:
    """Nothing kept but decoded keys."""
    gpu_chain.endorsed.cache_clear()
    gpu_chain._parsed.cache_clear()
    gpu_chain._verified.cache_clear()
    return accept(what)


def cryptography_alone(what: Given) -> None:
    """From bytes, and no more than it takes; what is wrong ends in an exception."""
    cryptography_with_keys(what, bare_chain(what))


class Bare(NamedTuple):
    """Certificates, leaf first, and their keys."""

    certificates: list[x509.Certificate]
    keys: list[ec.EllipticCurvePublicKey]


def bare_chain(what: Given) -> Bare:
    certificates = x509.load_pem_x509_certificates(what.evidence.certificate)
    keys = [certificate.public_key() for certificate in certificates]
    return Bare(certificates, [key for key in keys if isinstance(key, ec.EllipticCurvePublicKey)])


def cryptography_with_keys(what: Given, chain: Bare) -> None:
    certificates, keys = chain
    for certificate, key in zip(certificates, keys[1:], strict=False):
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, _SCHEME)
    assert certificates[-1].fingerprint(hashes.SHA256()).hex() in what.collateral.pinned
    fwid = certificates[0].extensions.get_extension_for_oid(_FWID).value
    assert isinstance(fwid, x509.UnrecognizedExtension)
    assert fwid.value[-48:] in what.evidence.evidence
    report_alone(what, keys[0])


def report_alone(what: Given, key: ec.EllipticCurvePublicKey) -> None:
    """One P-384 signature, the nonce, the measurements."""
    report = what.evidence.evidence
    r, s = (int.from_bytes(part, "big") for part in (report[-96:-48], report[-48:]))
    key.verify(encode_dss_signature(r, s), report[:-96], _SCHEME)
    assert report[4:36] == what.policy.nonce
    for rim in what.collateral.reference.rims:
        for index, allowed in rim.measurements.items():
            at = 45 + 55 * index + 7
            assert report[at : at + 48].hex() in allowed


class Peer:
    """NVIDIA's verifier, waiting in its own process with this evidence; `seconds` calls it once more."""

    def __init__(self, what: Given, folder: Path) -> None:
        version = "{}.{}".format(*sys.version_info)
        self._folder = folder
        site = nv_tree.make(version, lambda _: None, lambda *_: None) / "nv-verifier/site"
        shutil.copyfile(nv_child.__file__, folder / "child.py")
        self._ours, theirs = socket.socketpair()
        words = ["-I", "-B", "-W", "ignore", "-c", _PEER, str(theirs.fileno()), str(site), str(folder)]
        with (folder / "job").open("w+b") as job, theirs:
            job.write(json.dumps(_job(what)).encode())
            job.seek(0)
            self._process = subprocess.Popen(
                [os.path.realpath(sys.executable), *words],
                *(-1, None, job, subprocess.DEVNULL, subprocess.DEVNULL),
                cwd=folder,
                env={"HOME": str(folder), "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
                pass_fds=(theirs.fileno(),),
            )
        self._answers = self._ours.makefile("rb")
        self._answer()

    def seconds(self) -> float:
        self._ours.send(b"x")
        return self._answer()

    def end(self) -> None:
        """Raises unless it called everything good but for revocation, which nobody told it about."""
        self._ours.shutdown(socket.SHUT_WR)
        self._process.wait(60)
        verdict = json.loads((self._folder / "verdict").read_bytes())
        if not verdict["but_for_revocation"]:
            raise Unavailable("nv-local-gpu-verifier does not accept the evidence")

    def _answer(self) -> float:
        line = self._answers.readline()
        if not line:
            raise Unavailable(f"nv-local-gpu-verifier ended with status {self._process.wait(60)}")
        return float(line)


def _job(what: Given) -> dict[str, object]:
    """As tinboot/guest/nv_verifier.py gives it."""
    return {
        "architecture": what.evidence.arch,
        "nonce": what.evidence.nonce.hex(),
        "driver_version": what.versions.driver,
        "vbios_version": what.versions.vbios,
        "report": base64.b64encode(what.evidence.evidence).decode(),
        "certificates": base64.b64encode(what.evidence.certificate).decode(),
        "device_root": stub_nvidia.pem([what.root]).decode(),
        "rim_root": stub_nvidia.pem([what.rim_root]).decode(),
        "rims": {name: data.decode() for name, data in what.rims.items()},
        "ocsp": {},
        "revocation": [],
    }


class Slow(Gpus):
    """GPUs whose driver takes its time."""

    def answer(self, call: str, device: int, given: bytes) -> bytes | None:
        time.sleep(DELAYS.get(call, 0))
        return super().answer(call, device, given)


@contextmanager
def collector() -> Iterator[Callable[[], object]]:
    """What takes the evidence of eight GPUs once, as the gate's process does."""
    attendance = Attendance(os.open(os.devnull, os.O_WRONLY))

    def collect() -> None:
        found = nvml.collect(nvml.Nvml(attendance), GPUS, "hopper", bytes(32))
        pynvml.nvmlShutdown()
        assert len(found.gpus) == GPUS

    with Slow(good(GPUS)) as stubs:
        os.environ["TINBOOT_STUB_GPU"] = stubs.path
        ctypes.CDLL(str(compiled.nvml()))  # under the name that NVML's bindings look for
        yield collect


def one_after_another(collect: Callable[[], object]) -> None:
    """The same, without threads."""
    at_once = nvml._each
    nvml._each = lambda handles, work: tuple(work(*each) for each in enumerate(handles))
    try:
        collect()
    finally:
        nvml._each = at_once


def timed(work: Callable[[], object], repeat: int) -> Callable[[], float]:
    """Seconds of one `work`."""

    def run() -> float:
        began = time.perf_counter()
        for _ in range(repeat):
            work()
        return (time.perf_counter() - began) / repeat

    return run


def best(rounds: int, works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Milliseconds of each, the best of `rounds`, in turn so that other work on the machine meets all."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(work() * 1000)
    return {name: min(times) for name, times in taken.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each (default 15)")
    rounds = parser.parse_args().rounds
    what = given(datetime.now(UTC).replace(microsecond=0))
    known = accept(what).endorsement
    chain = bare_chain(what)
    with tempfile.TemporaryDirectory() as folder, collector() as collect:
        peer = Peer(what, Path(folder))
        took = best(
            rounds,
            {
                "bytes": timed(lambda: cryptography_alone(what), REPEAT),
                "ours": timed(lambda: accept_from_bytes(what), REPEAT),
                "decoded": timed(lambda: cryptography_with_keys(what, chain), REPEAT),
                "ours decoded": timed(lambda: accept_with_keys(what), REPEAT),
                "report": timed(lambda: report_alone(what, known.key), REPEAT),
                "kept": timed(lambda: accept(what, known), REPEAT),
                "peer": peer.seconds,
                "at once": timed(collect, 1),
                "in turn": timed(lambda: one_after_another(collect), 1),
            },
        )
        peer.end()

    print(f"\nverifying one GPU, best of {rounds}")
    print(f"{'':52}{'ms':>9}{'ratio':>8}{'limit':>7}")

    def row(text: str, name: str, ratio: str = "", limit: str = "") -> None:
        print(f"{text:52}{took[name]:9.3f}{ratio:>8}{limit:>7}")

    def ours(text: str, name: str, beside: str) -> None:
        row(text, name, f"{took[name] / took[beside]:.2f}", f"{BARE}")

    row("five P-384 signatures, comparisons, from bytes", "bytes")
    ours("  ours, from bytes", "ours", "bytes")
    row("the same with keys decoded before", "decoded")
    ours("  ours, with keys decoded before", "ours decoded", "decoded")
    row("the report's signature, comparisons", "report")
    ours("  ours, the chain kept", "kept", "report")
    row("nv-local-gpu-verifier's attest, warm", "peer")
    for text, name in (("  ours, from bytes", "ours"), ("  ours, the chain kept", "kept")):
        row(text, name, f"{took['peer'] / took[name]:.0f}x", f"{PEER}x")
    print(
        f"\ncollecting the evidence of {GPUS} GPUs, of which NVML takes 30 and 100 ms each, best of {rounds}"
    )
    row("one after another", "in turn")
    row("  all at once, as the gate does", "at once", f"{took['at once'] / took['in turn']:.2f}")


if __name__ == "__main__":
    main()
