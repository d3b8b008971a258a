"""The XML signature of a RIM: W3C XML Signature 1.1, and of it the one form that NVIDIA's RIMs have.

    one Signature, the root's last child; one Reference, to the whole document (URI="") less the signature;
    Canonical XML 1.1; SHA-384; ECDSA of P-384, r and s of 48 bytes each (6.4.3); certificates, leaf first

`read` demands that form; signxml then verifies it with the key of a leaf whose chain was verified
(rim_chain.py), and what it says was signed is what counts (docs/adr/0009).
"""

from __future__ import annotations

import binascii
from datetime import datetime

from cryptography import x509
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import InvalidDigest, InvalidSignature, SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from tinboot.builder import rim_document
from tinboot.builder.rim_chain import COUNTS
from tinboot.builder.rim_document import Node
from tinboot.formats.errors import Malformed, Mismatch

_NAMESPACE = "http://www.w3.org/2000/09/xmldsig#"
SIGNATURE = f"{{{_NAMESPACE}}}Signature"

_ENVELOPED = f"{_NAMESPACE}enveloped-signature"
_CANONICAL = "http://www.w3.org/2006/12/xml-c14n11"
_ECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"

_DIGEST, _VALUE = 48, 96  # bytes

_CERTIFICATE_SIZE = 8 << 10  # NVIDIA's have up to 710 bytes


def read(signature: Node) -> tuple[bytes, ...]:
    """The DER of its certificates, leaf first. Raises `Malformed` for a signature of another form."""
    signature.attributes(())
    info, value, key_info = signature.parts(*_tags("SignedInfo", "SignatureValue", "KeyInfo"))

    info.attributes(())
    canonicalization, method, reference = info.parts(
        *_tags("CanonicalizationMethod", "SignatureMethod", "Reference")
    )
    _algorithm(canonicalization, _CANONICAL)
    _algorithm(method, _ECDSA)
    if reference.attributes({"URI"})["URI"]:
        raise reference.malformed("of a part, expected of the whole document")
    transforms, digest_method, digest = reference.parts(*_tags("Transforms", "DigestMethod", "DigestValue"))
    transforms.attributes(())
    enveloped, canonical = transforms.parts(*_tags("Transform", "Transform"))
    _algorithm(enveloped, _ENVELOPED)
    _algorithm(canonical, _CANONICAL)
    _algorithm(digest_method, _SHA384)
    _base64(digest, _DIGEST)

    _base64(value, _VALUE)

    key_info.attributes(())
    (x509_data,) = key_info.parts(*_tags("X509Data"))
    x509_data.attributes(())
    certificates = x509_data.children()
    if len(certificates) not in COUNTS:
        raise x509_data.malformed(f"{len(certificates)} certificates, expected 4")
    x509_data.parts(*_tags(*["X509Certificate"] * len(certificates)))
    return tuple(_base64(certificate) for certificate in certificates)


def verify(data: bytes, leaf: x509.Certificate, at: datetime) -> Node:
    """What `leaf` signed of `data`, read anew from the bytes that were hashed. `read` came before.

    Raises `Mismatch` where the signature does not hold.
    """
    demanded = SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        verification_time=at,
    )
    try:
        result = XMLVerifier().verify(
            data, x509_cert=leaf, parser=rim_document.parser(), expect_config=demanded
        )
    except InvalidDigest:
        raise Mismatch("the RIM is not what was signed: its digest differs") from None
    except InvalidSignature as error:
        raise Mismatch(f"the signature of the RIM does not hold: {error}") from None
    except (SignXMLException, etree.LxmlError, ValueError) as error:
        raise Malformed(f"the signature of the RIM cannot be verified: {error}") from None
    if isinstance(result, list) or result.signed_xml is None:
        raise Mismatch("the signature of the RIM covers something else than one document")
    return Node(result.signed_xml)


def _tags(*names: str) -> tuple[str, ...]:
    return tuple(f"{{{_NAMESPACE}}}{name}" for name in names)


def _algorithm(node: Node, expected: str) -> None:
    found = node.attributes({"Algorithm"})["Algorithm"]
    if found != expected:
        raise node.malformed(f"the algorithm {found[:200]!r}, expected {expected!r}")
    node.parts()


def _base64(node: Node, size: int | None = None) -> bytes:
    text = node.text().replace("\n", "")
    try:
        found = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise node.malformed(f"no base64: {error}") from None
    if binascii.b2a_base64(found, newline=False).decode() != text:  # what the decoder bears with
        raise node.malformed("base64 in another form than its own")
    if len(found) != size if size else not 0 < len(found) <= _CERTIFICATE_SIZE:
        raise node.malformed(f"{len(found)} bytes, expected {size or f'1 to {_CERTIFICATE_SIZE}'}")
    return found
