"""The launch digest against sev-snp-measure, its known answers, and what cannot be measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sevsnpmeasure import guest, vcpu_types, vmm_types
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA
from synthetic_ovmf import HASH_TABLE, RESET_EIP, SECTIONS, image

from tinboot.formats import kernelhashes, launchdigest, ovmf, vcpumodels
from tinboot.formats.errors import Refused
from tinboot.formats.launchdigest import GCE, QEMU, VMMS, Vcpu
from tinboot.formats.ovmf import PAGE, Section

COMMAND_LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def reference(
    folder: Path, made: bytes, kernel: bytes | None, initrd: bytes, line: str, vcpu: Vcpu, count: int
) -> bytes:
    """sev-snp-measure's answer."""
    for name, data in (("ovmf", made), ("kernel", kernel or b""), ("initrd", initrd)):
        (folder / name).write_bytes(data)
    return bytes(
        guest.calc_launch_digest(
            SevMode.SEV_SNP,
            count,
            vcpu.signature,
            str(folder / "ovmf"),
            "" if kernel is None else str(folder / "kernel"),
            str(folder / "initrd") if kernel is not None and initrd else "",
            line if kernel is not None else "",
            vcpu.features,
            vmm_type=vmm_types.VMMType[vcpu.vmm],
        )
    )


def ours(made: bytes, kernel: bytes | None, initrd: bytes, line: str, vcpu: Vcpu, most: int) -> list[bytes]:
    firmware = ovmf.parse(made)
    page = None
    if kernel is not None:
        assert firmware.hash_table is not None
        initrd_digest = hashlib.sha256(initrd).digest() if initrd else kernelhashes.NO_INITRD
        table = kernelhashes.table(
            hashlib.sha256(kernel).digest(), initrd_digest, kernelhashes.command_line_digest(line)
        )
        page = kernelhashes.page(table, firmware.hash_table[0])
    before = launchdigest.sections(launchdigest.firmware_digest(made), firmware.sections, page, vcpu.vmm)
    return list(launchdigest.vcpus(before, vcpu, firmware.reset_eip, most))


