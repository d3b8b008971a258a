"""The test archive's part of the stub GPUs, what the image is told of them, and how the hook lays it out."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import stub_gpu_files
import stub_nvidia
from gpu_faults import FAULTS, Faults, good
from stage.kernel import MS_BIND, Kernel
from stage.places import Places
from stage.state import State
from stub_gpu_report import Contents
from stubs import gpu_hook

from tinboot.builder import places
from tinboot.formats import cpio, gpureference

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KNOWN = stub_gpu_files.known(NOW)
FILES = ("vendor", "device", "class")
FOLDER = f"{stub_gpu_files.FOLDER}/"

#: Vendor, device and class of what is at each address.
BUS = {"0000:81:00.0": (0x10DE, 0x2331, 0x030200), "0000:82:00.0": (0x10DE, 0x2331, 0x030200)}


def listed(entries: tuple[cpio.Entry, ...]) -> dict[str, cpio.Entry]:
    return {e.path.removeprefix(FOLDER): e for e in entries if e.path.startswith(FOLDER)}


def test_what_is_in_it() -> None:
    entries = stub_gpu_files.entries(good(), KNOWN)
    cpio.write(cpio.with_parents(entries))
    found = listed(entries)
    rest = {e.path for e in entries} - {FOLDER + name for name in found}
    assert rest == {"usr/lib/tinboot/hooks/35-stub-gpu"}
    assert {n for n in found if not n.startswith(("pci", "known/"))} == {
        *("libnvidia-ml.so.1", "nvidia-persistenced")
    }
    assert {n.removeprefix("known/") for n in found if n.startswith("known/")} == set(KNOWN)
    for name in ("libnvidia-ml.so.1", "nvidia-persistenced"):
        assert found[name].data[:4] == b"\x7fELF"
        assert stat.S_IMODE(found[name].mode) == 0o755


def test_nothing_in_place_of_library_and_daemon() -> None:
    found = listed(stub_gpu_files.entries(good(), KNOWN, library=b"", persistenced=b""))
    for name in ("libnvidia-ml.so.1", "nvidia-persistenced"):
        assert (found[name].data, stat.S_IMODE(found[name].mode)) == (b"", 0o644)


def test_with_functions_that_qemu_shows() -> None:
    assert not [name for name in listed(stub_gpu_files.entries(good(), KNOWN, on_bus=False)) if "pci" in name]


def on_bus(faults: Faults) -> dict[str, tuple[int, int, int]]:
    return {address: one[:3] for address, one in stub_gpu_files.functions(faults).items()}


def test_what_is_on_the_bus() -> None:
    assert on_bus(good()) == on_bus(FAULTS["more-by-nvml"]) == BUS
    assert [len(on_bus(FAULTS[name])) for name in ("none", "fewer", "more")] == [0, 1, 3]
    assert dict(on_bus(FAULTS["foreign"]).items() - BUS.items()) == {
        "0000:c1:00.0": (0x1002, 0x1636, 0x030000)
    }


def test_runs_behind_the_volumes_and_before_the_gate() -> None:
    hooks = sorted(p.name for p in (places.REPOSITORY / "initrd-hooks").iterdir() if p.name[0].isdigit())
    at = sorted([*hooks, stub_gpu_files.HOOK]).index(stub_gpu_files.HOOK)
    assert hooks[at - 1 : at + 1] == ["30-volumes", "40-gpu"]


def test_the_image_knows_good_gpus() -> None:
    values = gpureference.parse(KNOWN["reference-values.json"])
    assert values.created < NOW
    (driver,) = (rim for rim in values.rims if rim.kind == "driver")
    (vbios,) = (rim for rim in values.rims if rim.kind == "vbios")
    measured = Contents().measurements()
    for index, digests in {**driver.measurements, **vbios.measurements}.items():
        assert measured[index].hex() in digests
    assert {f"rims/{rim.id}.xml" for rim in values.rims} == {n for n in KNOWN if n.startswith("rims/")}
    assert KNOWN["device-root.pem"] == stub_nvidia.pem(stub_nvidia.chain().der()[-1:])


def test_it_knows_others_too() -> None:
    """The wrong ones of `driver-unknown` and `vbios-unknown` are wrong for this alone."""
    contents = (Contents(driver="550.54.99"), Contents(vbios="96.00.EE.00.01"))
    files = stub_gpu_files.known(NOW, "HOPPER", "BLACKWELL", contents=contents)
    values = gpureference.parse(files["reference-values.json"])
    assert sorted(rim.version for rim in values.rims) == [
        *("550.54.99", "550.90.07", "595.91.07", "96.00.9F.00.01", "96.00.EE.00.01", "97.00.E4.00.1E")
    ]


class Mounts:
    """Mounts as far as files show them: a tmpfs is an empty folder, a bind is told."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        if flags == MS_BIND:
            assert Path(target).is_file()
            assert not Path(target).is_symlink()
            self.bound[target] = source
        else:
            assert kind == "tmpfs"
            shutil.rmtree(target)
            Path(target).mkdir()


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A root as Debian's recipe makes it, and a PCI bus with one function."""
    library = tmp_path / "sysroot/usr/lib/x86_64-linux-gnu"
    (library / "nvidia/current").mkdir(parents=True)
    (library / "nvidia/current/libnvidia-ml.so.550").write_bytes(b"real")
    (library / "nvidia/current/libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.550")
    (library / "libnvidia-ml.so.1").symlink_to("nvidia/current/libnvidia-ml.so.1")
    (tmp_path / "sysroot/usr/bin").mkdir()
    (tmp_path / "sysroot/usr/bin/nvidia-persistenced").write_bytes(b"real")
    known = tmp_path / "sysroot/usr/lib/tinboot/gpu"
    known.mkdir(parents=True)
    (known / "device-root.pem").write_bytes(b"NVIDIA's")
    bus = tmp_path / "sys/bus/pci/devices"
    bus.mkdir(parents=True)
    function = tmp_path / "sys/devices/pci0000:00/0000:00:00.0"
    function.mkdir(parents=True)
    (function / "vendor").write_text("0x8086\n")
    (bus / "0000:00:00.0").symlink_to("../../../devices/pci0000:00/0000:00:00.0")
    return tmp_path


