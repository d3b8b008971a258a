"""RIMs into the folder that a build takes: all of them verified, all or nothing, the same bytes again."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import fake_nvidia
import pytest
import stub_nvidia
from fake_nvidia import NOW
from stub_gpu_report import Contents, Kind
from stub_rim import Rim

from tinboot.builder import gpu_pin, gpu_reference, output, stopping
from tinboot.builder.gpu_pin import Pinned, Source
from tinboot.formats import gpureference
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable

ROOT = (sha256(fake_nvidia.rim_root()).hexdigest(),)
CHAIN = fake_nvidia.rim_chain()
DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_G520_0200_885_96009F0001"


def source(kind: Kind = "driver", contents: Contents | None = None, *, named: str | None = None) -> Source:
    contents = contents or Contents()
    found = named or contents.rim_id(kind)
    return Source(found, f"{found}.xml", Rim.of(kind, contents).xml(CHAIN))


def pin(*sources: Source, at: datetime = NOW) -> Pinned:
    return gpu_pin.pin(sources, at, ROOT)


BOTH = (source("driver"), source("vbios"))


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_pinned() -> None:
    pinned = pin(*BOTH)
    driver, vbios = pinned.values.rims
    assert (driver.id, driver.kind, driver.version, driver.product) == (
        DRIVER,
        "driver",
        "550.90.07",
        "GH100",
    )
    assert (vbios.id, vbios.kind, vbios.version) == (VBIOS, "vbios", "96.00.9F.00.01")
    assert driver.measurements == Rim.of("driver", Contents()).active()
    assert driver.sha256 == sha256(BOTH[0].data).hexdigest()
    assert (driver.origin, driver.root, driver.signer) == (f"{DRIVER}.xml", ROOT[0], "HCC RIM L4 Signer")
    assert driver.not_after == CHAIN.forms[0].not_after
    assert pinned.documents == {DRIVER: BOTH[0].data, VBIOS: BOTH[1].data}
    assert gpureference.parse(gpureference.render(pinned.values)) == pinned.values


def test_several_versions_in_any_order() -> None:
    others = [source("driver", Contents(driver=f"550.{n}.07")) for n in range(100, 104)]
    others += [source("vbios", Contents(vbios=f"96.00.9F.00.0{n}")) for n in range(2, 5)]
    pinned = pin(*BOTH, *others, BOTH[0])
    assert len(pinned.values.rims) == 9
    assert pin(*reversed([*BOTH, *others])) == pinned
    assert {rim.product for rim in pin(source("driver", Contents("BLACKWELL"))).values.rims} == {"GB100"}


def test_when_it_was_created() -> None:
    """The time for which the RIMs were verified, to the second: no guest's clock is earlier."""
    given = datetime(2026, 5, 1, 12, 0, 0, 999, tzinfo=UTC)
    assert pin(*BOTH, at=given).values.created == given.replace(microsecond=0)
    assert pin(*BOTH).values.created == NOW


def test_two_of_one_id() -> None:
    later = CHAIN.replace(0, serial=7)
    again = Source(None, "again.xml", Rim.of("driver", Contents()).xml(later))
    with pytest.raises(Refused, match=f"again.xml: another RIM of {DRIVER} than {DRIVER}.xml"):
        pin(*BOTH, again)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (Source(None, "x.xml", b""), Malformed, "x.xml: line 1: begins with"),
        (
            Source(None, "x.xml", BOTH[0].data.replace(b"550.90.07", b"550.90.08")),
            Mismatch,
            "x.xml: .*digest",
        ),
        (
            Source(DRIVER, "x.xml", BOTH[1].data),
            Refused,
            f"x.xml: it was named {DRIVER}, and is of the VBIOS",
        ),
        (Source(VBIOS, "x.xml", BOTH[0].data), Refused, f"x.xml: it was named {VBIOS}, and is {DRIVER}"),
        (
            Source(None, "x.xml", BOTH[1].data),
            Refused,
            "x.xml: of the VBIOS .*, and nothing says of which board",
        ),
        (
            Source(None, "x.xml", Rim.of("driver", Contents()).xml(stub_nvidia.rim_chain(NOW, realm="x"))),
            Mismatch,
            "x.xml: the chain ends in .*, which is not trusted",
        ),
    ],
)
def test_one_that_is_bad_ends_it(bad: Source, error: type[TinbootError], message: str) -> None:
    for sources in ((bad,), (*BOTH, bad), (bad, *BOTH)):
        with pytest.raises(error, match=message):
            pin(*sources)


