"""From RIMs to the folder of reference values that an image takes: `tinboot gpu pin`.

    reference-values.json    what measurements may be; the gate reads this alone
    rims/<id>.xml            the RIMs as they came, for the second backend

Each RIM is verified on its own; one that does not verify ends the whole. The same RIMs at the same time give
the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tinboot.builder import output, rim, rim_chain, rim_document, rim_id
from tinboot.builder.gpu_reference import RIMS, VALUES
from tinboot.builder.rim import VerifiedRim
from tinboot.formats import gpureference
from tinboot.formats.errors import Refused, TinbootError
from tinboot.formats.gpureference import ReferenceValues, Rim


class Source(NamedTuple):
    """A RIM as it was given. `named`: the id that it goes by; `origin`: a file's base name, or a URL."""

    named: str | None
    origin: str
    data: bytes


class Pinned(NamedTuple):
    """`documents`: id -> the bytes of the RIM."""

    values: ReferenceValues
    documents: dict[str, bytes]


def from_file(argument: str) -> Source:
    """`argument`: FILE, whose name may have an id in it, or ID=FILE."""
    named, equals, rest = argument.partition("=")
    if not equals or not rim_id.is_id(named):
        named, rest = "", argument
    path = Path(rest)
    try:
        with path.open("rb") as file:
            data = file.read(rim_document.MAX_SIZE + 1)
    except OSError as error:
        raise output.unavailable(error, path) from error
    return Source(named or rim_id.in_name(path.name), path.name, data)


def pin(
    sources: Iterable[Source],
    at: datetime,
    trusted: Collection[str] = (rim_chain.NVIDIA,),
) -> Pinned:
    """Raises the first failure, the origin in front.

    `at`: the time for which RIMs are verified, and when the values say they were made.
    """
    rims: dict[str, tuple[Rim, VerifiedRim]] = {}
    for source in sources:
        try:
            verified = rim.verify(source.data, at, trusted)
            entry = _entry(source, verified)
        except TinbootError as error:
            raise type(error)(f"{source.origin}: {error.message}", error.hint) from error
        former = rims.setdefault(entry.id, (entry, verified))[0]
        if former.sha256 != entry.sha256:
            raise Refused(
                f"{source.origin}: another RIM of {entry.id} than {former.origin}",
                "NVIDIA signs anew what it signed before: keep the one that is valid for longer",
            )
    if not rims:
        raise Refused("there is no RIM to pin")
    values = ReferenceValues(
        at.astimezone(UTC).replace(microsecond=0),
        tuple(rims[identifier][0] for identifier in sorted(rims)),
    )
    return Pinned(values, {identifier: rims[identifier][1].data for identifier in sorted(rims)})


def check_output(folder: Path, *, force: bool) -> None:
    """`Refused` where something stands that is not to be replaced."""
    if not os.path.lexists(folder):
        return
    if not force:
        raise output.exists_already(folder)
    if not (folder / VALUES).is_file():
        raise Refused(f"{folder} is there and holds no reference values", "choose another, or remove it")


def write(pinned: Pinned, folder: Path, *, force: bool = False) -> None:
    """Makes `folder` whole or not at all; with `force` in place of one that was made before."""
    with output.scratch(folder) as scratch:
        made = scratch / "gpu"
        try:
            (made / RIMS).mkdir(parents=True, mode=0o755)
            (made / VALUES).write_bytes(gpureference.render(pinned.values))
            for identifier, data in pinned.documents.items():
                (made / RIMS / f"{identifier}.xml").write_bytes(data)
            for path in (made, *made.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
                output.sync(path)
            check_output(folder, force=force)
            output.replace_folder(made, folder)
        except OSError as error:
            raise output.unavailable(error, folder) from error


def _entry(source: Source, verified: VerifiedRim) -> Rim:
    content, signer = verified.content, verified.signer
    return Rim(
        rim_id.of(content, source.named),
        content.kind,
        content.version,
        content.product,
        verified.sha256,
        source.origin,
        signer.root,
        signer.name,
        signer.not_after,
        content.measurements,
    )
