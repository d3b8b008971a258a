"""Boots with stub GPUs: two that pass, and every class of fault, which no GPU becomes ready by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stub_gpu_files
from boot import BootResult
from gpu import Gpus
from gpu_faults import Faults, good

if TYPE_CHECKING:
    from guest import Guest

Boot = Callable[..., tuple[BootResult, Gpus]]


@pytest.fixture
def boot(guest: Guest, disk_dir: Path) -> Boot:
    """`boot(faults, *lines)`: a machine with such GPUs, whose config asks for two of them."""

    def start(faults: Faults, *lines: str, **more: object) -> tuple[BootResult, Gpus]:
        with Gpus(faults) as gpus:
            known = stub_gpu_files.known(datetime.now(UTC))
            asking = guest.with_gpus(gpus, known, disk_dir, *lines)
            return asking.boot(**more), gpus  # type: ignore[arg-type]

    return start


def test_two_good_gpus(boot: Boot) -> None:
    result, gpus = boot(good())
    up = result.expect_up()
    assert gpus.ready == 1
    sealed = up["boot"]
    assert isinstance(sealed, dict)
    found = {hook["hook"]: hook["found"] for hook in sealed["hooks"]}["40-gpu"]
    assert found["gpus"] == 2
    print(json.dumps(found), hashlib.sha256(b"").hexdigest())
