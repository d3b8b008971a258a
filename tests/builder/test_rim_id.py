from __future__ import annotations

import pytest

from tinboot.builder import rim_id
from tinboot.builder.rim import Content
from tinboot.formats.errors import Refused

DRIVER = Content("GH100", "driver", "550.90.07", {})
VBIOS = Content("GH100", "vbios", "96.00.9F.00.01", {})
BOARD = "NV_GPU_VBIOS_1010_0200_882_96009F0001"


def test_drivers_name_themselves() -> None:
    hopper = "NV_GPU_DRIVER_GH100_550.90.07"
    assert rim_id.of(DRIVER, None) == rim_id.of(DRIVER, hopper) == rim_id.driver("550.90.07") == hopper
    blackwell = Content("GB100", "driver", "595.91.07", {})
    assert rim_id.of(blackwell, None) == "NV_GPU_CC_DRIVER_GB100_595.91.07"


@pytest.mark.parametrize(
    "named",
    [
        "NV_GPU_DRIVER_GH100_550.90.08",
        "NV_GPU_CC_DRIVER_GH100_550.90.07",
        "NV_GPU_DRIVER_GB100_550.90.07",
        BOARD,
    ],
)
def test_a_driver_of_another_name(named: str) -> None:
    with pytest.raises(Refused, match=f"it was named {named}, and is NV_GPU_DRIVER_GH100_550.90.07"):
        rim_id.of(DRIVER, named)


def test_a_vbios_is_named_by_whoever_gives_it() -> None:
    assert rim_id.of(VBIOS, BOARD) == BOARD
    with pytest.raises(
        Refused, match=r"of the VBIOS 96.00.9F.00.01, and nothing says of which board"
    ) as refused:
        rim_id.of(VBIOS, None)
    assert "=FILE" in refused.value.hint


@pytest.mark.parametrize(
    "named", ["NV_GPU_VBIOS_1010_0200_882_96009F0002", "NV_GPU_DRIVER_GH100_550.90.07", "x_96009F0001"]
)
def test_a_vbios_of_another_version(named: str) -> None:
    with pytest.raises(Refused, match=f"it was named {named}, and is of the VBIOS 96.00.9F.00.01"):
        rim_id.of(VBIOS, named)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NV_GPU_DRIVER_GH100_550.144.03.xml", "NV_GPU_DRIVER_GH100_550.144.03"),
        ("NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml", "NV_GPU_DRIVER_GH100_535.86.09"),
        ("driver-rim-NV_GPU_CC_DRIVER_GB100_595.91.07.swidtag", "NV_GPU_CC_DRIVER_GB100_595.91.07"),
        (f"{BOARD}.xml", BOARD),
        (f"vbios-{BOARD} (1).xml", BOARD),
        ("1010_0200_882_96009F0001_PROD.swidtag", BOARD),
        ("g520_0202_885_96006D0008_PROD.swidtag", "NV_GPU_VBIOS_G520_0202_885_96006D0008"),
        ("vbios-rim.xml", None),
        ("Driver_RIM_test_no_gpu.swidtag", None),
        ("1010_0200_882_96009F00011.xml", None),
        ("x-1010_0200_882_96009F0001.xml", None),
    ],
)
def test_names_of_files(name: str, found: str | None) -> None:
    assert rim_id.in_name(name) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NV_GPU_DRIVER_GH100_",
        "NV_GPU_DRIVER_GH100_550.90.07/..",
        f"{BOARD}\n",
        "NV_GPU_VBIOS_a_b_c_96009F0001",
        "NV_SWITCH_BIOS_5612_0002_890_96106D0001",
        "nv_gpu_driver_gh100_550.90.07",
        f"{BOARD}?x=y",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert not rim_id.is_id(text)
