"""The root's Python, by the root's interpreter on the root's files: what a boot imports is there, and works.

A file that an inventory lacks must not wait for a machine with a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

#: Says what could not be imported, and what came from elsewhere than the root's own folders.
EVERYTHING = """
import importlib, pkgutil, sys, tinboot
for found in pkgutil.walk_packages(tinboot.__path__, "tinboot."):
    importlib.import_module(found.name)
import pynvml
assert "tinboot.guest.gpu_gate" in sys.modules and "tinboot.verify.gpu_chain" in sys.modules
print(callable(pynvml.nvmlInitWithFlags), len([name for name in sys.modules if name.startswith("tinboot.")]))
"""

#: NVML without a driver: DRIVER_NOT_LOADED (9) of nvml.h, from NVIDIA's own library.
LIBRARIES = """
import ctypes
print(ctypes.CDLL("libnvidia-ml.so.1").nvmlInitWithFlags(0))
ctypes.CDLL("libnvidia-cfg.so.1")
"""

#: As tinboot/guest/nv_child.py begins.
CHILD = """
import os, sys
os.chdir("/tmp")
site = "/usr/lib/tinboot/nv-verifier/site"
sys.path.insert(0, site)
from cryptography.x509 import ocsp
from OpenSSL import crypto
from verifier import cc_admin, config
from verifier.cc_admin_utils import CcAdminUtils
from verifier.nvml.gpu_cert_chains import GpuCertificateChains
import cryptography, lxml.etree, pynvml, signxml
for module in (cryptography, crypto, lxml.etree, pynvml, signxml):
    assert module.__file__.startswith(site), module
print(cryptography.__version__)
"""


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy: chroot's /tmp is written to."""
    return Path(shutil.copytree(root, tmp_path / "tree", symlinks=True))


def run(tree: Path, program: str) -> subprocess.CompletedProcess[str]:
    user = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--"]
    command = [*user, "chroot", str(tree), "/usr/bin/python3", "-IB", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=PATH)


def test_all_of_tinboot_imports(tree: Path) -> None:
    done = run(tree, EVERYTHING)
    assert done.returncode == 0, done.stderr
    there, count = done.stdout.split()
    assert there == "True"
    assert int(count) > 60


def test_nvidias_libraries_load_and_find_no_driver(tree: Path) -> None:
    done = run(tree, LIBRARIES)
    assert (done.stdout, done.stderr) == ("9\n", "")
    daemon = subprocess.run(
        ["chroot", str(tree), "/usr/bin/nvidia-persistenced", "--version"], capture_output=True, check=False
    )
    assert daemon.returncode == 0 or os.geteuid() != 0, daemon


def test_the_second_verifier_imports_from_its_own_folder(tree: Path) -> None:
    done = run(tree, CHILD)
    assert (done.returncode, done.stdout) == (0, "43.0.1\n"), done.stderr


@pytest.mark.parametrize(
    "gone", ["usr/lib/python3.13/xml", "usr/lib/python3.13/http", "usr/lib/tinboot/nv-verifier/site/signxml"]
)
def test_a_folder_that_is_missing_shows(tree: Path, gone: str) -> None:
    shutil.rmtree(tree / gone)
    done = run(tree, CHILD)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_signatures_of_nvidias_curve(tree: Path) -> None:
    """Distribution's cryptography: the pinned root signed itself with ECDSA of P-384, and nothing else."""
    program = """
from pathlib import Path
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from tinboot.verify import gpu_roots
data = Path("/usr/lib/tinboot/gpu/device-root.pem").read_bytes()
print(gpu_roots.is_nvidias(gpu_roots.one_root(data).fingerprint))
root = x509.load_pem_x509_certificate(data)
key, algorithm = root.public_key(), ec.ECDSA(root.signature_hash_algorithm)
key.verify(root.signature, root.tbs_certificate_bytes, algorithm)
try:
    key.verify(root.signature, root.tbs_certificate_bytes + b"x", algorithm)
except InvalidSignature:
    print("refused")
"""
    done = run(tree, program)
    assert (done.stdout, done.stderr) == ("True\nrefused\n", "")
