"""TEST ONLY, never in a production image: the hook that puts a stub PSP in the guest.

It runs behind 80-modules, so that the root finds what a kernel on SNP hardware would show: /dev/sev-guest
where the archive holds cuse.ko, else configfs-tsm.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stage.state import State
    from stubs.cuse_sev_guest import Device
    from stubs.fuse_tsm import FileSystem

FOLDER = "/usr/lib/tinboot-test"
MODULE = f"{FOLDER}/cuse.ko"
REPORTS = "/sys/kernel/config/tsm/report"


def run(state: State) -> dict[str, object]:
    sys.path.append(FOLDER)
    stub = made(state)
    if os.fork():
        return {"stub": type(stub).__module__}
    os.setsid()
    try:
        stub.serve()
    finally:
        os._exit(1)


def made(state: State) -> Device | FileSystem:
    if os.path.exists(MODULE):
        from stubs.cuse_sev_guest import Device

        state.kernel.load_module(MODULE)
        return Device()
    from stubs.fuse_tsm import FileSystem

    return FileSystem(state.kernel, REPORTS)
