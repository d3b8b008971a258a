"""A launch specification: one that could not be measured or would not start is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import cmdline, launchspec
from tinboot.formats.errors import Refused
from tinboot.formats.launchspec import Disk, Forward, LaunchSpec, Measured

LINE = cmdline.CommandLine("c" * 64, "a" * 64, "b" * 64, 300)
CONFIG = Disk("config", "/b/config.disk", "tinboot-config")
ROOT = Disk("root", "/b/root.raw", "a" * 20)
OCSP = Disk("gpu-ocsp", "/b/ocsp.disk", "tinboot-gpu-ocsp")
OPERATOR = Disk("operator", "/b/operator.json", "tinboot-operator")
MEASURED = Measured("/b/OVMF.fd", "/b/vmlinuz", "/b/initrd", LINE, 4)
SPEC = LaunchSpec(MEASURED, 4096, (CONFIG, ROOT))


def volumes(count: int) -> tuple[Disk, ...]:
    return tuple(Disk("volume", f"/v/{n}", f"{n:020x}") for n in range(count))


def test_valid() -> None:
    full = SPEC._replace(
        disks=(CONFIG, ROOT, *volumes(23), OCSP),
        gpus=tuple(f"0000:{bus:02x}:00.0" for bus in range(8)),
        forwards=(Forward("127.0.0.1", 8443, 443),),
    )
    assert launchspec.validate(full) is full
    assert launchspec.validate(SPEC._replace(measured=MEASURED._replace(firmware=None)))


def test_command_line_is_the_templates() -> None:
    text = launchspec.command_line(SPEC)
    assert cmdline.parse(text) == LINE
    assert "\0" not in text
    assert not text.endswith(cmdline.FIRMWARE_SUFFIX)


BAD_MEASURED = [
    (MEASURED._replace(vcpus=0), "vcpus is 0"),
    (MEASURED._replace(vcpus=256), "vcpus is 256"),
    (MEASURED._replace(vcpu_model="host"), "vCPU model is 'host'"),
    (MEASURED._replace(vcpu_model="max"), "vCPU model is 'max'"),
    (MEASURED._replace(vcpu_model="EPYC-v4,+foo"), "vCPU model"),
    (MEASURED._replace(guest_features=0), "guest features are 0x0"),
    (MEASURED._replace(guest_features=0x3), "guest features are 0x3"),
    (MEASURED._replace(vmm="ec2"), "VMM is 'ec2'"),
    (MEASURED._replace(kernel=""), "path of kernel"),
    (MEASURED._replace(initrd="/b/in\nitrd"), "path of initrd"),
    (MEASURED._replace(firmware="/b/\0"), "path of firmware"),
    (
        MEASURED._replace(command_line=LINE._replace(root_hash="A" * 64)),
        "the command line: tinboot.root-hash",
    ),
]


@pytest.mark.parametrize(("measured", "message"), BAD_MEASURED, ids=[m for _, m in BAD_MEASURED])
def test_refuses_what_could_not_be_measured(measured: Measured, message: str) -> None:
    with pytest.raises(Refused) as caught:
        launchspec.validate(SPEC._replace(measured=measured))
    assert message in caught.value.message


BAD_SPECS = [
    (SPEC._replace(memory=63), "memory is 63 MiB"),
    (SPEC._replace(memory=(16 << 20) + 1), "memory is 16777217 MiB"),
    (SPEC._replace(policy=0x10000), "bit 17 must be one"),
    (SPEC._replace(policy=0x4030000), "every bit from 26 on zero"),
    (SPEC._replace(policy=-1), "policy is -0x1"),
    (SPEC._replace(policy=0xB0000), "bit 19 (debug)"),
    (SPEC._replace(policy=0x70000), "bit 18 (migration agent)"),
    (SPEC._replace(disks=(CONFIG,)), "0 disks have the role root"),
    (SPEC._replace(disks=(ROOT,)), "0 disks have the role config"),
    (SPEC._replace(disks=(CONFIG, ROOT, CONFIG._replace(serial="other"))), "2 disks have the role config"),
    (SPEC._replace(disks=(CONFIG, ROOT, Disk("scratch", "/s", "s"))), "has the role 'scratch'"),
    (
        SPEC._replace(disks=(CONFIG, ROOT, *volumes(25))),
        "25 disks beside config and root, expected at most 24",
    ),
    (SPEC._replace(disks=(CONFIG, ROOT, *volumes(24), OCSP)), "25 disks beside config and root"),
    (SPEC._replace(disks=(CONFIG, ROOT, OCSP, OCSP)), "2 disks of OCSP responses, expected one"),
    (SPEC._replace(disks=(CONFIG, ROOT, OPERATOR, OPERATOR)), "2 disks of operator's input, expected one"),
    (
        SPEC._replace(disks=(CONFIG, ROOT, OPERATOR._replace(serial="operator"))),
        "operator's serial is 'operator', expected 'tinboot-operator'",
    ),
    (
        SPEC._replace(disks=(CONFIG, ROOT, OCSP._replace(serial="ocsp"))),
        "gpu-ocsp's serial is 'ocsp', expected 'tinboot-gpu-ocsp'",
    ),
    (
        SPEC._replace(disks=(CONFIG, ROOT, Disk("volume", "/v", ROOT.serial))),
        "two disks have the serial aaaa",
    ),
    (SPEC._replace(disks=(CONFIG, ROOT, Disk("volume", "/v", "0" * 21))), "expected 1 to 20"),
    (SPEC._replace(disks=(CONFIG, ROOT, Disk("volume", "/v", ""))), "expected 1 to 20"),
    (SPEC._replace(disks=(CONFIG, ROOT, Disk("volume", "/v", "a,b"))), "expected 1 to 20"),
    (SPEC._replace(disks=(CONFIG, ROOT, Disk("volume", "/v\n", "a"))), "path of volume"),
    (SPEC._replace(disks=(CONFIG._replace(serial="config"), ROOT)), "config's serial is 'config'"),
    (SPEC._replace(gpus=tuple(f"0000:{bus:02x}:00.0" for bus in range(9))), "9 GPUs"),
    (SPEC._replace(gpus=("41:00.0",)), "'41:00.0' is not a PCI address"),
    (SPEC._replace(gpus=("0000:41:00.0,x-foo=on",)), "is not a PCI address"),
    (SPEC._replace(gpus=("0000:41:00.0", "0000:41:00.0")), "given twice"),
    (SPEC._replace(forwards=(Forward("localhost", 1, 1),)), "'localhost', expected an IPv4"),
    (SPEC._replace(forwards=(Forward("127.0.0.256", 1, 1),)), "expected an IPv4"),
    (SPEC._replace(forwards=(Forward("127.0.0.1", 0, 443),)), "port 0 is forwarded to 443"),
    (SPEC._replace(forwards=(Forward("127.0.0.1", 8443, 65536),)), "to 65536"),
    (
        SPEC._replace(forwards=(Forward("127.0.0.1", 8443, 1), Forward("127.0.0.1", 8443, 2))),
        "forwarded twice",
    ),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS, ids=[m for _, m in BAD_SPECS])
def test_refuses_what_would_not_start(spec: LaunchSpec, message: str) -> None:
    with pytest.raises(Refused) as caught:
        launchspec.validate(spec)
    assert message in caught.value.message


@given(st.integers(1, 255), st.sampled_from(launchspec.FEATURES), st.sampled_from(["EPYC", "EPYC-Genoa-v2"]))
def test_every_measured_value_in_range_is_taken(vcpus: int, features: int, model: str) -> None:
    measured = MEASURED._replace(vcpus=vcpus, guest_features=features, vcpu_model=model)
    assert launchspec.validate(SPEC._replace(measured=measured)).measured == measured
