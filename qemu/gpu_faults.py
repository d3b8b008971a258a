"""What stub GPUs do wrong, by name: tests go over `FAULTS` without knowing what is behind a name.

    Gpus(good(2))                            two Hoppers that pass
    Gpus(FAULTS["signature-second"])
    Gpus(good(2).with_gpu(1, forged=True))   the same, written out

Every fault is of two GPUs, and genuinely signed unless the signature is the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha384
from typing import Any, Self

from stub_gpu_report import ACTIVE, Block, Contents, Field
from stub_nvidia import Arch, Chain, chain

#: nvml.h: NVML_DEVICE_ARCH_*.
AMPERE = 7
ARCHITECTURES: dict[Arch, int] = {"HOPPER": 9, "BLACKWELL": 10}

#: nvml.h, NVML_CC_SYSTEM_*: environment, feature, developer mode, several GPUs at once.
UNAVAILABLE, SIMULATION, PRODUCTION = 0, 1, 2
MULTI_NONE, PROTECTED_PCIE, NVLINK = 0, 1, 2

#: nvmlReturn_t.
GPU_IS_LOST = 15

#: The calls that the stub library forwards; a test of each goes over those that the gate makes.
CALLS = (
    "nvmlInitWithFlags",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetConfComputeState",
    "nvmlSystemGetConfComputeSettings",
    "nvmlSystemGetConfComputeGpusReadyState",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetBoardId",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetConfComputeGpuCertificate",
    "nvmlDeviceGetConfComputeGpuAttestationReport",
    "nvmlSystemSetConfComputeGpusReadyState",
    "nvmlShutdown",
)

_CONTENTS = Contents()

REPLAYED = sha384(b"tinboot stub: an earlier nonce").digest()[:32]
WRONG = sha384(b"tinboot stub: altered").digest()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; the defaults are those of a good one.

    `number`: which GPU it is, by its keys; None: its place. `architecture`, `vbios`: as NVML tells them,
    where not as the report does. `nonce`: in the place of the one asked for. `evidence_of`: the number of
    another GPU, which gives both report and chain. `forged`: signed by a key of nobody's. `persistent`: the
    daemon holds it. `certificates` gets
    the chain, `alter` the signed report.
    """

    contents: Contents = _CONTENTS
    number: int | None = None
    architecture: int | None = None
    vbios: str | None = None
    nonce: bytes | None = None
    evidence_of: int | None = None
    forged: bool = False
    persistent: bool = True
    certificates: Callable[[Chain], Chain] | None = None
    alter: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True)
class Faults:
    """All GPUs of a machine and their driver; the defaults are those of a good one.

    `count`: as NVML tells it; `on_bus`: as the PCI bus shows it. None: as many as `gpus`. `foreign`: a
    display device of another vendor is on the bus, too. `errors`: NVML call to nvmlReturn_t; `hangs`: calls
    that get no answer. Such a call may be one GPU's: `nvmlDeviceGetUUID@1` is that of the second.
    `ready`: set before anybody asked. `sticks`: the ready state is what it was set to.
    """

    gpus: tuple[Gpu, ...] = (Gpu(),)
    count: int | None = None
    on_bus: int | None = None
    foreign: bool = False
    driver: str | None = None
    environment: int = PRODUCTION
    feature: int = 1
    devtools: int = 0
    multi_gpu: int = MULTI_NONE
    ready: int = 0
    sticks: bool = True
    errors: Mapping[str, int] = field(default_factory=dict)
    hangs: frozenset[str] = frozenset()

    def with_gpu(self, at: int, **fields: Any) -> Self:
        """The same with other `fields` of one GPU."""
        changed = replace(self.gpus[at], **fields)
        return replace(self, gpus=(*self.gpus[:at], changed, *self.gpus[at + 1 :]))

    def with_contents(self, at: int, **fields: Any) -> Self:
        """The same with other `fields` in the report of one GPU."""
        return self.with_gpu(at, contents=self.gpus[at].contents._replace(**fields))


def good(count: int = 2, arch: Arch = "HOPPER") -> Faults:
    """`count` GPUs without a fault."""
    return Faults(gpus=(Gpu(contents=Contents(arch)),) * count)


