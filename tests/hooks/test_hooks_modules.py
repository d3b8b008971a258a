"""Loading kernel modules: in the list's order, forgiving only what is there already or has no device."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fakeguest import Guest
from stage.worker import load_modules


def listing(folder: Path) -> str:
    file = folder / "modules"
    file.write_text("/usr/lib/modules/6/b.ko\n/usr/lib/modules/6/a.ko\n")
    return str(file)


@pytest.mark.parametrize("number", [0, errno.EEXIST, errno.ENODEV])
def test_order(guest: Guest, tmp_path: Path, number: int) -> None:
    if number:
        guest.kernel.fail["load_module"] = OSError(number, "")
    load_modules(guest.kernel, listing(tmp_path))
    paths = [call[1] for call in guest.kernel.calls]
    assert paths == ["/usr/lib/modules/6/b.ko", "/usr/lib/modules/6/a.ko"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.EINVAL, errno.EKEYREJECTED])
def test_failure(guest: Guest, tmp_path: Path, number: int) -> None:
    guest.kernel.fail["load_module"] = OSError(number, "")
    with pytest.raises(OSError, match=f"Errno {number}"):
        load_modules(guest.kernel, listing(tmp_path))
