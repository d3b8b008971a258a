"""AMD's roots, pinned by the SHA-256 of their DER. A test root is trusted only where someone names it.

Intermediates are not pinned: AMD has reissued one (the ASK of Genoa), and the root's signature counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from tinboot.formats.errors import Unavailable
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line, line_named
from tinboot.verify import amd_certificates
from tinboot.verify.certificate import Certificate, common_name, read


class Root(NamedTuple):
    """`fingerprint`: SHA-256 of the certificate's DER, in lower-case hex."""

    line: Line
    fingerprint: str


#: Equal in google/go-sev-guest, virtee/sev, trustee and constellation.
AMD = (
    Root(MILAN, "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    Root(GENOA, "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    Root(TURIN, "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
)


def test_root(certificate: Certificate) -> Root:
    """A root that is not AMD's, for the line that its name says. Raises `Refused` for another name."""
    return Root(line_named(certificate.common_name.removeprefix("ARK-")), certificate.fingerprint)


def intermediate_of(vek: Certificate, offered: Iterable[Certificate]) -> Certificate:
    """The certificate that `vek` says issued it: of `offered`, else AMD's that ships here.

    Raises `Unavailable` where neither has it.
    """
    for certificate in offered:
        if certificate.subject == vek.issuer:
            return certificate
    name = common_name(vek.issuer)
    shipped = amd_certificates.INTERMEDIATES.get(name)
    if shipped is None or _shipped(shipped).subject != vek.issuer:
        raise Unavailable(
            f"the certificate of {name[:60]!r}, which issued the report's, is not at hand",
            "give the chain along: --chain FILE",
        )
    return _shipped(shipped)


def root_of(intermediate: Certificate, offered: Iterable[Certificate]) -> Certificate:
    """The root that `intermediate` says issued it: of `offered`, else AMD's. Raises `Unavailable`."""
    for certificate in offered:
        if certificate.subject == intermediate.issuer:
            return certificate
    name = common_name(intermediate.issuer)
    for line in LINES:
        root = _shipped(amd_certificates.ROOTS[line.name])
        if root.subject == intermediate.issuer:
            return root
    raise Unavailable(
        f"the root {name[:60]!r} is not at hand",
        "give the chain along: --chain FILE",
    )


@cache
def _shipped(pem: bytes) -> Certificate:
    return read(pem)[0]
