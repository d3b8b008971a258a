"""The folder that `tinboot gpu pin` makes, on its way into a root: read once, checked, used as it was read.

    reference-values.json     tinboot/formats/gpureference.py, canonical
    rims/<id>.xml             each RIM that is named there, by its SHA-256

Anything else in it is refused, above all a root: which device root the gate trusts is the recipe's decision.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tinboot.formats import gpureference
from tinboot.formats.errors import Malformed, Mismatch, Refused, Unavailable

#: The first in the folder and in the image, the second for both too, with a file for each RIM.
VALUES, RIMS = "reference-values.json", "rims"

#: Bytes of a RIM. NVIDIA's are of 40 kB.
MAX_RIM = 1 << 20

_REMEDY = "make the folder again: tinboot gpu pin"


@dataclass(frozen=True, slots=True)
class Reference:
    """`files`: path in the folder and bytes, sorted; `values`: what the first of them says."""

    values: gpureference.ReferenceValues
    files: tuple[tuple[str, bytes], ...]

    @property
    def digests(self) -> tuple[tuple[str, str, int], ...]:
        """Path, SHA-256 in hex, and size of each file."""
        return tuple((path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in self.files)

    def require_driver(self, version: str) -> None:
        """Raises `Refused` unless the driver `version` is among those that were pinned."""
        pinned = sorted(rim.version for rim in self.values.rims if rim.kind == "driver")
        if version not in pinned:
            raise Refused(
                f"the image's driver is {version}, the reference values are for {', '.join(pinned)}",
                "pin the RIM of the image's driver: tinboot gpu pin",
            )

    def write(self, folder: Path) -> None:
        """The files, below a folder that is there and has none of them."""
        (folder / RIMS).mkdir()
        for path, data in self.files:
            (folder / path).write_bytes(data)


def read(folder: Path) -> Reference:
    """Raises `Malformed` for values that are not as pinned, `Mismatch` for a RIM that is another one,
    `Refused` for what does not belong there or is missing, `Unavailable` where nothing can be read.
    """
    data = _bytes(folder / VALUES, gpureference.MAX_SIZE)
    try:
        values = gpureference.parse(data)
    except Malformed as error:
        raise Malformed(f"{folder / VALUES}: {error.message}", _REMEDY) from error
    if gpureference.render(values) != data:
        raise Malformed(f"{folder / VALUES} was written by something else than tinboot gpu pin", _REMEDY)
    kinds = {rim.kind for rim in values.rims}
    if kinds != {"driver", "vbios"}:
        raise Refused(
            f"{folder / VALUES} has only RIMs of the kind {', '.join(kinds)}, a GPU takes both",
            "pin those of its driver and of its VBIOS together: tinboot gpu pin takes several files",
        )
    _exactly(folder, {VALUES, *(f"{RIMS}/{rim.id}.xml" for rim in values.rims)})
    rims = [(f"{RIMS}/{rim.id}.xml", rim.sha256) for rim in values.rims]
    files = [(path, _bytes(folder / path, MAX_RIM)) for path, _ in rims]
    for (path, content), (_, expected) in zip(files, rims, strict=True):
        if (got := hashlib.sha256(content).hexdigest()) != expected:
            raise Mismatch(f"{folder / path} has SHA-256 {got}, {VALUES} has {expected}", _REMEDY)
    return Reference(values, ((VALUES, data), *sorted(files)))


def _exactly(folder: Path, wanted: set[str]) -> None:
    """Raises `Refused` for a file of `folder` that is not in `wanted`, or the other way round."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if more := found - wanted:
        raise Refused(
            f"{folder} holds {', '.join(sorted(more))}, which its {VALUES} does not name",
            "a folder that tinboot gpu pin made, and nothing put into it",
        )
    if less := wanted - found:
        raise Refused(f"{folder} lacks {', '.join(sorted(less))}, which its {VALUES} names", _REMEDY)


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}", "tinboot gpu pin makes the folder") from error
    if len(data) > limit:
        raise Malformed(f"{path} has more than {limit} bytes")
    return data
