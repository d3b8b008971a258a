"""Arguments for QEMU: golden files for each shape, the table of reasons, and escaping."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import cmdline
from tinboot.formats.errors import Refused
from tinboot.formats.launchspec import SNP_DEBUG_SWAP, Disk, Forward, LaunchSpec, Measured
from tinboot.host.launch import Form, option, qemu_arguments

GOLDEN = Path(__file__).parent / "golden"
TABLE = Path(__file__).parents[2] / "docs" / "launch.md"

LINE = cmdline.CommandLine("c" * 64, "a" * 64, "b" * 64, 41_000)
MEASURED = Measured("/srv/OVMF.fd", "/srv/build/vmlinuz", "/srv/build/initrd", LINE, 16)
DISKS = (
    Disk("config", "/srv/build/config.disk", "tinboot-config"),
    Disk("root", "/srv/build/root.raw", "a" * 20),
    Disk("volume", "/srv/models/one, two.raw", "d" * 20),
)
SPEC = LaunchSpec(MEASURED, 131_072, DISKS)


def gpus(count: int) -> tuple[str, ...]:
    return tuple(f"0000:{0x41 + at:02x}:00.0" for at in range(count))


SHAPES: dict[str, tuple[LaunchSpec, Form]] = {
    "no-gpu": (SPEC, Form.PRODUCTION),
    "one-gpu": (SPEC._replace(gpus=gpus(1)), Form.PRODUCTION),
    "eight-gpus": (
        SPEC._replace(
            memory=1_048_576,
            gpus=gpus(8),
            forwards=(Forward("127.0.0.1", 8443, 443), Forward("0.0.0.0", 8444, 444)),  # noqa: S104 - an input
        ),
        Form.PRODUCTION,
    ),
    "harness": (SPEC._replace(measured=MEASURED._replace(firmware=None), memory=1024), Form.HARNESS),
    "harness-firmware": (SPEC._replace(memory=1024), Form.HARNESS),
}


def rendered(name: str) -> list[str]:
    spec, form = SHAPES[name]
    return qemu_arguments(spec, form)


@pytest.mark.parametrize("name", SHAPES)
def test_golden(name: str) -> None:
    """As `tinboot launch --dry-run` prints them: one argument a line, quoted for a shell."""
    lines = "".join(f"{shlex.quote(argument)}\n" for argument in rendered(name))
    assert lines == (GOLDEN / f"{name}.txt").read_text()


def properties(arguments: list[str]) -> set[tuple[str, str]]:
    """(option and driver, property) for every word of the arguments; "" for the option itself."""
    found: set[tuple[str, str]] = set()
    words = iter(arguments[1:])
    for word in words:
        if word not in {"-machine", "-cpu", "-object", "-blockdev", "-device", "-netdev", "-fw_cfg"}:
            if word.startswith("-"):
                found.add((word, ""))
            continue
        first, *rest = re.split("(?<!,),(?!,)", next(words))
        if "=" in first:
            head, rest = word, [first, *rest]
        else:
            head = f"{word} {'MODEL' if word == '-cpu' and first != 'max' else first}"
            found.add((head, ""))
        found |= {(head, item.split("=", 1)[0]) for item in rest}
    return found


def documented() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for line in TABLE.read_text().splitlines():
        match = re.fullmatch(r"\| `(-[^`]+)` \|([^|]*)\| .{5,} \|", line)
        if match:
            found |= {(match[1], name) for name in re.findall("`([^`]+)`", match[2]) or [""]}
    return found


def test_every_property_has_its_reason() -> None:
    used = set[tuple[str, str]]().union(*(properties(rendered(name)) for name in SHAPES))
    assert used == documented()


@pytest.mark.parametrize("name", SHAPES)
def test_no_disk_is_writable_and_no_device_brings_a_rom(name: str) -> None:
    arguments = rendered(name)
    for at, word in enumerate(arguments):
        if word == "-blockdev":
            assert ",read-only=on," in arguments[at + 1]
        if word == "-device" and not arguments[at + 1].startswith("pcie-root-port,"):
            assert re.search(r",(romfile=|rombar=0)$", arguments[at + 1])
    assert not {"-drive", "-hda", "-cdrom", "-smbios", "-pflash", "-monitor", "-qmp"} & set(arguments)
    assert "-no-reboot" in arguments
    assert "-nodefaults" in arguments


def test_slots_are_unique_at_full_size() -> None:
    volumes = tuple(Disk("volume", f"/v/{n}", f"{n:020x}") for n in range(24))
    full = SPEC._replace(
        disks=(*DISKS[:2], *volumes), gpus=gpus(8), forwards=(Forward("127.0.0.1", 8443, 443),)
    )
    slots = re.findall(r",addr=(\S+?),", " ".join(qemu_arguments(full, Form.PRODUCTION)))
    assert len(slots) == len(set(slots)) == 26 + 8 + 1
    assert all(0 < int(slot.partition(".")[0], 16) < 31 for slot in slots)


@given(st.text(min_size=1), st.text(st.sampled_from(",=ab"), min_size=1))
def test_a_value_cannot_become_another_property(plain: str, commas: str) -> None:
    for value in (plain, commas):
        text = option("driver", {"key": value, "last": "1"})
        body = text.removeprefix("driver,key=").removesuffix(",last=1")
        assert body.replace(",,", "") == value.replace(",", "")
        assert body.replace(",,", ",") == value


@pytest.mark.parametrize(
    ("count", "window"),
    [(1, 262_144), (2, 524_288), (3, 524_288), (4, 1_048_576), (7, 1_048_576), (8, 2_097_152)],
)
def test_window_holds_every_bar_and_is_a_power_of_two(count: int, window: int) -> None:
    arguments = qemu_arguments(SPEC._replace(gpus=gpus(count)), Form.PRODUCTION)
    assert arguments[arguments.index("-fw_cfg") + 1] == f"name=opt/ovmf/X-PciMmio64Mb,string={window}"
    assert window > count * 131_072


@pytest.mark.parametrize(
    ("memory", "count", "host_bits"),
    [
        (131_072, 0, False),
        (131_072, 1, False),
        ((1012 - 36) << 10, 0, False),
        (((1012 - 36) << 10) + 1, 0, True),
        (131_072, 2, False),
        (600_000, 2, True),
        (131_072, 4, True),
    ],
)
def test_host_bits_only_where_forty_do_not_do(memory: int, count: int, host_bits: bool) -> None:
    arguments = qemu_arguments(SPEC._replace(memory=memory, gpus=gpus(count)), Form.PRODUCTION)
    model = arguments[arguments.index("-cpu") + 1]
    assert model == ("EPYC-v4,host-phys-bits=on" if host_bits else "EPYC-v4")


@pytest.mark.parametrize(
    ("spec", "form", "message"),
    [
        (SPEC._replace(measured=MEASURED._replace(firmware=None)), Form.PRODUCTION, "no firmware"),
        (
            SPEC._replace(measured=MEASURED._replace(guest_features=SNP_DEBUG_SWAP)),
            Form.PRODUCTION,
            "features are 0x21",
        ),
        (SPEC._replace(gpus=gpus(1)), Form.HARNESS, "harness form has none"),
        (SPEC._replace(memory=1), Form.HARNESS, "memory is 1 MiB"),
    ],
    ids=["firmware", "features", "gpu", "invalid"],
)
def test_refuses(spec: LaunchSpec, form: Form, message: str) -> None:
    with pytest.raises(Refused, match=message):
        qemu_arguments(spec, form)


def test_what_is_measured_is_the_same_in_both_forms() -> None:
    forms = [qemu_arguments(SPEC, form) for form in Form]
    for name in ("-bios", "-kernel", "-initrd", "-append", "-smp"):
        values = {arguments[arguments.index(name) + 1] for arguments in forms}
        assert len(values) == 1
