"""What a config demands of GPUs, in the verifier's words; the root that is pinned."""

from __future__ import annotations

import hashlib

import fake_nvidia
import pytest
import vectors

from tinboot.formats.errors import Malformed
from tinboot.verify import gpu_policy, gpu_roots
from tinboot.verify.certificate import read
from tinboot.verify.gpu_policy import RELYING_PARTY, Policy

NONCE = fake_nvidia.NONCE


@pytest.mark.parametrize(("word", "said"), [("ocsp", "ocsp"), ("relying-party", RELYING_PARTY)])
@pytest.mark.parametrize(("name", "arch"), [("hopper", "HOPPER"), ("blackwell", "BLACKWELL")])
def test_of_config(name: str, arch: str, word: str, said: object) -> None:
    found = gpu_policy.of_config(name, word, 8, NONCE)
    assert found == Policy(arch, 8, NONCE, said)  # type: ignore[arg-type]  # a literal
    assert found.oldest_answer == gpu_policy.OLDEST_ANSWER


def test_no_other_word() -> None:
    with pytest.raises(ValueError, match="no policy of revocation is called 'none'"):
        gpu_policy.revocation("none")


def test_nvidias_root_ends_genuine_chains() -> None:
    chain = read(vectors.read("gpu/go-nvtrust/gpuAkCertChain.txt"))
    assert (chain[-1].fingerprint,) == gpu_roots.NVIDIA
    assert chain[-1].common_name == "NVIDIA Device Identity CA"
    assert gpu_roots.is_nvidias(chain[-1].fingerprint)
    assert not gpu_roots.is_nvidias(chain[-2].fingerprint)
    assert not gpu_roots.is_nvidias(None)


def test_one_root() -> None:
    der = fake_nvidia.device_root()
    assert gpu_roots.one_root(der).fingerprint == hashlib.sha256(der).hexdigest()
    with pytest.raises(Malformed, match="5 certificates, expected one root"):
        gpu_roots.one_root(fake_nvidia.device_chain().pem())
