"""The SNP launch digest (field MEASUREMENT): what the PSP computes over the pages of a launch.

    digest = 48 zero bytes; for each page, in order:
    digest = SHA-384(digest | contents | 112 | type | 0 | 4 zero bytes | gpa)

AMD SEV-SNP Firmware ABI Specification (56860) 1.55, table 67, "PAGE_INFO". The order under QEMU and KVM:
the firmware's pages, its metadata sections in the file's order, then one VMSA page a vCPU. CPUID, secrets
and zeroed pages count with their place alone, not their contents.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tinboot.formats import ovmf
from tinboot.formats.errors import Refused
from tinboot.formats.ovmf import PAGE, Section

SIZE = 48

#: PAGE_INFO: digest, contents, length, page type, IMI page, VMPL3/2/1 permissions and a reserved byte, gpa.
_PAGE_INFO = struct.Struct("<48s48sHBBIQ")

#: 56860, table 65, "PAGE_TYPE". Contents of the last four are not measured.
_NORMAL, _VMSA, _ZERO, _UNMEASURED, _SECRETS, _CPUID = 1, 2, 3, 4, 5, 6

_EMPTY = bytes(SIZE)

#: KVM puts every VMSA here, the highest page of 48 bits (arch/x86/kvm/svm/sev.c, INITIAL_VMSA_GPA).
_VMSA_GPA = 0xFFFFFFFFF000

#: Where the bootstrap processor starts: the reset vector.
_RESET = 0xFFFFFFF0

QEMU, EC2, GCE = "QEMU", "ec2", "gce"
VMMS = (QEMU, EC2, GCE)


class Vcpu(NamedTuple):
    """What the first state of a vCPU depends on.

    `signature`: CPUID Fn0000_0001_EAX of the CPU model. `features`: SEV_FEATURES. `fpu`: whether the VMSA
    has the reset values of the x87 and SSE control words, as Linux writes them from 6.10 on; before, zeros.
    """

    signature: int
    features: int
    vmm: str = QEMU
    fpu: bool = True


def normal_pages(digest: bytes, gpa: int, data: bytes) -> bytes:
    """`digest` extended by `data`, whole pages that begin at `gpa`."""
    before, contents = b"", b""
    for at in range(0, len(data), PAGE):
        page = data[at : at + PAGE]
        if page != before:  # most of a firmware is long runs of padding
            before, contents = page, hashlib.sha384(page).digest()
        digest = _extend(digest, contents, _NORMAL, gpa + at)
    return digest


def firmware_digest(image: bytes) -> bytes:
    """The digest after the firmware's pages: all that it takes to leave the image itself behind."""
    return normal_pages(_EMPTY, ovmf.TOP - len(image), image)


def sections(digest: bytes, listed: Iterable[Section], hashes: bytes | None, vmm: str = QEMU) -> bytes:
    """`digest` extended by the firmware's sections. `hashes`: the page of kernel hashes, None without any."""
    late: list[Section] = []
    for section in listed:
        if section.kind == ovmf.SNP_CPUID and vmm == EC2:  # it adds this page after all others
            late.append(section)
        elif section.kind == ovmf.SNP_KERNEL_HASHES and hashes is not None:
            if section.size != len(hashes):
                raise Refused(
                    f"the section of kernel hashes has {section.size} bytes, expected {len(hashes)}"
                )
            digest = normal_pages(digest, section.gpa, hashes)
        else:
            digest = _section(digest, section, vmm)
    for section in late:
        digest = _extend(digest, _EMPTY, _CPUID, section.gpa)
    return digest


def vcpus(digest: bytes, vcpu: Vcpu, reset_eip: int | None, most: int) -> Iterator[bytes]:
    """The launch digest for 1, 2, … `most` vCPUs, each from the one before."""
    yield (digest := _extend(digest, _contents(vmsa(vcpu, _RESET)), _VMSA, _VMSA_GPA))
    if most == 1:
        return
    if reset_eip is None:
        raise Refused(
            "the firmware does not say where application processors start",
            "it has no SEV-ES reset block; with one vCPU it can be measured",
        )
    contents = _contents(vmsa(vcpu, reset_eip))
    for _ in range(1, most):
        yield (digest := _extend(digest, contents, _VMSA, _VMSA_GPA))


