"""RIMs as NVIDIA's RIM service gives them, and their signature, every part of them free to be wrong.

    rim = Rim.of("driver", Contents("HOPPER"))
    xml = rim.xml(stub_nvidia.rim_chain(now))

A SWID tag (ISO/IEC 19770-2:2015) with attributes of TCG's RIM information model 1.01 and an enveloped XML
signature (XML Signature 1.1: Canonical XML 1.1, ecdsa-sha384 as r and s); text and order are those of
NV_GPU_DRIVER_GH100_550.144.03.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha384
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from lxml import etree
from stub_gpu_report import BLOCKS, ZERO, Contents, Kind, references
from stub_nvidia import CHIPS, Chain, pem, sign

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
DSIG, DSIG_MORE = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/04/xmldsig-more#"
C14N = "http://www.w3.org/2006/12/xml-c14n11"

_TEMPLATE = """<SoftwareIdentity xmlns="{swid}" xmlns:ns0="{swid}" xmlns:ns2="{sha384}" corpus="false" \
name="{product}" patch="false" supplemental="false" tagId="{tag}" version="1.0" tagVersion="0">
    <ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>
    <ns0:Meta xmlns:ns1="{tcg}" colloquialVersion="{version}" edition="GPU" product="{product}" \
revision="r1" PayloadType="direct" ns1:BindingSpec="RIMIM" ns1:BindingSpecVersion="1.01" \
ns1:PlatformManufacturerId="5703" ns1:PlatformManufacturerStr="NVIDIA Corporation" \
ns1:PlatformModel="{product}" ns1:FirmwareManufacturer="NVIDIA Corporation" \
ns1:FirmwareManufacturerId="{maker}"/>
    <ns0:Payload xmlns:SHA384="{sha384}">
{resources}    </ns0:Payload>
</SoftwareIdentity>
"""

_SIGNATURE = """<ds:Signature xmlns:ds="{dsig}"><ds:SignedInfo>\
<ds:CanonicalizationMethod Algorithm="{c14n}"/>\
<ds:SignatureMethod Algorithm="{more}ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms>\
<ds:Transform Algorithm="{dsig}enveloped-signature"/><ds:Transform Algorithm="{c14n}"/></ds:Transforms>\
<ds:DigestMethod Algorithm="{more}sha384"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>\
</ds:SignedInfo><ds:SignatureValue>{signature}</ds:SignatureValue>\
<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"""


class Resource(NamedTuple):
    """Reference values of measurement `at`. `hashes` in hex; `alternatives`: None, as many as there are."""

    at: int
    active: str
    hashes: tuple[str, ...]
    size: int = 48
    alternatives: int | None = None

    def xml(self) -> str:
        count = len(self.hashes) if self.alternatives is None else self.alternatives
        hashes = " ".join(f'ns2:Hash{n}="{value}"' for n, value in enumerate(self.hashes))
        return (
            f'        <ns0:Resource type="Measurement" index="{self.at}" active="{self.active}" '
            f'alternatives="{count}" {hashes} name="Measurement_{self.at}" size="{self.size}"/>\n'
        )


class Rim(NamedTuple):
    """What a RIM says. `id`: by which the RIM service knows it; it is not in the file."""

    id: str
    version: str
    product: str
    resources: tuple[Resource, ...]
    maker: str = "5703"

    @classmethod
    def of(cls, kind: Kind, contents: Contents) -> Rim:
        """The one that these contents, none of them altered, match."""
        version = contents.versions[kind == "vbios"]
        values = references(kind, version)
        resources = tuple(
            Resource(i, "True", tuple(v.hex() for v in values[i]))
            if i in values
            else Resource(i, "False", (ZERO.hex(),))
            for i in range(BLOCKS)
        )
        return cls(contents.rim_id(kind), version, CHIPS[contents.arch], resources)

    def active(self) -> dict[int, tuple[str, ...]]:
        return {r.at: r.hashes for r in self.resources if r.active == "True"}

    def with_hash(self, index: int, value: str) -> Rim:
        """The same with one value at `index`, active."""
        changed = Resource(index, "True", (value,))
        return self._replace(resources=tuple(changed if r.at == index else r for r in self.resources))

    def unsigned(self) -> bytes:
        lines = "".join(resource.xml() for resource in self.resources)
        names = {"swid": SWID, "sha384": SHA384, "tcg": TCG}
        tag = sha384(f"{self.id} {lines}".encode()).hexdigest()
        text = _TEMPLATE.format(
            **names, tag=tag, product=self.product, version=self.version, maker=self.maker, resources=lines
        )
        return text.encode()

    def xml(self, signer: Chain, *, key: Chain | None = None) -> bytes:
        """Signed. `key`: of another chain, whose key signs while `signer`'s certificates are shown."""
        return signed(self.unsigned(), signer, key=key)


def signed(document: bytes, signer: Chain, *, key: Chain | None = None) -> bytes:
    """`document` with an enveloped signature as its last element."""
    bodies = [pem([c]).decode().split("-----")[2].removeprefix("\n") for c in signer.der()]
    certificates = "".join(f"<ds:X509Certificate>{body}</ds:X509Certificate>" for body in bodies)
    digest = b64encode(sha384(canonical(document)).digest()).decode()

    def with_signature(value: str) -> bytes:
        names = {"dsig": DSIG, "more": DSIG_MORE, "c14n": C14N}
        element = _SIGNATURE.format(**names, digest=digest, signature=value, certificates=certificates)
        at = document.rindex(b"</")
        return document[:at] + element.encode() + document[at:]

    r, s = decode_dss_signature(sign((key or signer).key, signed_info(with_signature(""))))
    return with_signature(b64encode(r.to_bytes(48, "big") + s.to_bytes(48, "big")).decode())


def canonical(document: bytes) -> bytes:
    """What an enveloped signature digests: the document less its signature, canonical."""
    tree = etree.fromstring(document, _parser())
    for signature in tree.findall(f"{{{DSIG}}}Signature"):
        tree.remove(signature)
    return bytes(etree.tostring(tree, method="c14n"))


def signed_info(document: bytes) -> bytes:
    """What the signature value signs, canonical, with the namespaces that the document declares around it."""
    (found,) = etree.fromstring(document, _parser()).iter(f"{{{DSIG}}}SignedInfo")
    return bytes(etree.tostring(found, method="c14n"))


def _parser() -> etree.XMLParser:
    return etree.XMLParser(resolve_entities=False, no_network=True)
