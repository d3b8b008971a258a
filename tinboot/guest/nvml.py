"""What NVIDIA's driver says of the GPUs, and their evidence: every call of NVML that the gate makes.

Runs in a process of its own (attended.py): after the driver has hung or lied nothing of it is left. Refuses:
    gpu-nvml-missing gpu-nvml-failed gpu-nvml-malformed
    gpu-not-production gpu-cc-off gpu-devtools gpu-multi-gpu
    gpu-ready-early gpu-count gpu-architecture gpu-persistenced
    gpu-ready-failed
Constants are those of nvml.h; what is not named in nvidia-ml-py is cited.
"""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Callable, Sequence
from ctypes import byref
from threading import Thread
from types import ModuleType
from typing import Any, NamedTuple

from tinboot.formats.halt import Refusal
from tinboot.guest.attended import Attendance

# NVIDIA's bindings import `find_library` and never call it. With it would come subprocess, shutil and
# tempfile: 0.15 s of an emulated boot.
_UNUSED = ModuleType("ctypes.util")
vars(_UNUSED)["find_library"] = None
if sys.modules.setdefault("ctypes.util", _UNUSED) is _UNUSED:
    import pynvml

    del sys.modules["ctypes.util"]
else:
    import pynvml

ARCHITECTURES = {"hopper": pynvml.NVML_DEVICE_ARCH_HOPPER, "blackwell": pynvml.NVML_DEVICE_ARCH_BLACKWELL}

_NO_MULTI_GPU = pynvml.NVML_CC_SYSTEM_MULTIGPU_NONE
_READY = pynvml.NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE
_NOT_READY = pynvml.NVML_CC_ACCEPTING_CLIENT_REQUESTS_FALSE


class Gpu(NamedTuple):
    """Of one GPU, as NVML gives it; nothing of it is believed. `chain` is PEM, `report` gpureport.py's."""

    uuid: str
    vbios_version: str
    chain: bytes
    report: bytes


class Collected(NamedTuple):
    driver_version: str
    gpus: tuple[Gpu, ...]


class Nvml:
    """Calls by name, each announced."""

    def __init__(self, attendance: Attendance) -> None:
        self._attendance = attendance

    def __call__(self, name: str, *words: Any, gpu: int | None = None) -> Any:
        """`gpu`: its index, for messages. Refuses where the library is absent, the call fails, or answers
        what is no text.
        """
        told = name if gpu is None else f"{name} of GPU {gpu}"
        with self._attendance.call(told):
            try:
                return getattr(pynvml, name)(*words)
            except pynvml.NVMLError_LibraryNotFound:
                raise Refusal("gpu-nvml-missing", "libnvidia-ml.so.1 cannot be loaded") from None
            except pynvml.NVMLError as error:
                raise Refusal("gpu-nvml-failed", f"{told}: {error}, status {error.value}") from None
            except UnicodeDecodeError:
                raise Refusal("gpu-nvml-malformed", f"{told} answers what is no text") from None


def collect(nvml: Nvml, gpus: int, architecture: str, nonce: bytes, *, ready: bool = False) -> Collected:
    """Looks at the system's state, then takes every GPU's evidence for `nonce`, all at the same time.

    `ready`: whether the GPUs have been told to take work.
    """
    nvml("nvmlInitWithFlags", 0)
    driver = nvml("nvmlSystemGetDriverVersion")
    _check_state(nvml, ready)
    count = nvml("nvmlDeviceGetCount")
    if count != gpus:
        raise Refusal("gpu-count", f"the driver finds {count} GPUs, the config asks for {gpus}")
    handles = [nvml("nvmlDeviceGetHandleByIndex", index, gpu=index) for index in range(gpus)]
    for index, handle in enumerate(handles):
        found = nvml("nvmlDeviceGetArchitecture", handle, gpu=index)
        if found != ARCHITECTURES[architecture]:
            told = f"GPU {index} is of architecture {found}, {architecture} is {ARCHITECTURES[architecture]}"
            raise Refusal("gpu-architecture", told)
    return Collected(driver, _each(handles, lambda index, handle: _evidence(nvml, index, handle, nonce)))


def set_ready(nvml: Nvml, verified: Sequence[str]) -> None:
    """Lets the GPUs take work, and looks whether they do; where they do not, they are told not to.

    `verified`: the UUIDs that were collected. The state is the whole machine's, so a GPU that came since
    would have it, too.
    """
    nvml("nvmlInitWithFlags", 0)
    count = nvml("nvmlDeviceGetCount")
    if count != len(verified):
        raise Refusal("gpu-count", f"the driver finds {count} GPUs, {len(verified)} were verified")
    for index, uuid in enumerate(verified):
        found = nvml("nvmlDeviceGetUUID", nvml("nvmlDeviceGetHandleByIndex", index, gpu=index), gpu=index)
        if found != uuid:
            raise Refusal("gpu-count", f"GPU {index} is {found}, the one that was verified {uuid}")
    try:
        _make_ready(nvml)
    except Refusal:
        with contextlib.suppress(Refusal):
            nvml("nvmlSystemSetConfComputeGpusReadyState", _NOT_READY)
        raise


