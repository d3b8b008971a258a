"""The signature of a RIM: one form, over everything, by the key that the chain says; and no way around it.

Each attack is on a RIM that is genuinely signed. xmlsec is the second opinion: it verifies with the same key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from hashlib import sha256

import fake_nvidia
import pytest
import stub_nvidia
import stub_rim
import vectors
import xmlsec
from fake_nvidia import NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from stub_gpu_report import Contents
from stub_rim import DSIG, Rim

from tinboot.builder import rim, rim_document, rim_signature
from tinboot.formats.errors import Malformed, Mismatch, TinbootError

CHAIN = fake_nvidia.rim_chain()
ROOT = (sha256(fake_nvidia.rim_root()).hexdigest(),)
GOOD = fake_nvidia.rim("driver")
CONTENT = rim.verify(GOOD, NOW, ROOT).content
TEXT = GOOD.decode()
(SIGNATURE,) = re.findall("<ds:Signature .*</ds:Signature>", TEXT, re.DOTALL)
(INFO,) = re.findall("<ds:SignedInfo>.*</ds:SignedInfo>", TEXT)
(REFERENCE,) = re.findall("<ds:Reference .*</ds:Reference>", TEXT)
(VALUE,) = re.findall("<ds:SignatureValue>(.*)</ds:SignatureValue>", TEXT)
(DIGEST,) = re.findall("<ds:DigestValue>(.*)</ds:DigestValue>", TEXT)
CERTIFICATES = re.findall("<ds:X509Certificate>[^<]*</ds:X509Certificate>", TEXT)
TRANSFORM = '<ds:Transform Algorithm="{}"/>'.format
EVIL = CONTENT.measurements[7][0]
CHANGED = TEXT.replace(EVIL, "f" * 96)


def verify(text: str) -> rim.Content:
    return rim.verify(text.encode(), NOW, ROOT).content


def test_certificates_come_leaf_first() -> None:
    *_, signature = rim_document.parse(GOOD).children()
    assert rim_signature.read(signature) == CHAIN.der()


@pytest.mark.parametrize("offset", [0, 47, 48, 95])
def test_each_byte_of_the_value_counts(offset: int) -> None:
    value = bytearray(base64.b64decode(VALUE))
    value[offset] ^= 1
    with pytest.raises(Mismatch, match="the signature of the RIM does not hold"):
        verify(TEXT.replace(VALUE, base64.b64encode(value).decode()))


@pytest.mark.parametrize("value", [bytes(96), b"\xff" * 96])
def test_values_that_no_key_makes(value: bytes) -> None:
    with pytest.raises(Mismatch, match="the signature of the RIM does not hold"):
        verify(TEXT.replace(VALUE, base64.b64encode(value).decode()))


def test_another_key_than_the_certificates() -> None:
    foreign = stub_nvidia.rim_chain(NOW, realm="another")
    with pytest.raises(Mismatch, match="the signature of the RIM does not hold"):
        verify(Rim.of("driver", Contents()).xml(CHAIN, key=foreign).decode())
    with pytest.raises(Mismatch, match="which is not trusted"):
        verify(Rim.of("driver", Contents()).xml(foreign).decode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (EVIL, "f" * 96),
        ("550.90.07", "550.90.08"),
        ('tagVersion="0"', 'tagVersion="1"'),
        ("NVIDIA Corporation", "NVIDIA corporation"),
        ('index="7" active="True"', 'index="7" active="False"'),
        ('name="Measurement_0"', 'name="Measurement_1"'),
        ('    <ns0:Resource type="Measurement" index="0"', '     <ns0:Resource type="Measurement" index="0"'),
        (' xmlns:SHA384="http://www.w3.org/2001/04/xmlenc#sha384"', ""),
    ],
)
def test_everything_is_signed(old: str, new: str) -> None:
    changed = TEXT.replace(old, new)
    assert changed != TEXT
    with pytest.raises(Mismatch, match="the RIM is not what was signed: its digest differs"):
        verify(changed)


def again(name: str) -> str:
    (found,) = re.findall(f"<ds:{name}[ >].*</ds:{name}>|<ds:{name} [^>]*/>", TEXT, re.DOTALL)
    return str(found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<ds:Reference URI=""', "<ds:Reference", "Reference: no attribute URI"),
        ('<ds:Reference URI=""', '<ds:Reference URI="#a"', "Reference: of a part, expected of the whole doc"),
        ('<ds:Reference URI=""', '<ds:Reference URI="file:///a"', "Reference: of a part"),
        ('<ds:Reference URI=""', '<ds:Reference Id="a" URI=""', "Reference: an unknown attribute Id"),
        (REFERENCE, REFERENCE * 2, "Reference: an element too many"),
        (REFERENCE, "", "SignedInfo: ends where .*Reference should be"),
        (TRANSFORM(f"{DSIG}enveloped-signature"), "", "Transforms: ends where .*Transform should be"),
        (
            TRANSFORM(f"{DSIG}enveloped-signature"),
            TRANSFORM(stub_rim.C14N),
            "Transform: the algorithm '.*c14n11', expected '.*enveloped-signature'",
        ),
        (TRANSFORM(stub_rim.C14N), "", "Transforms: ends where .*Transform should be"),
        (TRANSFORM(stub_rim.C14N), TRANSFORM(stub_rim.C14N) * 2, "Transform: an element too many"),
        (
            TRANSFORM(stub_rim.C14N),
            TRANSFORM(f"{DSIG}base64"),
            "Transform: the algorithm '.*base64', expected",
        ),
        (
            TRANSFORM(stub_rim.C14N),
            TRANSFORM("http://www.w3.org/TR/1999/REC-xpath-19991116"),
            "Transform: the algorithm '.*xpath-19991116', expected '.*c14n11'",
        ),
        (
            TRANSFORM(stub_rim.C14N),
            TRANSFORM("http://www.w3.org/TR/1999/REC-xslt-19991116"),
            "Transform: the algorithm '.*xslt",
        ),
        (stub_rim.C14N, "http://www.w3.org/2001/10/xml-exc-c14n#", "Method: the algorithm '.*xml-exc-c14n#'"),
        (stub_rim.C14N, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "Method: the algorithm '.*-2001"),
        (stub_rim.C14N, f"{stub_rim.C14N}#WithComments", "Method: the algorithm '.*#WithComments'"),
        (
            f'<ds:CanonicalizationMethod Algorithm="{stub_rim.C14N}"/>',
            f'<ds:CanonicalizationMethod Algorithm="{stub_rim.C14N}"><a/></ds:CanonicalizationMethod>',
            "a: an element too many",
        ),
        (
            TRANSFORM(f"{DSIG}enveloped-signature"),
            TRANSFORM(f"{DSIG}enveloped-signature").replace("/>", "><ds:XPath>/</ds:XPath></ds:Transform>"),
            "XPath: an element too many",
        ),
        ("#ecdsa-sha384", "#ecdsa-sha256", "SignatureMethod: the algorithm '.*sha256', expected '.*sha384'"),
        ("#ecdsa-sha384", "#hmac-sha384", "SignatureMethod: the algorithm '.*hmac-sha384'"),
        ("#ecdsa-sha384", "#rsa-sha384", "SignatureMethod: the algorithm '.*rsa-sha384'"),
        (f"{stub_rim.DSIG_MORE}sha384", "http://www.w3.org/2001/04/xmlenc#sha256", "DigestMethod: the algor"),
        (f"{stub_rim.DSIG_MORE}sha384", f"{DSIG}sha1", "DigestMethod: the algorithm"),
        (
            ' Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"',
            "",
            "DigestMethod: no attribute Algor",
        ),
        ("<ds:SignedInfo>", '<ds:SignedInfo Id="a">', "SignedInfo: an unknown attribute Id"),
        ("<ds:Signature xmlns", '<ds:Signature Id="a" xmlns', "Signature: an unknown attribute Id"),
        ("<ds:Transforms>", '<ds:Transforms a="">', "Transforms: an unknown attribute a"),
        ("<ds:KeyInfo>", '<ds:KeyInfo Id="a">', "KeyInfo: an unknown attribute Id"),
        ("<ds:X509Data>", '<ds:X509Data a="">', "X509Data: an unknown attribute a"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyValue/>", "KeyValue, expected .*X509Data"),
        ("</ds:X509Data>", "</ds:X509Data><ds:KeyName>a</ds:KeyName>", "KeyName: an element too many"),
        ("</ds:X509Data>", f"</ds:X509Data>{again('X509Data')}", "X509Data: an element too many"),
        ("<ds:X509Data>", "<ds:X509Data><ds:X509CRL/>", "X509CRL, expected .*X509Certificate"),
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>", "Object: an element too many"),
        ("<ds:SignatureValue>", '<ds:SignatureValue Id="a">', "SignatureValue: an unknown attribute Id"),
        (VALUE, "", "SignatureValue: 0 bytes, expected 96"),
        (VALUE, VALUE[:-4], "SignatureValue: 93 bytes, expected 96"),
        (VALUE, f"{VALUE}AAAA", "SignatureValue: 99 bytes, expected 96"),
        (VALUE, f"{VALUE}====", "SignatureValue: (no base64|base64 in another form)"),
        (VALUE, f" {VALUE}", "SignatureValue: no base64"),
        (VALUE, f"{VALUE[:4]}-{VALUE[4:]}", "SignatureValue: no base64"),
        (VALUE, f"{VALUE}<a/>", "SignatureValue: elements where text alone should be"),
        (DIGEST, DIGEST[:-4], "DigestValue: 45 bytes, expected 48"),
        (DIGEST, f"{DIGEST}a", "DigestValue: no base64"),
        (CERTIFICATES[0], "<ds:X509Certificate/>", "X509Certificate: 0 bytes, expected 1 to 8192"),
        ("".join(CERTIFICATES), CERTIFICATES[0], "X509Data: 1 certificates, expected 4"),
        ("".join(CERTIFICATES), "", "X509Data: 0 certificates"),
        (CERTIFICATES[3], CERTIFICATES[3] * 4, "X509Data: 7 certificates"),
        ("<ds:SignedInfo>", "<ds:SignedInfo>text", "SignedInfo: text where elements alone should be"),
        ("</ds:KeyInfo>", "</ds:KeyInfo>text", "Signature: text where elements alone should be"),
        (
            'http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>',
            'urn:a"><ds:SignedInfo>',
            "Signature, expected",
        ),
        (SIGNATURE, "", "SoftwareIdentity: there is no signature"),
        (SIGNATURE, SIGNATURE * 2, "Signature: an element too many"),
    ],
)
def test_another_form_of_signature(old: str, new: str, message: str) -> None:
    changed = TEXT.replace(old, new)
    assert changed != TEXT
    with pytest.raises(Malformed, match=f"^line [0-9]+: .*{message}"):
        verify(changed)


INNER = TEXT.strip()


@pytest.mark.parametrize(
    "wrapped",
    [
        CHANGED.replace(SIGNATURE, "").replace("</SoftwareIdentity>", f"{INNER}</SoftwareIdentity>"),
        CHANGED.replace("<ds:KeyInfo>", f"<ds:Object>{INNER}</ds:Object><ds:KeyInfo>"),
        CHANGED.replace("</ds:KeyInfo>", f"</ds:KeyInfo><ds:Object>{INNER}</ds:Object>"),
        CHANGED.replace("    </ns0:Payload>", f"{INNER}</ns0:Payload>"),
        CHANGED.replace(SIGNATURE, SIGNATURE.replace("<ds:SignedInfo>", f"{INNER}<ds:SignedInfo>")),
        TEXT.replace("    <ns0:Entity", f"{SIGNATURE}<ns0:Entity")
        .removesuffix("\n")
        .replace(f"{SIGNATURE}</S", "</S"),
        TEXT.replace(SIGNATURE, "").replace("    </ns0:Payload>", f"{SIGNATURE}</ns0:Payload>"),
        TEXT.replace(SIGNATURE, f"<ns0:Link>{SIGNATURE}</ns0:Link>"),
        TEXT.replace(
            "    <ns0:Payload ",
            f"    {re.findall('<ns0:Payload.*</ns0:Payload>', CHANGED, re.DOTALL)[0]}<ns0:Payload ",
        ),
        TEXT.replace(
            SIGNATURE, re.findall("<ns0:Payload.*</ns0:Payload>", CHANGED, re.DOTALL)[0] + SIGNATURE
        ),
        f"<SoftwareIdentity >{INNER}</SoftwareIdentity>",
    ],
)
def test_wrapping(wrapped: str) -> None:
    """The signed document is there, whole, and another one beside or around it."""
    assert wrapped != TEXT
    with pytest.raises(Malformed, match=r"^line [0-9]+: "):
        verify(wrapped)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<ns0:Payload ", '<ns0:Payload xmlns:ns2="urn:a" '),
        ("<ns0:Payload ", '<ns0:Payload xmlns:ns0="urn:a" '),
        (
            'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"',
            'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha256"',
        ),
        (
            '<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"',
            "<SoftwareIdentity",
        ),
        ('xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"', 'xmlns="urn:a"'),
    ],
)
def test_names_that_mean_something_else(old: str, new: str) -> None:
    changed = TEXT.replace(old, new)
    assert changed != TEXT
    with pytest.raises(Malformed, match=r"^line [0-9]+: "):
        verify(changed)


def test_a_namespace_beside() -> None:
    """Canonical XML has each declaration in it, used or not."""
    with pytest.raises(Mismatch, match="its digest differs"):
        verify(TEXT.replace("<ns0:Payload ", '<ns0:Payload xmlns:a="urn:a" '))
    with pytest.raises((Malformed, Mismatch)):  # a relative one cannot be canonicalised
        verify(TEXT.replace("<ns0:Payload ", '<ns0:Payload xmlns:a="b" '))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(
            'patch="false" supplemental="false"', "supplemental='false'  patch='false'"
        ),
        lambda text: text.replace("/>\n", " />\n", 3),
        lambda text: text + "\n\n",
        lambda text: text.replace("</ds:X509Certificate>", "\n</ds:X509Certificate>"),
        lambda text: text.replace("xmlns:ds=", "\nxmlns:ds="),
    ],
)
def test_what_canonical_xml_makes_equal(change: Callable[[str], str]) -> None:
    """It says the same and is signed, though its bytes are others: its SHA-256 then differs, too."""
    changed = change(TEXT)
    assert changed != TEXT
    assert verify(changed) == CONTENT
    assert rim.verify(changed.encode(), NOW, ROOT).sha256 != sha256(GOOD).hexdigest()


def xmlsec_accepts(data: bytes) -> bool:
    """Whether the leaf that GOOD came with signed `data`, by the reference implementation."""
    root = etree.fromstring(data, rim_document.parser())
    signature = root.find(f"{{{DSIG}}}Signature")
    if signature is None:
        return False
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(CHAIN.der()[0], xmlsec.constants.KeyDataFormatCertDer, None)
    try:
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


def accepted(data: bytes) -> bool:
    """Whether it is, and that it then says what was signed, and xmlsec agrees."""
    try:
        found = rim.verify(data, NOW, ROOT)
    except TinbootError:
        return False
    assert found.content == CONTENT
    assert xmlsec_accepts(data)
    return True


def test_the_second_opinion() -> None:
    assert accepted(GOOD)
    assert not xmlsec_accepts(CHANGED.encode())
    real = vectors.read("gpu/nvidia-attestation-sdk/rims/NV_GPU_DRIVER_GH100_550.144.03.xml")
    assert not xmlsec_accepts(real)  # by another key


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_altered_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, mask in changes:
        data[at] ^= mask
    accepted(bytes(data))


@settings(max_examples=200)
@given(st.integers(0, len(GOOD)), st.integers(0, 400), st.integers(0, len(GOOD)))
def test_moved_and_removed_bytes(begin: int, size: int, to: int) -> None:
    rest = GOOD[:begin] + GOOD[begin + size :]
    for data in (rest, rest[:to] + GOOD[begin : begin + size] + rest[to:]):
        if data != GOOD:
            accepted(data)


def elements() -> list[etree._Element]:
    return list(etree.fromstring(GOOD, rim_document.parser()).iter())


COUNT = len(elements())
KINDS = ["remove", "copy", "move", "rename", "attribute", "value", "text", "nest"]


@settings(max_examples=400)
@given(st.data())
def test_altered_trees(data: st.DataObject) -> None:
    """Whatever is done to the tree, what is then accepted says what was signed."""
    tree = elements()
    for _ in range(data.draw(st.integers(1, 3))):
        one, other = (tree[data.draw(st.integers(0, COUNT - 1))] for _ in range(2))
        parent = one.getparent()
        match data.draw(st.sampled_from(KINDS)):
            case "remove" if parent is not None:
                parent.remove(one)
            case "copy":
                other.append(etree.fromstring(etree.tostring(one)))
            case "move" if parent is not None and one not in other.iterancestors() and one is not other:
                other.insert(data.draw(st.integers(0, 2)), one)
            case "rename":
                one.tag = other.tag
            case "attribute":
                one.set(
                    data.draw(
                        st.sampled_from(["Id", "URI", "active", "index", f"{{{stub_rim.SHA384}}}Hash0"])
                    ),
                    "0",
                )
            case "value" if one.attrib:
                name = data.draw(st.sampled_from(sorted(map(str, one.attrib))))
                one.set(name, data.draw(st.sampled_from(["", "True", "7", "2", "f" * 96])))
            case "text":
                one.text = data.draw(st.sampled_from(["", " ", "\n", "AAAA", None]))
            case "nest":
                one.append(etree.Element(str(other.tag)))
    changed = etree.tostring(tree[0])
    accepted(changed)
