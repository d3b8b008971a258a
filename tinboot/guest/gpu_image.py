"""What the image knows of GPUs: reference values, RIMs, the device root; whether the clock can be right."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from tinboot.formats import gpureference, ocspdisk
from tinboot.formats.errors import Malformed
from tinboot.formats.gpureference import ReferenceValues
from tinboot.formats.halt import Refusal
from tinboot.verify import certificate

if TYPE_CHECKING:
    from os import PathLike

#: A clock may be this much ahead of the reference values. The host sets it, so it cannot be trusted, but one
#: that is absurd would take dates back that somebody relies on: of OCSP responses, of RIMs.
LONGEST_USE = timedelta(days=5 * 366)

_LIMIT = 1 << 20  # bytes of a file; RIMs have about 20,000, reference values a few thousand each


class Image(NamedTuple):
    """`raw`: the bytes of `reference_values`. `device_root`: PEM; `fingerprint` the SHA-256 of its DER.

    `rims`: id -> XML, as it was when its signature was verified; nothing where the image has none.
    """

    raw: bytes
    reference_values: ReferenceValues
    device_root: bytes
    fingerprint: str
    rims: dict[str, bytes]


def read(folder: str | PathLike[str]) -> Image:
    """Raises `Refusal` gpu-reference-values."""
    try:
        raw = _content(f"{folder}/reference-values.json")
        values = gpureference.parse(raw)
        device_root = _content(f"{folder}/device-root.pem")
        roots = certificate.read(device_root)
    except OSError as error:
        raise Refusal("gpu-reference-values", str(error)) from error
    except Malformed as error:
        raise Refusal("gpu-reference-values", error.message) from error
    if len(roots) != 1:
        raise Refusal("gpu-reference-values", f"{len(roots)} certificates in device-root.pem, expected one")
    rims = {rim.id: data for rim in values.rims if (data := _rim(folder, rim)) is not None}
    return Image(raw, values, device_root, sha256(roots[0].der).hexdigest(), rims)


def check_clock(values: ReferenceValues, now: datetime) -> None:
    """Raises `Refusal` gpu-clock."""
    last = values.created + LONGEST_USE
    if not values.created <= now <= last:
        told = f"it is {now:%Y-%m-%d}, reference values of {values.created:%Y-%m-%d} serve to {last:%Y-%m-%d}"
        raise Refusal("gpu-clock", told)


def read_ocsp(disk: str) -> tuple[bytes, ...]:
    """The responses that the host laid ready, not looked at. Raises `Refusal` gpu-ocsp-invalid."""
    try:
        with open(disk, "rb") as file:
            return ocspdisk.unpack(file.read(ocspdisk.MAX_SIZE + 1))
    except OSError as error:
        raise Refusal("gpu-ocsp-invalid", str(error)) from error
    except Malformed as error:
        raise Refusal("gpu-ocsp-invalid", error.message) from error


def _rim(folder: str | PathLike[str], rim: gpureference.Rim) -> bytes | None:
    name = f"{rim.id}.xml"
    try:
        data = _content(f"{folder}/rims/{name}")
    except FileNotFoundError:
        return None
    if sha256(data).hexdigest() != rim.sha256:
        raise Refusal("gpu-reference-values", f"{name} is not the file that was pinned")
    return data


def _content(path: str) -> bytes:
    """At most one byte more than any of these files has."""
    with open(path, "rb") as file:
        return file.read(_LIMIT + 1)