def test_nothing_to_pin() -> None:
    with pytest.raises(Refused, match="there is no RIM to pin"):
        pin()


def test_the_folder_is_what_a_build_takes(tmp_path: Path) -> None:
    os.umask(0o077)
    try:
        gpu_pin.write(pin(*BOTH), tmp_path / "gpu")
    finally:
        os.umask(0o022)
    assert listing(tmp_path) == ["gpu", *(f"gpu/{x}" for x in gpu_pin_files())]
    reference = gpu_reference.read(tmp_path / "gpu")
    assert reference.values == pin(*BOTH).values
    assert dict(reference.files)[f"rims/{DRIVER}.xml"] == BOTH[0].data
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "gpu").rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert (tmp_path / "gpu").stat().st_mode & 0o777 == 0o755


def gpu_pin_files() -> list[str]:
    return ["reference-values.json", "rims", f"rims/{DRIVER}.xml", f"rims/{VBIOS}.xml"]


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name, sources in (("one", BOTH), ("two", BOTH[::-1])):
        gpu_pin.write(pin(*sources), tmp_path / name)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two


def test_what_stands_there_stays(tmp_path: Path) -> None:
    final = tmp_path / "gpu"
    gpu_pin.write(pin(BOTH[0]), final)
    before = listing(final)
    with pytest.raises(Refused, match="gpu exists already") as refused:
        gpu_pin.write(pin(*BOTH), final)
    assert "--force" in refused.value.hint
    assert listing(final) == before
    gpu_pin.write(pin(*BOTH), final, force=True)
    assert listing(final) == gpu_pin_files()
    assert listing(tmp_path) == ["gpu", *(f"gpu/{x}" for x in gpu_pin_files())]


@pytest.mark.parametrize("there", ["folder", "full", "file", "link"])
def test_force_replaces_nothing_else(tmp_path: Path, there: str) -> None:
    final = tmp_path / "precious"
    match there:
        case "folder":
            final.mkdir()
        case "full":
            final.mkdir()
            (final / "thesis").touch()
        case "file":
            final.touch()
        case "link":
            final.symlink_to("nowhere")
    before = listing(tmp_path)
    with pytest.raises(Refused, match="precious is there and holds no reference values"):
        gpu_pin.write(pin(*BOTH), final, force=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), stopping.Stopped(15)])
@pytest.mark.parametrize("moment", ["sync", "replace_folder"])
def test_what_goes_wrong_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(output, moment, fail)
    with pytest.raises((Unavailable, stopping.Stopped)):
        gpu_pin.write(pin(*BOTH), tmp_path / "gpu")
    assert listing(tmp_path) == []


def test_from_files(tmp_path: Path) -> None:
    path = tmp_path / f"{DRIVER}.xml"
    path.write_bytes(BOTH[0].data)
    assert gpu_pin.from_file(str(path)) == Source(DRIVER, path.name, BOTH[0].data)
    plain = tmp_path / "a=b.xml"
    plain.write_bytes(BOTH[1].data)
    assert gpu_pin.from_file(str(plain)) == Source(None, "a=b.xml", BOTH[1].data)
    assert gpu_pin.from_file(f"{VBIOS}={plain}") == Source(VBIOS, "a=b.xml", BOTH[1].data)
    with pytest.raises(Unavailable, match="No such file or directory"):
        gpu_pin.from_file(str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="Is a directory"):
        gpu_pin.from_file(str(tmp_path))
    with pytest.raises(Malformed, match="zero: a RIM of 262145 bytes"):
        pin(gpu_pin.from_file("/dev/zero"))