def _system() -> dict[str, Faults]:
    return {
        "none": replace(good(), gpus=(), count=0, on_bus=0),
        "fewer": good(1),
        "more": good(3),
        "fewer-by-nvml": replace(good(), count=1),
        "more-by-nvml": replace(good(3), on_bus=2),
        "foreign": replace(good(), foreign=True),
        "wrong-architecture": good(2, "BLACKWELL"),
        "wrong-architecture-by-nvml": good().with_gpu(1, architecture=AMPERE),
        "two-alike": good().with_gpu(1, number=0),
        "cc-off": replace(good(), feature=0),
        "not-production": replace(good(), environment=SIMULATION),
        "devtools": replace(good(), devtools=1),
        "protected-pcie": replace(good(), multi_gpu=PROTECTED_PCIE),
        "nvlink": replace(good(), multi_gpu=NVLINK),
        "ready-does-not-stick": replace(good(), sticks=False),
        "ready-already-set": replace(good(), ready=1),
        "driver-differs": replace(good(), driver="550.144.03"),
        "not-persistent": good().with_gpu(1, persistent=False),
        "vbios-differs": good().with_gpu(1, vbios="96.00.A5.00.01"),
    }


def _evidence() -> dict[str, Faults]:
    two = good()
    found = {
        "nonce-replayed": two.with_gpu(1, nonce=REPLAYED),
        "evidence-of-another-gpu": two.with_gpu(1, evidence_of=0),
        "signature-first": two.with_gpu(0, forged=True),
        "signature-second": two.with_gpu(1, forged=True),
        "signature-bit": two.with_gpu(0, alter=lambda report: report[:-1] + bytes((report[-1] ^ 1,))),
        "report-truncated": two.with_gpu(0, alter=lambda report: report[:-1]),
        "report-empty": two.with_gpu(0, alter=lambda report: b""),
        "report-longer": two.with_gpu(0, alter=lambda report: report + b"\0"),
        "chain-cut": two.with_gpu(1, certificates=lambda c: c._replace(forms=c.forms[:-1])),
        "chain-gap": two.with_gpu(1, certificates=lambda c: c._replace(forms=(*c.forms[:2], *c.forms[3:]))),
        "chain-swapped": two.with_gpu(1, certificates=lambda c: chain("HOPPER", 0)),
        "chain-reordered": two.with_gpu(
            1, certificates=lambda c: c._replace(forms=(c.forms[0], c.forms[2], c.forms[1], *c.forms[3:]))
        ),
        "chain-expired": two.with_gpu(
            1, certificates=lambda c: c.replace(0, not_after=datetime(2024, 1, 1, tzinfo=UTC))
        ),
        "chain-of-another-root": two.with_gpu(1, certificates=lambda c: chain("HOPPER", 1, realm="another")),
        "chain-empty": two.with_gpu(1, certificates=lambda c: c._replace(forms=())),
        "fwid-differs": two.with_contents(1, fwid=WRONG),
        "fwid-absent": two.with_contents(1, fwid=b""),
        "driver-unknown": replace(two, driver="550.54.99")
        .with_contents(0, driver="550.54.99")
        .with_contents(1, driver="550.54.99"),
        "vbios-unknown": two.with_contents(1, vbios="96.00.EE.00.01"),
        "board-unknown": two.with_contents(1, project="G999"),
        "opaque-unknown": two.with_contents(1, extra=(Field(199, b"\x01\x02"),)),
        "opaque-repeated": two.with_contents(1, extra=(Field(3, b"550.90.07\0"),)),
        "opaque-protected-pcie": two.with_contents(1, protected_pcie=b"\xaa"),
        "block-missing": two.with_contents(1, blocks=_blocks()[:-1]),
        "block-repeated": two.with_contents(1, blocks=(*_blocks()[:5], _blocks()[4], *_blocks()[6:])),
        "block-reordered": two.with_contents(
            1, blocks=(*_blocks()[:5], _blocks()[6], _blocks()[5], *_blocks()[7:])
        ),
        "block-uncovered": two.with_contents(1, altered={50: WRONG}),
        "block-of-31-bytes": two.with_contents(
            1, blocks=(*_blocks()[:5], Block(6, WRONG[:31]), *_blocks()[6:])
        ),
    }
    for index in sorted((*ACTIVE["driver"], *ACTIVE["vbios"])):
        found[f"measurement-{index}"] = two.with_contents(index % 2, altered={index: WRONG})
    return found


def _blocks() -> tuple[Block, ...]:
    return Contents().listed()


def failing(call: str, code: int = GPU_IS_LOST) -> Faults:
    """Two good GPUs, but for an error at each such call."""
    return replace(good(), errors={call: code})


def hanging(call: str) -> Faults:
    """Two good GPUs, but such a call never returns."""
    return replace(good(), hangs=frozenset({call}))


#: Each by its name. Errors and hangs of each call are `failing` and `hanging`.
FAULTS: dict[str, Faults] = {**_system(), **_evidence()}