#: VMM -> attributes of CS (bootstrap, others), SS and TR, and the page attribute table.
_STATES = {
    QEMU: (0x9B, 0x9B, 0x93, 0x8B, 0x0007040600070406),
    EC2: (0x9A, 0x9B, 0x92, 0x83, 0x0007040600070406),
    GCE: (0x9B, 0x9B, 0x93, 0x8B, 0x0000000000070106),
}

#: CPUID signature in RDX at reset where the VMM does not take it from the CPU model.
_RDX_OF_CLOUDS = 0x600


def vmsa(vcpu: Vcpu, eip: int) -> bytes:
    """The page with the first state of a vCPU that starts at `eip`, in real mode.

    Offsets: AMD64 Architecture Programmer's Manual 2 (24593) 3.42, table B-4. Values: table 14-1 (processor
    state at reset), and what KVM turns on besides: EFER.SVME, CR4.MCE.
    """
    first, others, stack, task, pat = _STATES[vcpu.vmm]
    code = first if eip == _RESET else others
    page = bytearray(PAGE)

    def segment(at: int, selector: int, attributes: int, limit: int, base: int) -> None:
        struct.pack_into("<HHIQ", page, at, selector, attributes, limit, base)

    for at in (0x00, 0x30, 0x40, 0x50):  # ES, DS, FS, GS
        segment(at, 0, 0x93, 0xFFFF, 0)
    segment(0x10, 0xF000, code, 0xFFFF, eip & 0xFFFF0000)  # CS
    segment(0x20, 0, stack, 0xFFFF, 0)
    segment(0x60, 0, 0, 0xFFFF, 0)  # GDTR
    segment(0x70, 0, 0x82, 0xFFFF, 0)  # LDTR
    segment(0x80, 0, 0, 0xFFFF, 0)  # IDTR
    segment(0x90, 0, task, 0xFFFF, 0)
    for at, value in (
        (0x0D0, 0x1000),  # EFER
        (0x148, 0x40),  # CR4
        (0x158, 0x10),  # CR0
        (0x160, 0x400),  # DR7
        (0x168, 0xFFFF0FF0),  # DR6
        (0x170, 0x2),  # RFLAGS
        (0x178, eip & 0xFFFF),  # RIP
        (0x268, pat),
        (0x310, vcpu.signature if vcpu.vmm == QEMU else _RDX_OF_CLOUDS),  # RDX
        (0x3B0, vcpu.features),
        (0x3E8, 0x1),  # XCR0
    ):
        struct.pack_into("<Q", page, at, value)
    if vcpu.vmm == QEMU and vcpu.fpu:
        struct.pack_into("<I", page, 0x408, 0x1F80)  # MXCSR
        struct.pack_into("<H", page, 0x410, 0x37F)  # x87 control word
    return bytes(page)


def _section(digest: bytes, section: Section, vmm: str) -> bytes:
    """A section whose contents are not measured."""
    if section.kind not in ovmf.KINDS:
        raise Refused(f"the firmware's section at {section.gpa:#x} is of the unknown type {section.kind:#x}")
    if section.kind == ovmf.SNP_SECRETS:
        return _extend(digest, _EMPTY, _SECRETS, section.gpa)
    if section.kind == ovmf.SNP_CPUID:
        return _extend(digest, _EMPTY, _CPUID, section.gpa)
    kind = _UNMEASURED if vmm == GCE and section.kind == ovmf.SNP_SEC_MEMORY else _ZERO
    for gpa in range(section.gpa, section.gpa + section.size, PAGE):
        digest = _extend(digest, _EMPTY, kind, gpa)
    return digest


def _contents(page: bytes) -> bytes:
    return hashlib.sha384(page).digest()


def _extend(digest: bytes, contents: bytes, kind: int, gpa: int) -> bytes:
    info = _PAGE_INFO.pack(digest, contents, _PAGE_INFO.size, kind, 0, 0, gpa)
    return hashlib.sha384(info).digest()
