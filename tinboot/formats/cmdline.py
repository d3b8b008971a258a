"""The kernel command line: one template, rendered and parsed here and nowhere else.

The launch digest covers every byte of it (SNP kernel hashes, facts of the loader: the firmware
hashes the string with its NUL). It carries what the initrd cannot know otherwise: the config's hash
and the root's verity parameters. The root hash alone does not bind the number of data blocks
(a shorter table over the same tree opens), so the count stands beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats.halt import Refusal

#: Linux COMMAND_LINE_SIZE on x86 (arch/x86/include/asm/setup.h), the terminating NUL included.
LIMIT = 2048

#: AmdSev OVMF (GenericQemuLoadImageLib) appends this when it loaded an initrd, and nothing else.
FIRMWARE_SUFFIX = " initrd=initrd"

#: What every boot has in common. `panic=-1` and `oops=panic` turn corruption into an end, not a wait;
#: `systemd.import_credentials=no` keeps SMBIOS and fw_cfg strings out of PID 1. `cryptomgr.notests=1`
#: leaves out the kernel's tests of its own cryptography, a fifth of the boot: docs/adr/0005.
FIXED = (
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "oops=panic",
    "cryptomgr.notests=1",
    "systemd.import_credentials=no",
)

CONFIG_HASH = "tinboot.config-hash"
ROOT_HASH = "tinboot.root-hash"
ROOT_SALT = "tinboot.root-salt"
ROOT_BLOCKS = "tinboot.root-blocks"
PARAMETERS = (CONFIG_HASH, ROOT_HASH, ROOT_SALT, ROOT_BLOCKS)

_MAX_BLOCKS = 1 << 40  # 4 PiB of 4 KiB blocks, far below where a sector count would overflow 64 bits


class CommandLine(NamedTuple):
    """What the command line says. Hashes and salt: 64 lower-case hex digits. Blocks: 4096 bytes each."""

    config_hash: str
    root_hash: str
    root_salt: str
    root_blocks: int


def render(line: CommandLine) -> str:
    """The exact command line for the launcher and the launch digest, without NUL or firmware suffix.

    Raises `Refusal` where a value could not be parsed back: nothing is rendered that `parse` refuses.
    """
    values = (line.config_hash, line.root_hash, line.root_salt, str(line.root_blocks))
    text = " ".join((*FIXED, *(f"{k}={v}" for k, v in zip(PARAMETERS, values, strict=True))))
    if parse(text) != line:
        raise Refusal("cmdline-malformed", f"{line!r} does not survive rendering")
    return text


def parse(text: str) -> CommandLine:
    """`text` as /proc/cmdline gives it, less its newline; raises `Refusal` unless it is the template.

    The firmware's suffix is allowed at the very end, once.
    """
    if len(text.encode(errors="surrogateescape")) >= LIMIT:
        raise Refusal("cmdline-malformed", f"the command line has {LIMIT} bytes or more")
    tokens = text.removesuffix(FIRMWARE_SUFFIX).split(" ")
    for key in PARAMETERS:
        found = sum(token.split("=", 1)[0] == key for token in tokens)
        if found > 1:
            raise Refusal("cmdline-duplicate", f"{key} stands {found} times")
    for at, token in enumerate(tokens):
        if at < len(FIXED):
            want, ok = FIXED[at], token == FIXED[at]
        elif at < len(FIXED) + len(PARAMETERS):
            key = PARAMETERS[at - len(FIXED)]
            want, ok = f"{key}=…", token.startswith(key + "=")
        else:
            want, ok = "the end", False
        if not ok:
            raise Refusal("cmdline-malformed", f"word {at + 1} is {token[:80]!a}, not {want}")
    if len(tokens) < len(FIXED) + len(PARAMETERS):
        missing = (*FIXED, *PARAMETERS)[len(tokens)]
        raise Refusal("cmdline-malformed", f"{missing} is missing")
    config_hash, root_hash, root_salt, blocks = (t.split("=", 1)[1] for t in tokens[len(FIXED) :])
    return CommandLine(
        _hex64(CONFIG_HASH, config_hash),
        _hex64(ROOT_HASH, root_hash),
        _hex64(ROOT_SALT, root_salt),
        _count(blocks),
    )


def _hex64(key: str, value: str) -> str:
    if len(value) != 64 or not all(c in "0123456789abcdef" for c in value):
        raise Refusal("cmdline-malformed", f"{key} is {value[:80]!a}, not 64 lower-case hex digits")
    return value


def _count(value: str) -> int:
    plain = value.isascii() and value.isdigit() and value[0] != "0" and len(value) <= 13
    if not plain or int(value) > _MAX_BLOCKS:
        raise Refusal("cmdline-malformed", f"{ROOT_BLOCKS} is {value[:80]!a}, not a block count")
    return int(value)
