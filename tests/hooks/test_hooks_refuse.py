"""Each hook against a guest made of files: what passes, and every refusal by its reason."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakeguest import BLOCK, UUID_TEXT, Guest, erofs, with_tree

from tinboot.formats import bootlog, cmdline, configdisk
from tinboot.formats import verity as form
from tinboot.formats.config import load
from tinboot.formats.halt import Refusal
from tinboot.formats.verity import Verity

SALT = bytes(range(32))
REPO = "org/model@0123456789abcdef0123456789abcdef01234567"
MODEL_SALT = hashlib.sha256(REPO.encode()).digest()
#: One block has no tree, 129 blocks have two levels.
SIZES = (1, 2, 128, 129)


def refused(guest: Guest, hook: str) -> str:
    with pytest.raises(Refusal) as caught:
        guest.run(hook)
    return caught.value.reason


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def config(models: str = "", gpus: int = 0) -> bytes:
    return CONFIG.replace("GPUS", str(gpus)).replace("MODELS", models or "[]").encode()


CONFIG = """\
cpus: 2
memory: 1024
gpus: GPUS
models: MODELS
"""


class TestConfig:
    @pytest.fixture
    def ready(self, guest: Guest) -> Guest:
        data = config()
        line = cmdline.CommandLine(hashlib.sha256(data).hexdigest(), "a" * 64, "b" * 64, 7)
        (guest.proc / "cmdline").write_text(cmdline.render(line) + cmdline.FIRMWARE_SUFFIX + "\n")
        (guest.proc / "meminfo").write_text("MemTotal:         985012 kB\nMemFree: 1 kB\n")
        guest.disk("vda", configdisk.SERIAL, configdisk.pad(data))
        return guest

    def test_passes(self, ready: Guest) -> None:
        found = ready.run("10-config")
        assert found["config_hash"] == hashlib.sha256(config()).hexdigest()
        assert (ready.sealed / "config.yml").read_bytes() == config()
        assert ready.state.config.gpus == 0
        assert ready.state.line.root_blocks == 7
        assert ready.state.claimed == {"vda"}

    def test_command_line(self, ready: Guest) -> None:
        file = ready.proc / "cmdline"
        file.write_text(file.read_text().replace("quiet", "quiet init=/bin/sh"))
        assert refused(ready, "10-config") == "cmdline-malformed"

    def test_command_line_that_is_not_utf8(self, ready: Guest) -> None:
        file = ready.proc / "cmdline"
        file.write_bytes(file.read_bytes()[:-1] + b"\xff\n")
        assert refused(ready, "10-config") == "cmdline-malformed"

    def test_missing(self, ready: Guest) -> None:
        (ready.block / "vda/serial").unlink()
        assert refused(ready, "10-config") == "config-missing"

    def test_duplicate(self, ready: Guest) -> None:
        ready.disk("vdb", configdisk.SERIAL, b"x" * 512)
        assert refused(ready, "10-config") == "config-duplicate"

    def test_too_large_is_refused_unread(self, ready: Guest) -> None:
        (ready.block / "vda/size").write_text(f"{(1 << 20) // 512 + 1}\n")
        (ready.dev / "vda").unlink()  # reading it would be another error
        assert refused(ready, "10-config") == "config-too-large"

    def test_empty(self, ready: Guest) -> None:
        (ready.block / "vda/size").write_text("0\n")
        assert refused(ready, "10-config") == "config-empty"

    def test_padding(self, ready: Guest) -> None:
        (ready.dev / "vda").write_bytes(config().ljust(511, b"\0") + b"x")
        assert refused(ready, "10-config") == "config-padding"

    def test_one_bit(self, ready: Guest) -> None:
        (ready.dev / "vda").write_bytes(flip(configdisk.pad(config()), 3))
        assert refused(ready, "10-config") == "config-hash-mismatch"

    def test_nothing_is_parsed_before_it_is_hashed(self, ready: Guest) -> None:
        (ready.dev / "vda").write_bytes(b"\xff: [unclosed".ljust(512, b"\0"))
        assert refused(ready, "10-config") == "config-hash-mismatch"

    def test_truncated_disk_is_no_refusal_but_a_failure(self, ready: Guest) -> None:
        (ready.dev / "vda").write_bytes(b"x" * 100)
        with pytest.raises(OSError, match="ends at byte 100"):
            ready.run("10-config")

    @pytest.mark.parametrize(("kib", "ok"), [(832 * 1024, True), (832 * 1024 - 1, False)])
    def test_memory_allows_for_an_eighth_and_64_mib(self, ready: Guest, kib: int, ok: bool) -> None:
        (ready.proc / "meminfo").write_text(f"MemTotal: {kib} kB\n")
        if ok:
            ready.run("10-config")
        else:
            assert refused(ready, "10-config") == "memory-too-small"


class TestRoot:
    def prepare(self, guest: Guest, blocks: int = 129) -> tuple[bytes, Verity]:
        image, verity = with_tree(erofs(blocks), SALT)
        guest.state.line = cmdline.CommandLine("c" * 64, verity.root_hash, verity.salt, verity.blocks)
        guest.disk("vda", verity.root_hash[:20], image)
        return image, verity

    @pytest.mark.parametrize("blocks", SIZES)
    def test_passes(self, guest: Guest, blocks: int) -> None:
        _, verity = self.prepare(guest, blocks)
        assert guest.run("20-root") == {"root_hash": verity.root_hash, "blocks": blocks}
        flags, sectors, kind, text = guest.kernel.tables["root"]
        assert (flags, sectors, kind) == (1, blocks * 8, "verity")
        assert text == (
            f"1 253:16 253:16 4096 4096 {blocks} {blocks + 1} sha256 {verity.root_hash} {SALT.hex()} "
            "2 panic_on_corruption panic_on_error"
        )
        node = f"{guest.places.dev}/mapper/root"
        assert guest.kernel.calls[-1] == ("mount", node, guest.places.sysroot, "erofs", 7, "")

    def test_missing(self, guest: Guest) -> None:
        self.prepare(guest)
        (guest.block / "vda/serial").write_text("0" * 20)
        assert refused(guest, "20-root") == "root-missing"

    def test_duplicate(self, guest: Guest) -> None:
        image, verity = self.prepare(guest)
        guest.disk("vdb", verity.root_hash[:20], image)
        assert refused(guest, "20-root") == "root-duplicate"

    def test_writable(self, guest: Guest) -> None:
        self.prepare(guest)
        (guest.block / "vda/ro").write_text("0\n")
        assert refused(guest, "20-root") == "root-writable"

    @pytest.mark.parametrize("difference", [-8, -1, 1, 8])
    def test_size(self, guest: Guest, difference: int) -> None:
        image, _ = self.prepare(guest)
        (guest.block / "vda/size").write_text(f"{len(image) // 512 + difference}\n")
        assert refused(guest, "20-root") == "root-size"

    @pytest.mark.parametrize("blocks", SIZES)
    def test_every_block_of_the_path_is_bound(self, guest: Guest, blocks: int) -> None:
        image, _ = self.prepare(guest, blocks)
        path = [*reversed(form.level_starts(blocks)), 0]
        for depth, start in enumerate(path):
            (guest.dev / "vda").write_bytes(flip(image, start * BLOCK + 1500))
            expected = "root-data-mismatch" if depth else "root-hash-mismatch"
            assert refused(guest, "20-root") == expected

    def test_salt(self, guest: Guest) -> None:
        self.prepare(guest)
        guest.state.line = guest.state.line._replace(root_salt="0" * 64)
        assert refused(guest, "20-root") == "root-hash-mismatch"

    def test_on_disk_superblock_is_not_read(self, guest: Guest) -> None:
        image, verity = self.prepare(guest)
        at = verity.blocks * BLOCK
        (guest.dev / "vda").write_bytes(image[:at] + b"\xff" * BLOCK + image[at + BLOCK :])
        guest.run("20-root")

    def test_block_count_that_the_tree_allows(self, guest: Guest) -> None:
        """The same tree over one block less opens in the kernel: only the file system's own count tells."""
        image, verity = self.prepare(guest, 127)
        fewer = 126
        (guest.dev / "vda").write_bytes(image[: fewer * BLOCK] + image[127 * BLOCK :])
        (guest.block / "vda/size").write_text(f"{(len(image) - BLOCK) // 512}\n")
        guest.state.line = guest.state.line._replace(root_blocks=fewer)
        assert refused(guest, "20-root") == "root-block-count"
        assert verity.blocks == 127

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (erofs(2, bits=9), "root-block-count"),
            (erofs(2, magic=0), "root-mount"),
        ],
    )
    def test_other_file_systems(self, guest: Guest, data: bytes, reason: str) -> None:
        image, verity = with_tree(data, SALT)
        guest.state.line = cmdline.CommandLine("c" * 64, verity.root_hash, verity.salt, verity.blocks)
        guest.disk("vda", verity.root_hash[:20], image)
        assert refused(guest, "20-root") == reason

    @pytest.mark.parametrize("call", ["create", "load", "resume", "block_node", "status"])
    def test_kernel_refuses_the_table(self, guest: Guest, call: str) -> None:
        self.prepare(guest)
        guest.kernel.fail[call] = OSError(22, "Invalid argument")
        assert refused(guest, "20-root") == "root-verity"

    @pytest.mark.parametrize(
        "change",
        [
            lambda flags, sectors, kind, text: (0, sectors, kind, text),
            lambda flags, sectors, kind, text: (flags, sectors - 8, kind, text),
            lambda flags, sectors, kind, text: (flags, sectors, "linear", text),
            lambda flags, sectors, kind, text: (flags, sectors, kind, text.removesuffix(" panic_on_error")),
        ],
    )
    def test_kernel_reads_back_another_table(
        self, guest: Guest, change: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.prepare(guest)
        node = guest.kernel.block_node

        def swap(path: str, device: int) -> None:
            node(path, device)
            guest.kernel.tables["root"] = change(*guest.kernel.tables["root"])  # type: ignore[operator]

        monkeypatch.setattr(guest.kernel, "block_node", swap)
        assert refused(guest, "20-root") == "root-verity"

    def test_device_gives_another_first_block(self, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
        image, _ = self.prepare(guest)
        (guest.dev / "elsewhere").write_bytes(flip(image, 0))
        monkeypatch.setattr(
            guest.kernel, "block_node", lambda path, device: Path(path).symlink_to(guest.dev / "elsewhere")
        )
        assert refused(guest, "20-root") == "root-verity"

    def test_does_not_mount(self, guest: Guest) -> None:
        self.prepare(guest)
        guest.kernel.fail["mount"] = OSError(22, "Invalid argument")
        assert refused(guest, "20-root") == "root-mount"


class TestVolumes:
    def prepare(self, guest: Guest, blocks: int = 129) -> tuple[bytes, Verity]:
        image, verity = with_tree(erofs(blocks), MODEL_SALT)
        self.configure(guest, f"{verity.root_hash}_{blocks * BLOCK}_{UUID_TEXT}")
        guest.disk("vda", verity.root_hash[:20], image)
        return image, verity

    def configure(self, guest: Guest, mpk: str) -> None:
        guest.state.config = load(config(f"[{{name: m, repo: {REPO}, mpk: {mpk}}}]"))

    def test_passes(self, guest: Guest) -> None:
        _, verity = self.prepare(guest)
        assert guest.run("30-volumes") == {"images": {}, "volumes": {"m": verity.root_hash}}
        node = f"{guest.places.dev}/mapper/volume-{verity.root_hash[:20]}"
        target = str(guest.sealed / "volumes/m")
        assert guest.kernel.calls[-1] == ("mount", node, target, "erofs", 15, "")

    def test_an_image_is_opened_by_its_name_and_may_be_executed(self, guest: Guest) -> None:
        name = "localhost/app@sha256:" + "ab" * 32
        image, verity = with_tree(erofs(129), hashlib.sha256(name.encode()).digest())
        serial = verity.root_hash[:20]
        guest.disk("vda", serial, image)
        guest.state.config = load(
            config()
            + f"images: [{{image: {name}, mpk: {verity.root_hash}_{129 * BLOCK}_{UUID_TEXT}}}]\n".encode()
            + f"containers: [{{name: app, image: {name}}}]\n".encode()
        )
        assert guest.run("30-volumes") == {"images": {name: verity.root_hash}, "volumes": {}}
        target = str(guest.sealed / "images" / serial)
        node = f"{guest.places.dev}/mapper/volume-{serial}"
        assert guest.kernel.calls[-1] == ("mount", node, target, "erofs", 7, "")

    def test_none(self, guest: Guest) -> None:
        guest.state.config = load(config())
        assert guest.run("30-volumes") == {"images": {}, "volumes": {}}
        assert guest.kernel.calls == []

    def test_the_operators_disk_is_let_in_where_there_are_services(self, guest: Guest) -> None:
        guest.state.config = load(config() + b"shim: {upstream-port: 8080}\n")
        assert guest.run("30-volumes") == {"images": {}, "volumes": {}}
        guest.disk("vda", bootlog.OPERATOR_SERIAL, bytes(512))
        assert guest.run("30-volumes") == {"images": {}, "volumes": {}}
        guest.disk("vdb", bootlog.OPERATOR_SERIAL, bytes(512))
        assert refused(guest, "30-volumes") == "operator-duplicate"

    def test_the_operators_disk_is_nobodys_where_there_are_none(self, guest: Guest) -> None:
        guest.state.config = load(config())
        guest.disk("vda", bootlog.OPERATOR_SERIAL, bytes(512))
        assert refused(guest, "30-volumes") == "disk-unexpected"

    def test_missing(self, guest: Guest) -> None:
        self.prepare(guest)
        (guest.block / "vda/serial").write_text("0" * 20)
        assert refused(guest, "30-volumes") == "volume-missing"

    def test_duplicate(self, guest: Guest) -> None:
        image, verity = self.prepare(guest)
        guest.disk("vdb", verity.root_hash[:20], image)
        assert refused(guest, "30-volumes") == "volume-duplicate"

    def test_writable(self, guest: Guest) -> None:
        self.prepare(guest)
        (guest.block / "vda/ro").write_text("0\n")
        assert refused(guest, "30-volumes") == "volume-writable"

    def test_size(self, guest: Guest) -> None:
        self.prepare(guest)
        (guest.block / "vda/size").write_text("8\n")
        assert refused(guest, "30-volumes") == "volume-size"

    def test_top(self, guest: Guest) -> None:
        image, verity = self.prepare(guest)
        (guest.dev / "vda").write_bytes(flip(image, (verity.blocks + 1) * BLOCK))
        assert refused(guest, "30-volumes") == "volume-hash-mismatch"

    def test_first_block(self, guest: Guest) -> None:
        image, _ = self.prepare(guest)
        (guest.dev / "vda").write_bytes(flip(image, 1100))
        assert refused(guest, "30-volumes") == "volume-data-mismatch"

    def test_hash_offset(self, guest: Guest) -> None:
        image, verity = self.prepare(guest, 127)
        (guest.dev / "vda").write_bytes(image[: 126 * BLOCK] + image[127 * BLOCK :])
        (guest.block / "vda/size").write_text(f"{(len(image) - BLOCK) // 512}\n")
        self.configure(guest, f"{verity.root_hash}_{126 * BLOCK}_{UUID_TEXT}")
        assert refused(guest, "30-volumes") == "volume-block-count"

    def test_uuid(self, guest: Guest) -> None:
        _, verity = self.prepare(guest)
        self.configure(guest, f"{verity.root_hash}_{129 * BLOCK}_{UUID_TEXT.replace('f', 'e')}")
        assert refused(guest, "30-volumes") == "volume-uuid"

    def test_kernel_refuses(self, guest: Guest) -> None:
        self.prepare(guest)
        guest.kernel.fail["load"] = OSError(22, "Invalid argument")
        assert refused(guest, "30-volumes") == "volume-verity"

    def test_does_not_mount(self, guest: Guest) -> None:
        self.prepare(guest)
        guest.kernel.fail["mount"] = OSError(22, "Invalid argument")
        assert refused(guest, "30-volumes") == "volume-mount"

    @pytest.mark.parametrize("serial", ["unknown", None])
    def test_another_disk(self, guest: Guest, serial: str | None) -> None:
        self.prepare(guest)
        guest.disk("sr0", serial, b"")
        assert refused(guest, "30-volumes") == "disk-unexpected"

    def test_what_earlier_hooks_claimed_is_expected(self, guest: Guest) -> None:
        self.prepare(guest)
        guest.disk("vdb", configdisk.SERIAL, bytes(512))
        guest.state.claimed.add("vdb")
        guest.run("30-volumes")

    @pytest.mark.parametrize(("size", "ok"), [(0, True), (512, False)])
    def test_loop_devices_only_without_a_file(self, guest: Guest, size: int, ok: bool) -> None:
        self.prepare(guest)
        guest.disk("loop0", None, bytes(size))
        if ok:
            guest.run("30-volumes")
        else:
            assert refused(guest, "30-volumes") == "disk-unexpected"

    @pytest.mark.parametrize(("name", "ok"), [("root", True), ("other", False)])
    def test_mapped_devices_only_ours(self, guest: Guest, name: str, ok: bool) -> None:
        self.prepare(guest)
        guest.state.devices.add("root")
        guest.disk("dm-0", None, bytes(512))
        (guest.block / "dm-0/dm").mkdir()
        (guest.block / "dm-0/dm/name").write_text(name + "\n")
        if ok:
            guest.run("30-volumes")
        else:
            assert refused(guest, "30-volumes") == "disk-unexpected"


class TestGpu:
    @pytest.fixture
    def ready(self, guest: Guest) -> Guest:
        guest.state.config = load(config())
        guest.device("0000:00:00.0", 0x8086, 0x060000)
        guest.device("0000:00:01.0", 0x1AF4, 0x010000)
        return guest

    def test_passes(self, ready: Guest) -> None:
        assert ready.run("40-gpu") == {"gpus": 0}

    @pytest.mark.parametrize(
        ("vendor", "kind"),
        [(0x1234, 0x030000), (0x1002, 0x038000), (0x10DE, 0x030200), (0x10DE, 0x068000)],
    )
    def test_unexpected(self, ready: Guest, vendor: int, kind: int) -> None:
        ready.device("0000:01:00.0", vendor, kind)
        assert refused(ready, "40-gpu") == "gpu-unexpected"
