"""RIMs: what they say, that nothing else is taken for one, and that only what was signed counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import fake_nvidia
import nvidia_samples
import pytest
import stub_rim
import vectors
from fake_nvidia import NOW
from stub_gpu_report import Contents, Kind
from stub_nvidia import Arch
from stub_rim import Resource, Rim

from tinboot.builder import rim, rim_document, rim_signature
from tinboot.builder.rim import VerifiedRim
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError

CHAIN = fake_nvidia.rim_chain()
ROOT = (sha256(fake_nvidia.rim_root()).hexdigest(),)
DRIVER = Rim.of("driver", Contents())
VBIOS = Rim.of("vbios", Contents())
REAL = "gpu/nvidia-attestation-sdk/rims/"
THEN = datetime(2025, 2, 1, tzinfo=UTC)  # when NVIDIA's samples are valid


def verify(data: bytes, at: datetime = NOW) -> VerifiedRim:
    return rim.verify(data, at, ROOT)


def resigned(change: Callable[[str], str], whole: Rim = DRIVER) -> bytes:
    """What a RIM would be if NVIDIA had signed it so."""
    changed = change(whole.unsigned().decode())
    assert changed != whole.unsigned().decode()
    return stub_rim.signed(changed.encode(), CHAIN)


def replaced(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, count)


@pytest.mark.parametrize("arch", ["HOPPER", "BLACKWELL"])
@pytest.mark.parametrize("kind", ["driver", "vbios"])
def test_what_it_says(kind: Kind, arch: Arch) -> None:
    whole = Rim.of(kind, Contents(arch))
    found = verify(fake_nvidia.rim(kind, arch))
    assert found.content == (whole.product, kind, whole.version, whole.active())
    assert found.signer.name == "HCC RIM L4 Signer"
    assert found.signer.root == ROOT[0]
    assert found.signer.not_after == CHAIN.forms[0].not_after
    assert found.data == fake_nvidia.rim(kind, arch)
    assert found.sha256 == sha256(found.data).hexdigest()


def test_nobody_else_makes_one() -> None:
    found = verify(fake_nvidia.rim("driver"))
    with pytest.raises(TypeError, match="made by verifying"):
        VerifiedRim(object(), found.content, found.signer, found.data)
    with pytest.raises(AttributeError, match="cannot be set"):
        found.data = b""


@pytest.mark.parametrize("other", [VBIOS.unsigned(), fake_nvidia.rim("driver")])
def test_what_was_signed_must_be_what_it_says(other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rim_signature, "verify", lambda *_: rim_document.parse(other))
    with pytest.raises(Mismatch, match="what was signed is not what the RIM says"):
        verify(fake_nvidia.rim("driver"))


def test_nvidias_own() -> None:
    data = vectors.read(f"{REAL}NV_GPU_DRIVER_GH100_550.144.03.xml")
    found = rim.verify(data, datetime(2026, 11, 25, tzinfo=UTC))
    assert found.content[:3] == ("GH100", "driver", "550.144.03")
    assert sorted(found.content.measurements) == [7, *range(21, 41)]
    assert found.signer.not_after == datetime(2026, 12, 30, 16, 56, 50, tzinfo=UTC)
    with pytest.raises(Mismatch, match="'HCC RIM L4 Signer' is valid from 2024-12-30 16:56 to 2026-12-30"):
        rim.verify(data, datetime(2026, 12, 31, tzinfo=UTC))
    with pytest.raises(Mismatch, match="and it is 2024-12-30 16:00"):
        rim.verify(data, datetime(2024, 12, 30, 16, tzinfo=UTC))
    with pytest.raises(Mismatch, match=r"'NVIDIA CoRIM signing Root CA' .*, which is not trusted"):
        verify(data)


@pytest.mark.parametrize(
    ("name", "at", "message"),
    [
        (
            "incorrect_cert_chain_driver_rim",
            NOW,
            "'NVIDIA CoRIM L1 Root CA Debug Only' .*, which is not trusted",
        ),
        ("incorrect_signature_driver_rim", NOW, "the signature of the RIM does not hold"),
        ("NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch", NOW, "its digest differs"),
        ("NV_GPU_DRIVER_GH100_570.124.03_expired", NOW, "from 2025-01-01 00:00 to 2025-01-02 00:00"),
        (
            "NV_GPU_DRIVER_GH100_570.124.03_expired",
            datetime(2025, 1, 1, 12, tzinfo=UTC),
            "its digest differs",
        ),
        ("NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch", NOW, "to 2025-12-12 23:58, and it is"),
    ],
)
def test_nvidias_deliberate_negatives(name: str, at: datetime, message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        rim.verify(vectors.read(f"{REAL}{name}.xml"), at)


@pytest.mark.parametrize("name", nvidia_samples.rims() or ["Driver_RIM_test_no_gpu.swidtag"])
def test_nvidias_samples(name: str) -> None:
    data = nvidia_samples.sample(name)
    found = rim.verify(data, THEN)
    assert len(found.content.measurements) == (21 if found.content.kind == "driver" else 12)
    with pytest.raises(Mismatch, match="and it is 2026-06-01"):
        rim.verify(data, NOW)


LINE = "line 8: Resource: "
ZEROS, FIRST = "0" * 96, DRIVER.resources[3].xml()  # index 3 stands in line 8
SECOND = DRIVER.resources[4].xml()
TWO = Resource(3, "False", ("1" * 96, "2" * 96)).xml()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('index="3"', 'index="4"', "line 9: Resource: the index 4 for the second time, after line 8"),
        ('index="3"', 'index="03"', f"{LINE}index is '03', expected 0 to 63"),
        ('index="3"', 'index="64"', f"{LINE}index is '64'"),
        ('index="3"', 'index="+3"', f"{LINE}index is "),
        ('index="3"', 'index=" 3"', f"{LINE}index is "),
        ('index="3"', 'index=""', f"{LINE}index is ''"),
        ('index="3" ', "", f"{LINE}no attribute index"),
        (FIRST, "", "line 4: Payload: no measurement 3; expected 0 to 63"),
        (FIRST, FIRST + FIRST, "line 9: Resource: the index 3 for the second time, after line 8"),
        (
            'index="3" active="False"',
            'index="3" active="false"',
            f"{LINE}active is 'false', expected True or",
        ),
        ('index="3" active="False"', 'index="3" active="0"', f"{LINE}active is '0'"),
        ('index="3" active="False"', 'index="3"', f"{LINE}no attribute active"),
        (FIRST, FIRST.replace('size="48"', 'size="32"'), f"{LINE}size is '32', expected '48'"),
        (FIRST, FIRST.replace(ZEROS, "0" * 94), f"{LINE}the digest '0+', expected 96 lower-case hex digits"),
        (FIRST, FIRST.replace(ZEROS, "A" * 96), f"{LINE}the digest 'A+', expected 96 lower-case hex digits"),
        (FIRST, FIRST.replace(ZEROS, "0" * 95 + "g"), f"{LINE}the digest "),
        (FIRST, FIRST.replace(ZEROS, " " + "0" * 95), f"{LINE}the digest "),
        (FIRST, FIRST.replace(ZEROS, ""), f"{LINE}the digest ''"),
        (FIRST, TWO.replace('alternatives="2"', 'alternatives="1"'), f"{LINE}1 alternatives, and 2 digests"),
        (FIRST, TWO.replace('alternatives="2"', 'alternatives="3"'), f"{LINE}3 alternatives, and 2 digests"),
        (FIRST, TWO.replace('alternatives="2"', 'alternatives="0"'), f"{LINE}0 alternatives, and 2 digests"),
        (
            FIRST,
            TWO.replace('alternatives="2"', 'alternatives="33"'),
            f"{LINE}alternatives is '33', expected",
        ),
        (
            FIRST,
            TWO.replace("Hash1", "Hash2"),
            f"{LINE}2 alternatives, and 2 digests that are not just those",
        ),
        (FIRST, TWO.replace("ns2:Hash1", "Hash1"), f"{LINE}an unknown attribute Hash1"),
        (FIRST, TWO.replace("2" * 96, "1" * 96), f"{LINE}two equal alternatives"),
        (FIRST, FIRST.replace("ns2:Hash0", "ns2:Hash1"), f"{LINE}1 alternatives, and 1 digests that are not"),
        (
            FIRST,
            FIRST.replace('alternatives="1"', 'alternatives="0"'),
            f"{LINE}0 alternatives, and 1 digests",
        ),
        (
            FIRST,
            FIRST.replace("ns2:Hash0", 'xmlns:a="urn:a" a:Hash0'),
            f"{LINE}an unknown attribute .urn:a.Hash0",
        ),
        (FIRST, FIRST.replace(' name="', ' more="" name="'), f"{LINE}an unknown attribute more"),
        (FIRST, FIRST.replace("Measurement", "Switch", 1), f"{LINE}type is 'Switch', expected 'Measurement'"),
        (FIRST, FIRST.replace("/>", ">text</ns0:Resource>"), f"{LINE}text where elements alone should be"),
        (FIRST, FIRST.replace("/>", "><ns0:Meta/></ns0:Resource>"), "line 8: Meta: an element too many"),
        (FIRST, FIRST.replace("ns0:Resource", "ns0:File"), "line 8: .*File, expected .*Resource"),
        (
            FIRST,
            FIRST.replace("ns0:Resource", 'a:Resource xmlns:a="urn:a"', 1),
            "line 8: .urn:a.Resource, exp",
        ),
        (FIRST, FIRST + "x", "line 4: Payload: text where elements alone should be"),
        ("<ns0:Payload ", '<ns0:Payload more="" ', "line 4: Payload: an unknown attribute more"),
        (
            'FirmwareManufacturerId="5703"',
            'FirmwareManufacturerId="3704"',
            "line 3: Meta: .*ManufacturerId is '3704'",
        ),
        (
            'PlatformManufacturerId="5703"',
            'PlatformManufacturerId=""',
            "line 3: Meta: .*PlatformManufacturerId is ''",
        ),
        ('PayloadType="direct"', 'PayloadType="indirect"', "line 3: Meta: PayloadType is 'indirect'"),
        ('edition="GPU"', 'edition="Switch"', "line 3: Meta: edition is 'Switch', expected 'GPU'"),
        (
            'edition="GPU"',
            'edition="GPU" RimLinkHash="00"',
            "line 3: Meta: an unknown attribute RimLinkHash",
        ),
        ('colloquialVersion="550.90.07" ', "", "line 3: Meta: no attribute colloquialVersion"),
        (
            '"550.90.07"',
            '"550.90.07 "',
            "line 3: Meta: the version '550.90.07 ', expected one as 550.90.07",
        ),
        ('"550.90.07"', '"55.90"', "line 3: Meta: the version '55.90'"),
        (
            'PlatformModel="GH100"',
            'PlatformModel="GB100"',
            "line 3: Meta: of the product GH100, beside another",
        ),
        ('name="GH100"', 'name="GB100"', "line 3: Meta: of the product GH100, beside another name of it"),
        ('patch="false"', 'patch="true"', "line 1: SoftwareIdentity: patch is 'true', expected 'false'"),
        ('supplemental="false"', 'supplemental="true"', "line 1: SoftwareIdentity: supplemental is 'true'"),
        (
            'corpus="false"',
            'xml:lang="en" corpus="false"',
            "line 1: SoftwareIdentity: an unknown attribute",
        ),
        ('corpus="false" ', "", "line 1: SoftwareIdentity: no attribute corpus"),
        ("    <ns0:Entity ", "    <ns0:Entity a='' ", "line 2: Entity: an unknown attribute a"),
        ("    <ns0:Entity ", "    <ns0:Link/><ns0:Entity ", "line 2: .*Link, expected .*Entity"),
        ("    </ns0:Payload>", "</ns0:Payload><ns0:Payload/>", "Payload, expected .*Signature"),
        ("    </ns0:Payload>", "</ns0:Payload>x", "line 1: SoftwareIdentity: text where elements alone"),
        ('tagCreator"/>', 'tagCreator"><ns0:Meta/></ns0:Entity>', "line 2: Meta: an element too many"),
        ('Id="5703"/>', 'Id="5703"><ns0:Meta/></ns0:Meta>', "line 3: Meta: an element too many"),
        (
            f' ns2:Hash0="{ZEROS}" name="Measurement_3"',
            ' name="Measurement_3"',
            f"{LINE}1 alternatives, and 0",
        ),
        (
            FIRST,
            FIRST.replace(f'alternatives="1" ns2:Hash0="{ZEROS}"', 'alternatives="0"'),
            f"{LINE}0 alternatives, and 0 digests",
        ),
        ("tagId=", "id=", "line 1: SoftwareIdentity: no attribute tagId"),
    ],
)
def test_what_is_malformed_though_signed(old: str, new: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        verify(resigned(replaced(old, new)))


NUMBER = 'xmlns:n="https://docs.nvidia.com/attestation/specs/latest/opaque-data.html" n:Value0="2"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            FIRST,
            FIRST.replace("ns2:Hash0", f"{NUMBER} ns2:Hash0"),
            "line 8: a value that is to be compared as",
        ),
        ("    </ns0:Payload>", f'<ns0:Resource index="64" {NUMBER}/></ns0:Payload>', "compared as a number"),
        ("GH100", "LS10", "line 3: a RIM of 'LS10', expected GH100 or GB and three digits"),
        ("GH100", "GR100", "line 3: a RIM of 'GR100'"),
    ],
)
def test_what_is_signed_and_of_no_use(old: str, new: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        verify(resigned(replaced(old, new, -1)))


@pytest.mark.parametrize(
    ("whole", "index"),
    [*((DRIVER, i) for i in (7, *range(21, 41))), *((VBIOS, i) for i in (*range(7), *range(8, 13)))],
)
def test_a_rim_that_leaves_one_out(whole: Rim, index: int) -> None:
    old = whole.resources[index].xml()
    data = resigned(replaced(old, old.replace('active="True"', 'active="False"')), whole)
    with pytest.raises(Refused, match=f"the RIM says nothing of the measurements {index}, which every"):
        verify(data)


@pytest.mark.parametrize("whole", [DRIVER, VBIOS, Rim.of("driver", Contents("BLACKWELL"))])
def test_a_rim_that_says_nothing(whole: Rim) -> None:
    with pytest.raises(Refused, match=r"the RIM says nothing of|0 measurements of a driver, expected 21"):
        verify(resigned(replaced('active="True"', 'active="False"', -1), whole))


def test_a_rim_that_says_more() -> None:
    data = resigned(replaced('index="41" active="False"', 'index="41" active="True"'))
    assert sorted(verify(data).content.measurements) == [7, *range(21, 42)]


def test_what_the_schemas_allow_beside() -> None:
    data = resigned(replaced('edition="GPU"', 'edition="GPU" summary="of a GPU"'))
    assert verify(data).content == verify(fake_nvidia.rim("driver")).content


def test_small_letters_in_a_version() -> None:
    data = resigned(replaced("96.00.9F.00.01", "96.00.9f.00.01"), VBIOS)
    assert verify(data).content.version == "96.00.9F.00.01"


@pytest.mark.parametrize("error", [Malformed, Mismatch, Refused])
def test_exit_codes(error: type[TinbootError]) -> None:
    assert {Malformed: 3, Mismatch: 4, Refused: 5}[error] == error.exit_code
