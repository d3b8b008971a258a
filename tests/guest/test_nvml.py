"""The ready state: what is looked at before it is set, after, and later. All else is in test_gpu_gate.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gpu_faults import PRODUCTION

from tinboot.formats.halt import Refusal
from tinboot.guest import nvml

SET, GET = "nvmlSystemSetConfComputeGpusReadyState", "nvmlSystemGetConfComputeGpusReadyState"
VERIFIED = ("GPU-a", "GPU-b")


class Driver(nvml.Nvml):
    """Answers from memory. `fails`: calls that do."""

    def __init__(self, *uuids: str, fails: str = "") -> None:
        self.uuids = uuids
        self.fails = fails
        self.ready = 0
        self.was_ready = False

    def __call__(self, name: str, *words: Any, gpu: int | None = None) -> Any:
        if name == self.fails:
            raise Refusal("gpu-nvml-failed", name)
        if name == "nvmlDeviceGetCount":
            return len(self.uuids)
        if name == "nvmlDeviceGetHandleByIndex":
            return words[0]
        if name == "nvmlDeviceGetUUID":
            return self.uuids[words[0]]
        if name == SET:
            (self.ready,) = words
            self.was_ready |= bool(self.ready)
        if name == GET:
            return self.ready
        return None


def test_those_that_were_verified_become_ready() -> None:
    driver = Driver(*VERIFIED)
    nvml.set_ready(driver, VERIFIED)
    assert driver.ready == 1


@pytest.mark.parametrize("uuids", [("GPU-a",), (*VERIFIED, "GPU-c"), ("GPU-a", "GPU-c"), ("GPU-b", "GPU-a")])
def test_others_never_are(uuids: tuple[str, ...]) -> None:
    """Plugged in, or exchanged, while the evidence of those before was being verified."""
    driver = Driver(*uuids)
    with pytest.raises(Refusal) as caught:
        nvml.set_ready(driver, VERIFIED)
    assert caught.value.reason == "gpu-count"
    assert not driver.was_ready


def test_they_are_not_left_ready_where_that_cannot_be_read_back() -> None:
    driver = Driver(*VERIFIED, fails=GET)
    with pytest.raises(Refusal) as caught:
        nvml.set_ready(driver, VERIFIED)
    assert caught.value.reason == "gpu-nvml-failed"
    assert driver.was_ready
    assert driver.ready == 0


class Machine(Driver):
    """Without GPUs, its state as it should be, but for what is told of readiness."""

    def __init__(self, ready: int) -> None:
        super().__init__()
        self.ready = ready

    def __call__(self, name: str, *words: Any, gpu: int | None = None) -> Any:
        if name == "nvmlSystemGetConfComputeState":
            return SimpleNamespace(environment=PRODUCTION, ccFeature=1, devToolsMode=0)
        if name == "nvmlSystemGetConfComputeSettings":
            settings = words[0]._obj
            settings.environment, settings.ccFeature = PRODUCTION, 1
            return 0
        return super().__call__(name, *words, gpu=gpu)


@pytest.mark.parametrize("expected", [False, True])
def test_evidence_is_of_gpus_that_are_as_ready_as_they_should_be(expected: bool) -> None:
    found = nvml.collect(Machine(int(expected)), 0, "hopper", bytes(32), ready=expected)
    assert found == nvml.Collected(None, ())  # type: ignore[arg-type] # the driver here tells no version


@pytest.mark.parametrize(("expected", "reason"), [(False, "gpu-ready-early"), (True, "gpu-ready-failed")])
def test_or_there_is_none(expected: bool, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        nvml.collect(Machine(int(not expected)), 0, "hopper", bytes(32), ready=expected)
    assert caught.value.reason == reason
