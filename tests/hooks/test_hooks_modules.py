"""Loading kernel modules: in the list's order, forgiving only what is there already or has no device."""

from __future__ import annotations

import errno

import pytest
from fakeguest import Guest
from stage.worker import load_modules, mount_configfs

PATHS = ["/usr/lib/modules/6/b.ko", "/usr/lib/modules/6/a.ko"]


@pytest.mark.parametrize("number", [0, errno.EEXIST, errno.ENODEV])
def test_order(guest: Guest, number: int) -> None:
    if number:
        guest.kernel.fail["load_module"] = OSError(number, "")
    load_modules(guest.kernel, PATHS)
    assert [call[1] for call in guest.kernel.calls] == PATHS


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.EINVAL, errno.EKEYREJECTED])
def test_failure(guest: Guest, number: int) -> None:
    guest.kernel.fail["load_module"] = OSError(number, "")
    with pytest.raises(OSError, match=f"Errno {number}"):
        load_modules(guest.kernel, PATHS)


def test_configfs_is_where_the_root_looks_for_it(guest: Guest) -> None:
    mount_configfs(guest.kernel, guest.places)
    ((_, source, target, kind, _, _),) = guest.kernel.calls
    assert (source, target, kind) == ("configfs", f"{guest.places.sys}/kernel/config", "configfs")
