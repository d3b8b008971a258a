"""What a host says and shows of itself, in one conversation, for one fresh nonce. None of it is believed.

GET /.well-known/tinfoil-attestation?nonce=<64 hex>     the v3 document
GET /.well-known/hpke-keys                              the key for encrypted bodies
GET /.well-known/tinfoil-certificate                    {"certificate": PEM}
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from tinboot.client.connection import PeerKey
from tinboot.client.fetch import Busy, Conversation, Origin
from tinboot.formats import attestationdocument, hpkekeys, reportdata
from tinboot.formats.attestationdocument import DocumentV3
from tinboot.formats.jsonfields import parse_object

#: Seconds for all of it: evidence of eight GPUs takes a guest some, a handshake under emulation, too.
SECONDS = 60.0

_CERTIFICATE = 64 << 10  # bytes: one with a hundred names has 12,000
_BUSY = 1.0  # seconds to wait where a guest that is asked too often does not say how long
_TRIES = 4


class Evidence(NamedTuple):
    """`tls`: SHA-256 of the SubjectPublicKeyInfo of the connection's key. `certificate`: that key's, DER, as
    the handshake showed it; `published`: PEM, as the host gives it out. `hpke`: the raw key it gives out.
    """

    nonce: bytes
    document: DocumentV3
    tls: bytes
    certificate: bytes
    published: str
    hpke: bytes


def fetch(origin: Origin, seconds: float = SECONDS, told: Callable[[str], None] = lambda _: None) -> Evidence:
    """`told` gets a line for each stage. Raises what `Conversation.get` and the formats raise."""
    nonce, peer = secrets.token_bytes(reportdata.NONCE), PeerKey()
    with Conversation(origin, seconds, peer=peer) as conversation:
        told(f"asking {origin.authority} for evidence")
        path = f"/.well-known/tinfoil-attestation?nonce={nonce.hex()}"
        document = attestationdocument.parse_v3(_patiently(conversation, path, attestationdocument.MAX_V3))
        told(f"asking {origin.authority} for its keys")
        hpke = hpkekeys.parse(_patiently(conversation, "/.well-known/hpke-keys", hpkekeys.SIZE))
        fields = parse_object(
            "certificate",
            _patiently(conversation, "/.well-known/tinfoil-certificate", _CERTIFICATE),
            _CERTIFICATE,
        )
        published = fields.lines("certificate", _CERTIFICATE)
        fields.end()
    if peer.expected is None:
        raise AssertionError("a host has answered without a key")
    return Evidence(nonce, document, peer.expected, peer.certificate, published, hpke)


def _patiently(conversation: Conversation, path: str, limit: int) -> bytes:
    """A guest bounds how often it collects evidence; what it says of when to come again is kept to."""
    for left in reversed(range(_TRIES)):
        try:
            return conversation.get(path, limit)
        except Busy as error:
            pause = _BUSY if error.after is None else error.after
            if not left or pause >= conversation.left:
                raise
            time.sleep(pause)
    raise AssertionError("the last try neither answered nor failed")
