"""EHBP: bodies of HTTP messages encrypted from client to guest, whoever terminates TLS between them.

    request    header Ehbp-Encapsulated-Key: 64 hex digits; body: frames under an HPKE context
    response   header Ehbp-Response-Nonce: 64 hex digits; body: frames under keys from both
    frame      u32, big-endian, the length of what follows | ciphertext, no associated data

Encrypted HTTP Body Protocol, SPEC.md, 4.1 to 4.4; a response's keys are derived as in RFC 9458, 4.4. A frame
of length zero says nothing and takes no number. A body ends where HTTP says that it does, and one that was
cut between two frames is like a whole one: docs/ehbp.md says what follows from that.

What a message may take is bounded by `Limits`. After an error nothing more comes out.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.ehbp import hpke
from tinboot.ehbp.hpke import KEY, NONCE, TAG, Buffer
from tinboot.formats.errors import Malformed, Refused, TinbootError

ENCAPSULATED_KEY = "Ehbp-Encapsulated-Key"
RESPONSE_NONCE = "Ehbp-Response-Nonce"

#: RFC 9458, 4.4, step 2: max(Nn, Nk) bytes.
NONCE_LENGTH = 32

#: SPEC.md, 5.4.2: what a guest answers that has another key. RFC 9457 has the media type.
MISMATCH_STATUS = 422
PROBLEM_MEDIA_TYPE = "application/problem+json"
_MISMATCH_TYPE = "urn:ietf:params:ehbp:error:key-config"
MISMATCH = json.dumps({"type": _MISMATCH_TYPE, "title": "the request is encrypted for another key"}).encode()

#: Bytes of plaintext in each frame that is written here but the last of a write.
FRAME = 64 << 10

_LENGTH = 4  # bytes in front of a frame
_EMPTY_FRAMES = 1 << 10  # in one message; a writer's habit, or a way to keep a reader busy
_PROBLEM_LIMIT = 4096

_REQUEST_INFO = b"ehbp request"
_RESPONSE_LABEL = b"ehbp response"
_KEY_LABEL, _NONCE_LABEL = b"key", b"nonce"  # RFC 9458, 4.4
_RESPONSE_KEY = 32  # Nk of AES-256-GCM


class Limits(NamedTuple):
    """Of a message to be read, in bytes. `frame`: of ciphertext; some clients write a body as one frame.

    `total`: of plaintext.
    """

    frame: int = 16 << 20
    total: int = 1 << 30


class Sealer:
    """A body, into frames."""

    __slots__ = ("_sequence",)

    def __init__(self, sequence: hpke.Sequence) -> None:
        self._sequence = sequence

    def seal(self, data: Buffer) -> bytes:
        """As many whole frames as `data` takes; none if it is empty."""
        view = memoryview(data)
        parts: list[bytes] = []
        for start in range(0, len(view), FRAME):
            sealed = self._sequence.seal(view[start : start + FRAME])
            parts += (len(sealed).to_bytes(_LENGTH, "big"), sealed)
        return b"".join(parts)


class Opener:
    """Frames, as they arrive in pieces, into what they hold. `opened`: frames so far, but empty ones."""

    __slots__ = ("_empty", "_error", "_held", "_left", "_length", "_limits", "_sequence", "_view", "opened")

    def __init__(self, sequence: hpke.Sequence, limits: Limits) -> None:
        self._sequence = sequence
        self._limits = limits
        self._left = limits.total
        self._length = 0  # of the frame that is arriving; 0: its length is
        self._view = memoryview(bytearray(_LENGTH))  # room for what arrives of either
        self._held = 0  # bytes of it
        self._empty = 0
        self._error: TinbootError | None = None
        self.opened = 0

    @property
    def held(self) -> int:
        """Bytes that are kept for a frame that has not arrived whole."""
        return len(self._view)

    def feed(self, data: Buffer) -> list[bytes]:
        """What became whole with `data`, authenticated, in order.

        Raises `Malformed` for a frame that cannot be one, `Mismatch` for one that was not sealed as the next
        under this key, `Refused` past a limit. Of `data` nothing is told then, and later calls raise it too.
        """
        if self._error is not None:
            raise self._error
        found: list[bytes] = []
        view = memoryview(data)
        try:
            while view:
                view = self._take(view, found)
        except TinbootError as error:
            self._error = error
            self._view, self._held = memoryview(b""), 0
            raise
        return found

    def finish(self) -> None:
        """The body has ended. Raises `Malformed` in the middle of a frame."""
        if self._error is not None:
            raise self._error
        if self._held or self._length:
            raise Malformed(f"the body ends {self._held + _LENGTH * bool(self._length)} bytes into a frame")

    def _take(self, view: memoryview, found: list[bytes]) -> memoryview:
        """One step: a length, a frame, or what there is of it. Returns the rest of `view`."""
        wanted = self._length or _LENGTH
        if self._held == 0 and len(view) >= wanted:
            whole, rest = view[:wanted], view[wanted:]
        else:
            part = view[: wanted - self._held]
            self._keep(part, wanted)
            if self._held < wanted:
                return view[:0]
            whole, rest = self._view[:wanted], view[len(part) :]
        self._held = 0
        if self._length:
            found.append(self._sequence.open(whole))
            self.opened += 1
            self._left -= self._length - TAG
            if len(self._view) > FRAME + TAG:  # room of the usual size is kept for the next one
                self._view = memoryview(b"")
            self._length = 0
        else:
            self._length = self._judged(int.from_bytes(whole, "big"))
        return rest

    def _keep(self, part: memoryview, wanted: int) -> None:
        """In room that grows with what arrives, not with what was announced."""
        end = self._held + len(part)
        if end > len(self._view):
            room = bytearray(min(wanted, max(2 * end, FRAME + TAG)))
            room[: self._held] = self._view[: self._held]
            self._view = memoryview(room)
        self._view[self._held : end] = part
        self._held = end

    def _judged(self, length: int) -> int:
        """Before anything is gathered for a frame of this length."""
        if length == 0:
            self._empty += 1
            if self._empty > _EMPTY_FRAMES:
                raise Refused(f"more than {_EMPTY_FRAMES} empty frames in one body")
        elif length < TAG:
            raise Malformed(f"frame {self.opened} has {length} bytes, expected at least {TAG}")
        elif length > self._limits.frame:
            raise Refused(f"frame {self.opened} has {length} bytes, expected at most {self._limits.frame}")
        elif length - TAG > self._left:
            raise Refused(f"the body has more than {self._limits.total} bytes")
        return length


class Exchange:
    """The client's end of one request and its response.

    `header`: the value of Ehbp-Encapsulated-Key. Raises `Malformed` for a public key that is none.
    """

    __slots__ = ("_context", "_encapsulated", "header", "request")

    def __init__(self, public: bytes, ephemeral: X25519PrivateKey | None = None) -> None:
        self._encapsulated, self._context = hpke.sender(public, _REQUEST_INFO, ephemeral)
        self.header = self._encapsulated.hex()
        self.request = Sealer(self._context)

    def response(self, header: str, limits: Limits) -> Opener:
        """`header`: the value of Ehbp-Response-Nonce. Raises `Malformed` for what is none."""
        nonce = _hexadecimal(RESPONSE_NONCE, header, NONCE_LENGTH)
        return Opener(_response_keys(self._context, self._encapsulated, nonce), limits)


class Answer:
    """The guest's end. Raises `Malformed` for the value of a header that is no key."""

    __slots__ = ("_context", "_encapsulated", "request")

    def __init__(self, private: X25519PrivateKey, header: str, limits: Limits) -> None:
        self._encapsulated = _hexadecimal(ENCAPSULATED_KEY, header, KEY)
        self._context = hpke.recipient(self._encapsulated, private, _REQUEST_INFO)
        self.request = Opener(self._context, limits)

    def response(self, nonce: bytes) -> Sealer:
        """`nonce`: 32 random bytes, whose hex digits are the header of the response.

        For a request of which a frame was opened: before that, whoever asks may not be who wrote the
        request (SPEC.md, 7.4).
        """
        if not self.request.opened:
            raise ValueError("no frame of the request was opened: nothing says who shares its key")
        return Sealer(_response_keys(self._context, self._encapsulated, nonce))


