"""RIMs of the fake NVIDIA: the text and the signature are as in NVIDIA's own."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from hashlib import sha384

import pytest
import stub_nvidia
import stub_rim
import vectors
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree
from stub_gpu_report import ACTIVE, Contents, Kind
from stub_nvidia import Arch
from stub_rim import Rim

SIGNER = stub_nvidia.rim_chain(datetime(2026, 6, 1, tzinfo=UTC))
REAL = "gpu/nvidia-attestation-sdk/rims/NV_GPU_DRIVER_GH100_550.144.03.xml"


def part(xml: bytes, name: str) -> list[bytes]:
    return [base64.b64decode(t) for t in re.findall(rf"<ds:{name}>([^<]*)<".encode(), xml)]


def digest_holds(xml: bytes) -> bool:
    return part(xml, "DigestValue") == [sha384(stub_rim.canonical(xml)).digest()]


def signature_holds(xml: bytes) -> bool:
    (value,) = part(xml, "SignatureValue")
    key = x509.load_der_x509_certificate(part(xml, "X509Certificate")[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = (int.from_bytes(value[:48], "big"), int.from_bytes(value[48:], "big"))
    try:
        key.verify(encode_dss_signature(*numbers), stub_rim.signed_info(xml), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def test_what_we_sign_is_what_nvidia_signs() -> None:
    real = vectors.read(REAL)
    assert digest_holds(real)
    assert signature_holds(real)


@pytest.mark.parametrize("kind", ["driver", "vbios"])
@pytest.mark.parametrize("arch", ["HOPPER", "BLACKWELL"])
def test_signed(kind: Kind, arch: Arch) -> None:
    rim = Rim.of(kind, Contents(arch))
    xml = rim.xml(SIGNER)
    assert digest_holds(xml)
    assert signature_holds(xml)
    assert part(xml, "X509Certificate") == list(SIGNER.der())
    assert tuple(rim.active()) == ACTIVE[kind]


def shape(xml: bytes) -> list[object]:
    """Elements and attributes in order, but no value that is one RIM's own."""
    own = {"name", "tagId", "colloquialVersion", "active", "alternatives"}
    found: list[object] = []
    for element in etree.fromstring(xml).iter():
        attributes = [(str(name), str(value)) for name, value in element.attrib.items()]
        found += [element.tag, dict(element.nsmap)]
        found += [
            (name, None if name in own or "Hash" in name else value)
            for name, value in attributes
            if not re.search("Hash[1-9]", name)
        ]
    return found


def test_the_text_is_as_nvidia_writes_it() -> None:
    assert shape(Rim.of("driver", Contents()).xml(SIGNER)) == shape(vectors.read(REAL))


def test_altered() -> None:
    rim = Rim.of("driver", Contents())
    xml = rim.xml(SIGNER)
    value = rim.active()[21][0].encode()
    changed = xml.replace(value, value[::-1])
    assert not digest_holds(changed)
    assert signature_holds(changed)


def test_signed_by_another_key() -> None:
    stranger = stub_nvidia.rim_chain(datetime(2026, 6, 1, tzinfo=UTC), realm="another")
    xml = Rim.of("driver", Contents()).xml(SIGNER, key=stranger)
    assert digest_holds(xml)
    assert not signature_holds(xml)
    assert part(xml, "X509Certificate") == list(SIGNER.der())


def test_one_value_is_replaced() -> None:
    rim = Rim.of("vbios", Contents()).with_hash(3, "ab" * 48)
    assert rim.active()[3] == ("ab" * 48,)
    assert b'index="3" active="True" alternatives="1" ns2:Hash0="' + b"ab" * 48 in rim.xml(SIGNER)
