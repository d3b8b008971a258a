"""The names of RIMs, by which a GPU's report finds its reference values.

    NV_GPU_DRIVER_GH100_<version>                Hopper; what the RIM says gives it
    NV_GPU_CC_DRIVER_<product>_<version>         Blackwell, likewise
    NV_GPU_VBIOS_<project>_<project SKU>_<chip SKU>_<version, no dots>

Of a VBIOS the RIM says the version alone: for which boards it is, nobody signed. So whoever hands it over
names it, and the version must agree. A wrong board does no harm: its GPUs are then compared with measurements
that are not theirs, or find none. (NVIDIA's verifiers make the same names: nv-local-gpu-verifier 2.7.3,
cc_admin_utils.py, get_driver_rim_file_id and get_vbios_rim_file_id.)
"""

from __future__ import annotations

import re

from tinboot.builder.rim import Content
from tinboot.formats.errors import Refused

_DRIVER = r"NV_GPU_(?:CC_)?DRIVER_G[A-Z0-9]{4}_[0-9]{3,4}(?:\.[0-9]{1,3}){1,3}"
_BOARD = r"[0-9A-Z]{1,8}_[0-9A-Z]{1,8}_[0-9A-Z]{1,8}_[0-9A-F]{10}"
_ID = re.compile(f"{_DRIVER}|NV_GPU_VBIOS_{_BOARD}")

#: In a file's name, where NVIDIA's verifier leaves the beginning out, and writes small letters.
_IN_NAME = re.compile(
    f"(?P<id>{_DRIVER}|NV_GPU_VBIOS_{_BOARD})|^(?P<board>{_BOARD})(?![0-9A-Z])", re.IGNORECASE
)

_HINT = "say which board's it is: NV_GPU_VBIOS_<project>_<project SKU>_<chip SKU>_<version>=FILE"


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def driver(version: str) -> str:
    """Of Hopper's driver."""
    return f"NV_GPU_DRIVER_GH100_{version}"


def in_name(name: str) -> str | None:
    """The id that a file's name has in it."""
    found = _IN_NAME.search(name)
    if found is None:
        return None
    return (found["id"] or f"NV_GPU_VBIOS_{found['board']}").upper()


def of(content: Content, named: str | None) -> str:
    """The id of what a RIM says, `named` by whoever gave it. Raises `Refused` where the two disagree."""
    if content.kind == "driver":
        prefix = "NV_GPU_DRIVER" if content.product == "GH100" else "NV_GPU_CC_DRIVER"
        found = f"{prefix}_{content.product}_{content.version}"
        if named is not None and named != found:
            raise Refused(f"it was named {named}, and is {found}")
        return found
    if named is None:
        raise Refused(f"of the VBIOS {content.version}, and nothing says of which board", _HINT)
    version = content.version.replace(".", "")
    if not named.startswith("NV_GPU_VBIOS_") or not named.endswith(f"_{version}"):
        raise Refused(f"it was named {named}, and is of the VBIOS {content.version}", _HINT)
    return named