def unpack(entries: tuple[cpio.Entry, ...], folder: Path) -> None:
    for entry in cpio.with_parents(entries):
        path = folder / entry.path
        if stat.S_ISDIR(entry.mode):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.data)


def run(guest: Path, entries: tuple[cpio.Entry, ...]) -> dict[str, str]:
    """What is bound where, below `guest`."""
    unpack(entries, guest)
    kernel = Mounts()
    state = State(cast("Kernel", kernel), Places(str(guest)), [], 0.0)
    assert gpu_hook.run(state) == {"stub": "gpu"}
    return {target.removeprefix(f"{guest}/"): Path(source).name for target, source in kernel.bound.items()}


def test_the_hook_lays_them_over_the_root(guest: Path) -> None:
    bound = run(guest, stub_gpu_files.entries(good(), KNOWN))
    assert bound == {
        "sysroot/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550": "libnvidia-ml.so.1",
        "sysroot/usr/bin/nvidia-persistenced": "nvidia-persistenced",
    }
    folder = guest / "sysroot/usr/lib/tinboot/gpu"
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == KNOWN


def test_the_hook_adds_to_the_bus(guest: Path) -> None:
    run(guest, stub_gpu_files.entries(FAULTS["foreign"], KNOWN))
    bus = guest / "sys/bus/pci/devices"
    assert (bus / "0000:00:00.0/vendor").read_text() == "0x8086\n"
    made = {p.name: p for p in bus.iterdir() if p.name != "0000:00:00.0"}
    assert {name: [(path / f).read_text() for f in FILES] for name, path in made.items()} == {
        "0000:81:00.0": ["0x10de\n", "0x2331\n", "0x030200\n"],
        "0000:82:00.0": ["0x10de\n", "0x2331\n", "0x030200\n"],
        "0000:c1:00.0": ["0x1002\n", "0x1636\n", "0x030000\n"],
    }


def test_the_hook_leaves_a_bus_that_qemu_fills(guest: Path) -> None:
    run(guest, stub_gpu_files.entries(good(), KNOWN, on_bus=False))
    assert [p.name for p in (guest / "sys/bus/pci/devices").iterdir()] == ["0000:00:00.0"]


def test_a_link_does_not_lead_out_of_the_root(guest: Path) -> None:
    library = guest / "sysroot/usr/lib/x86_64-linux-gnu"
    (library / "libnvidia-ml.so.1").unlink()
    (library / "libnvidia-ml.so.1").symlink_to("/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550")
    assert gpu_hook.resolve(str(guest / "sysroot"), "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1") == str(
        library / "nvidia/current/libnvidia-ml.so.550"
    )
    (library / "libnvidia-ml.so.1").unlink()
    (library / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.1")
    with pytest.raises(OSError, match="too many links"):
        gpu_hook.resolve(str(guest / "sysroot"), "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
