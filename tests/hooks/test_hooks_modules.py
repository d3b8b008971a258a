"""Loading kernel modules: in the list's order, forgiving only what is there already or has no device."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fakeguest import Guest
from stage.modules import listed, load

from tinboot.formats.config_schema import Config, Shim

PATHS = ["/usr/lib/modules/6/b.ko", "/usr/lib/modules/6/a.ko"]


@pytest.mark.parametrize("number", [0, errno.EEXIST, errno.ENODEV])
def test_order(guest: Guest, number: int) -> None:
    if number:
        guest.kernel.fail["load_module"] = OSError(number, "")
    load(guest.kernel, PATHS)
    assert [call[1] for call in guest.kernel.calls] == PATHS


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.EINVAL, errno.EKEYREJECTED])
def test_failure(guest: Guest, number: int) -> None:
    guest.kernel.fail["load_module"] = OSError(number, "")
    with pytest.raises(OSError, match=f"Errno {number}"):
        load(guest.kernel, PATHS)


@pytest.mark.parametrize("services", [False, True])
def test_the_last_but_one_hook_loads_the_late_ones_and_mounts_configfs(guest: Guest, services: bool) -> None:
    """Those for services where the config has some, and then the root is told so."""
    guest.state.config = Config(1, 64, shim=Shim(8080) if services else None)
    (Path(guest.places.root) / "usr/lib/tinboot").mkdir(parents=True)
    Path(guest.places.modules).write_text("/a.ko\n\n/b.ko\n/c.ko\n\n/d.ko\n")
    assert listed(guest.places.modules).early == ["/a.ko"]
    assert guest.run("80-modules") == {}
    *loaded, mounted = guest.kernel.calls
    assert loaded == [("load_module", path) for path in ("/b.ko", "/c.ko", "/d.ko")[: 3 if services else 2]]
    assert (guest.sealed / "services").exists() == services
    assert mounted[:4] == ("mount", "configfs", f"{guest.places.sys}/kernel/config", "configfs")


def test_a_list_of_two_parts_is_refused(guest: Guest) -> None:
    (Path(guest.places.root) / "usr/lib/tinboot").mkdir(parents=True)
    Path(guest.places.modules).write_text("/a.ko\n\n/b.ko\n")
    with pytest.raises(ValueError, match="not in list"):
        listed(guest.places.modules)