def is_mismatch(status: int, content_type: str, body: bytes) -> bool:
    """Whether a response without nonce says that the request was encrypted for another key.

    Anyone on the way can say so: it is a reason to verify anew, and no more.
    """
    if status != MISMATCH_STATUS or content_type.partition(";")[0].strip().lower() != PROBLEM_MEDIA_TYPE:
        return False
    try:
        problem = json.loads(body) if len(body) <= _PROBLEM_LIMIT else None
    except (ValueError, RecursionError):
        return False
    return isinstance(problem, dict) and problem.get("type") == _MISMATCH_TYPE


def _response_keys(context: hpke.Context, encapsulated: bytes, nonce: bytes) -> hpke.Sequence:
    """RFC 9458, 4.4, with EHBP's label."""
    if len(nonce) != NONCE_LENGTH:
        raise ValueError(f"a nonce of {len(nonce)} bytes")
    secret = context.export(_RESPONSE_LABEL, _RESPONSE_KEY)
    extracted = hpke.extract(encapsulated + nonce, secret)
    return hpke.Sequence(
        hpke.expand(extracted, _KEY_LABEL, _RESPONSE_KEY), hpke.expand(extracted, _NONCE_LABEL, NONCE)
    )


def _hexadecimal(name: str, value: str, length: int) -> bytes:
    if not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise Malformed(f"{name} is {value[:80]!r}, expected {2 * length} lower-case hex digits")
    return bytes.fromhex(value)