def _make_ready(nvml: Nvml) -> None:
    nvml("nvmlSystemSetConfComputeGpusReadyState", _READY)
    found = nvml("nvmlSystemGetConfComputeGpusReadyState")
    if found != _READY:
        raise Refusal("gpu-ready-failed", f"the ready state is {found} after it was set to {_READY}")


def _check_state(nvml: Nvml, ready: bool) -> None:
    """Of the whole machine: confidential computing, in production, each GPU alone, and none ready too early,
    or no longer.
    """
    state = nvml("nvmlSystemGetConfComputeState")
    settings = pynvml.c_nvmlSystemConfComputeSettings_v1_t()
    status = nvml("nvmlSystemGetConfComputeSettings", byref(settings))
    if status != pynvml.NVML_SUCCESS:  # the one call of which pynvml does not look at the status
        raise Refusal("gpu-nvml-failed", f"nvmlSystemGetConfComputeSettings: status {status}")
    for told in (state, settings):
        if told.environment != pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD:
            raise Refusal("gpu-not-production", f"the environment is {told.environment}, production is 2")
        if told.ccFeature != pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED:
            raise Refusal("gpu-cc-off", f"the mode of confidential computing is {told.ccFeature}, on is 1")
        if told.devToolsMode != pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF:
            raise Refusal("gpu-devtools", f"the mode of developer tools is {told.devToolsMode}, off is 0")
    if settings.multiGpuMode != _NO_MULTI_GPU:
        raise Refusal("gpu-multi-gpu", f"the multi-GPU mode is {settings.multiGpuMode}, none is 0")
    found = nvml("nvmlSystemGetConfComputeGpusReadyState")
    if ready and found != _READY:
        raise Refusal("gpu-ready-failed", f"the ready state is {found}, and was set to {_READY}")
    if not ready and found != _NOT_READY:
        raise Refusal("gpu-ready-early", f"the ready state is {found} before any GPU was verified")


def _evidence(nvml: Nvml, index: int, handle: object, nonce: bytes) -> Gpu:
    """A report of a board's second chip, which NVML may give too, nobody asks for: no policy knows one."""
    uuid = nvml("nvmlDeviceGetUUID", handle, gpu=index)
    if nvml("nvmlDeviceGetPersistenceMode", handle, gpu=index) != pynvml.NVML_FEATURE_ENABLED:
        told = f"nvidia-persistenced does not hold GPU {index}: its session would end with this one's process"
        raise Refusal("gpu-persistenced", told)
    vbios = nvml("nvmlDeviceGetVbiosVersion", handle, gpu=index)
    chain = nvml("nvmlDeviceGetConfComputeGpuCertificate", handle, gpu=index)
    report = nvml("nvmlDeviceGetConfComputeGpuAttestationReport", handle, nonce, gpu=index)
    return Gpu(
        uuid,
        vbios,
        _cut(chain.attestationCertChain, chain.attestationCertChainSize, index),
        _cut(report.attestationReport, report.attestationReportSize, index),
    )


def _cut(buffer: Any, size: int, index: int) -> bytes:
    data = bytes(buffer)
    if not 0 < size <= len(data):
        raise Refusal("gpu-nvml-malformed", f"GPU {index}: {size} bytes in a buffer of {len(data)}")
    return data[:size]


def _each(handles: list[object], work: Callable[[int, object], Gpu]) -> tuple[Gpu, ...]:
    """`work` on every GPU at once, a thread each; raises what the first of them raised, by index."""
    done: list[Gpu | BaseException | None] = [None] * len(handles)

    def run(index: int) -> None:
        try:
            done[index] = work(index, handles[index])
        except BaseException as error:  # raised again where the threads are joined
            done[index] = error

    threads = [Thread(target=run, args=(index,)) for index in range(len(handles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gpus = []
    for found in done:
        if not isinstance(found, Gpu):
            raise found or AssertionError("a thread left neither a GPU nor an error")
        gpus.append(found)
    return tuple(gpus)


def pack(collected: Collected) -> object:
    """As JSON, for the way between processes."""
    gpus = [
        [gpu.uuid, gpu.vbios_version, *(base64.b64encode(data).decode() for data in (gpu.chain, gpu.report))]
        for gpu in collected.gpus
    ]
    return [collected.driver_version, gpus]


def unpack(value: Any) -> Collected:
    """The inverse of `pack`."""
    driver, gpus = value
    return Collected(driver, tuple(Gpu(u, v, *map(base64.b64decode, data)) for u, v, *data in gpus))