@given(
    seed=st.integers(0, 1 << 32),
    pages=st.integers(1, 3),
    sections=st.permutations(SECTIONS),
    kernel=st.none() | st.binary(min_size=1, max_size=64),
    initrd=st.binary(max_size=64),
    line=COMMAND_LINES,
    signature=st.sampled_from(sorted(set(vcpumodels.SIGNATURES.values()))) | st.integers(0, (1 << 32) - 1),
    features=st.sampled_from([0, 0x1, 0x21, 0x201]) | st.integers(0, (1 << 64) - 1),
    vmm=st.sampled_from(VMMS),
    count=st.integers(1, 5),
    eip=st.integers(1, (1 << 32) - 1),
)
def test_equal_to_sev_snp_measure(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    pages: int,
    sections: list[Section],
    kernel: bytes | None,
    initrd: bytes,
    line: str,
    signature: int,
    features: int,
    vmm: str,
    count: int,
    eip: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    made = image(sections, pages=pages, seed=seed, reset_eip=eip)
    vcpu = Vcpu(signature, features, vmm)
    assert ours(made, kernel, initrd, line, vcpu, count)[-1] == reference(
        folder, made, kernel, initrd, line, vcpu, count
    )


def test_the_prefix_is_sev_snp_measures_ovmf_hash(tmp_path: Path) -> None:
    (tmp_path / "fd").write_bytes(made := image(pages=5))
    assert launchdigest.firmware_digest(made) == guest.calc_snp_ovmf_hash(str(tmp_path / "fd"))


def test_every_count_is_of_the_one_before() -> None:
    vcpu = Vcpu(0x800F12, 1)
    many = ours(image(), b"kernel", b"initrd", "console=ttyS0", vcpu, 9)
    assert [ours(image(), b"kernel", b"initrd", "console=ttyS0", vcpu, n)[-1] for n in range(1, 10)] == many
    assert len(set(many)) == 9


@pytest.mark.parametrize("vmm", VMMS)
@pytest.mark.parametrize("eip", [0xFFFFFFF0, RESET_EIP])
def test_first_state_of_a_vcpu(vmm: str, eip: int) -> None:
    page = launchdigest.vmsa(Vcpu(0xA00F11, 0x21, vmm), eip)
    theirs = bytes(VMSA.build_save_area(eip, 0x21, 0xA00F11, vmm_types.VMMType[vmm]))
    assert page == theirs + bytes(PAGE - len(theirs))


def test_host_kernels_before_the_reset_values_of_the_fpu() -> None:
    new, old = (launchdigest.vmsa(Vcpu(0x800F12, 1, QEMU, fpu), RESET_EIP) for fpu in (True, False))
    assert [at for at in range(PAGE) if new[at] != old[at]] == [0x408, 0x409, 0x410, 0x411]


def test_signatures_are_sev_snp_measures() -> None:
    for name, value in vcpu_types.CPU_SIGS.items():
        assert vcpumodels.SIGNATURES[name] == value


@given(st.integers(0, 0xFF + 0x0F), st.integers(0, 0xFF), st.integers(0, 0x0F))
def test_signature_of_any_cpu(family: int, model: int, stepping: int) -> None:
    assert vcpumodels.signature(family, model, stepping) == vcpu_types.cpu_sig(family, model, stepping)


@pytest.mark.parametrize("parts", [(-1, 0, 0), (0x10F, 0, 0), (0, 0x100, 0), (0, 0, 0x10)])
def test_no_cpu_has_such_a_signature(parts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no CPU has"):
        vcpumodels.signature(*parts)


@given(st.binary(max_size=50), st.binary(max_size=50), COMMAND_LINES)
def test_hash_table_is_sev_snp_measures(kernel: bytes, initrd: bytes, line: str) -> None:
    theirs = SevHashes.__new__(SevHashes)
    theirs.kernel_hash = hashlib.sha256(kernel).digest()
    theirs.initrd_hash = hashlib.sha256(initrd).digest()
    theirs.cmdline_hash = hashlib.sha256(line.encode() + b"\0").digest()
    table = kernelhashes.table(theirs.kernel_hash, theirs.initrd_hash, kernelhashes.command_line_digest(line))
    assert table == bytes(theirs.construct_table())
    assert kernelhashes.page(table, HASH_TABLE[0]) == bytes(theirs.construct_page(HASH_TABLE[0] % PAGE))


def test_a_table_that_would_cross_its_page() -> None:
    table = kernelhashes.table(*(bytes(32) for _ in range(3)))
    assert len(table) == 176
    with pytest.raises(ValueError, match="crosses the end"):
        kernelhashes.page(table, 0x810F51)
    with pytest.raises(ValueError, match="32 bytes"):
        kernelhashes.table(b"", bytes(32), bytes(32))


@pytest.mark.parametrize(
    ("section", "hashes", "message"),
    [
        (Section(0x800000, PAGE, 5), None, "unknown type 0x5"),
        (Section(0x800000, 2 * PAGE, ovmf.SNP_KERNEL_HASHES), bytes(PAGE), "has 8192 bytes"),
    ],
)
def test_sections_that_cannot_be_measured(section: Section, hashes: bytes | None, message: str) -> None:
    with pytest.raises(Refused, match=message):
        launchdigest.sections(bytes(48), [section], hashes)


def test_kernel_hashes_off_is_a_page_of_zeros_not_of_hashes() -> None:
    listed = [SECTIONS[-1]]
    off = launchdigest.sections(bytes(48), listed, None)
    zero = launchdigest.sections(bytes(48), [listed[0]._replace(kind=ovmf.SVSM_CAA)], None)
    assert off == zero != launchdigest.sections(bytes(48), listed, bytes(PAGE))


def test_google_does_not_measure_prevalidated_memory() -> None:
    listed = [SECTIONS[0]]
    assert launchdigest.sections(bytes(48), listed, None, GCE) != launchdigest.sections(
        bytes(48), listed, None
    )


def test_more_vcpus_than_one_need_a_reset_address() -> None:
    assert len(list(launchdigest.vcpus(bytes(48), Vcpu(0, 1), None, 1))) == 1
    with pytest.raises(Refused, match="where application processors start"):
        list(launchdigest.vcpus(bytes(48), Vcpu(0, 1), None, 2))
