"""The launch manifest: a launch digest's ingredients, for any number of vCPUs, in two kilobytes.

The firmware's pages, megabytes of them, enter the digest first, so the digest after them stands for them.
What follows is small: the firmware's sections, the page of kernel hashes, and the vCPUs' first state.

    {"features": 1,
     "firmware": {"digest": "<96 hex digits>", "hash_table": {"base", "size"} | absent,
                  "reset_eip": n | absent, "sections": [{"gpa", "kind", "size"}], "size": bytes},
     "kernel": {"command_line", "initrd", "kernel": SHA-256 in hex} | absent,
     "schema": 1, "signature": n, "vmm": "QEMU" | "ec2" | "gce"}

Who has it computes every digest without firmware, kernel or initrd; who has those checks the hashes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from tinboot.formats import kernelhashes, launchdigest, ovmf
from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object
from tinboot.formats.launchdigest import Vcpu

SCHEMA = 1

#: Bytes. Eight sections take one kilobyte.
LIMIT = 64 << 10


class KernelHashes(NamedTuple):
    """SHA-256 digests, 32 bytes each; the command line's covers its NUL."""

    kernel: bytes
    initrd: bytes
    command_line: bytes


class LaunchManifest(NamedTuple):
    """`digest`: after the firmware's pages, 48 bytes. `kernel` is None where the guest boots from a disk."""

    firmware: ovmf.Firmware
    digest: bytes
    kernel: KernelHashes | None
    vcpu: Vcpu

    def digests(self, most: int) -> Iterator[bytes]:
        """The launch digest for 1, 2, … `most` vCPUs; raises `Refused` for what cannot be measured."""
        before = launchdigest.sections(self.digest, self.firmware.sections, self._page(), self.vcpu.vmm)
        yield from launchdigest.vcpus(before, self.vcpu, self.firmware.reset_eip, most)

    def launch_digest(self, vcpus: int) -> bytes:
        """The launch digest for that many vCPUs."""
        *_, last = self.digests(vcpus)
        return last

    def _page(self) -> bytes | None:
        if self.kernel is None:
            return None
        base = ovmf.kernel_hashes_at(self.firmware)
        return kernelhashes.page(kernelhashes.table(*self.kernel), base)

    def dump(self) -> bytes:
        """The file; raises `Malformed` where `load` would not give the same manifest back."""
        firmware: dict[str, object] = {
            "digest": self.digest.hex(),
            "sections": [section._asdict() for section in self.firmware.sections],
            "size": self.firmware.size,
        }
        if self.firmware.reset_eip is not None:
            firmware["reset_eip"] = self.firmware.reset_eip
        if self.firmware.hash_table is not None:
            base, size = self.firmware.hash_table
            firmware["hash_table"] = {"base": base, "size": size}
        members: dict[str, object] = {
            "schema": SCHEMA,
            "firmware": firmware,
            "vmm": self.vcpu.vmm,
            "signature": self.vcpu.signature,
            "features": self.vcpu.features,
        }
        if self.kernel is not None:
            members["kernel"] = {name: digest.hex() for name, digest in self.kernel._asdict().items()}
        data = json.dumps(members, indent=2, sort_keys=True).encode() + b"\n"
        if load(data) != self:
            raise Malformed("the launch manifest does not survive writing and reading")
        return data


def load(data: bytes) -> LaunchManifest:
    """Raises `Malformed` for anything but what `dump` writes."""
    fields = parse_object("launch manifest", data, LIMIT)
    fields.integer("schema", SCHEMA, SCHEMA)
    vmm = fields.text("vmm")
    if vmm not in launchdigest.VMMS:
        raise Malformed(f"launch manifest.vmm is {vmm!r}, expected one of {', '.join(launchdigest.VMMS)}")
    signature = fields.integer("signature", 0, (1 << 32) - 1)
    features = fields.integer("features", 0, (1 << 64) - 1)
    firmware = fields.record("firmware")
    digest = bytes.fromhex(firmware.hexadecimal("digest", 2 * launchdigest.SIZE))
    parsed = ovmf.checked(
        ovmf.Firmware(
            size=firmware.integer("size", ovmf.PAGE, ovmf.MAX_SIZE),
            sections=tuple(_section(section) for section in firmware.records("sections")),
            reset_eip=firmware.integer("reset_eip", 1, ovmf.TOP - 1)
            if "reset_eip" in firmware.names
            else None,
            hash_table=_hash_table(firmware.record("hash_table")) if "hash_table" in firmware.names else None,
        )
    )
    firmware.end()
    kernel = _kernel(fields.record("kernel")) if "kernel" in fields.names else None
    fields.end()
    return LaunchManifest(parsed, digest, kernel, Vcpu(signature, features, vmm))


def _section(fields: Fields) -> ovmf.Section:
    highest = ovmf.TOP - 1
    section = ovmf.Section(*(fields.integer(name, 0, highest) for name in ("gpa", "size", "kind")))
    fields.end()
    return section


def _hash_table(fields: Fields) -> tuple[int, int]:
    found = fields.integer("base", 1, ovmf.TOP - 1), fields.integer("size", 1, ovmf.PAGE)
    fields.end()
    return found


def _kernel(fields: Fields) -> KernelHashes:
    digests = (bytes.fromhex(fields.hexadecimal(name, 64)) for name in KernelHashes._fields)
    found = KernelHashes(*digests)
    fields.end()
    return found
