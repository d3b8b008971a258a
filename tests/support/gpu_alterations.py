"""Ways to break one place of what gpu_mutations.py makes: each function gives what makes the broken whole."""

from __future__ import annotations

from collections.abc import Callable

import stub_der as der
import stub_gpu_report
import stub_nvidia
import stub_ocsp
import stub_rim
from gpu_mutations import NONCE, NOW, Subject, answers, document, pin, pinned, signers, subject
from stub_gpu_report import Contents, Kind
from stub_nvidia import Chain, chain
from stub_ocsp import Answer

from tinboot.formats.gpureference import Rim

C = Contents(nonce=NONCE)
BLACKWELL = Contents("BLACKWELL", nonce=NONCE)


def flip(offset: int) -> Callable[[], Subject]:
    """One bit of the signed report."""

    def alter(report: bytes) -> bytes:
        at = offset % len(report)
        return report[:at] + bytes((report[at] ^ 1,)) + report[at + 1 :]

    return lambda: subject(C, alter=alter)


def report(**fields: object) -> Callable[[], Subject]:
    return lambda: subject(C._replace(**fields))  # type: ignore[arg-type]  # each field is its own type


def blackwell(**fields: object) -> Callable[[], Subject]:
    return lambda: subject(BLACKWELL._replace(**fields))  # type: ignore[arg-type]  # each field is its own type


def opaque(kind: int, data: bytes) -> Callable[[], Subject]:
    """With other `data` in a field of the opaque data."""
    fields = tuple(field._replace(data=data) if field.type == kind else field for field in C.fields())
    return report(opaque=fields)


def certificates(change: Callable[[Chain], Chain]) -> Callable[[], Subject]:
    """The chain that is shown; the report is signed by the GPU's own key."""
    return lambda: subject(C, chain=change(chain()))


def form(at: int, change: Callable[[stub_nvidia.Form], stub_nvidia.Form]) -> Callable[[], Subject]:
    return certificates(lambda c: c.put(at, change(c.forms[at])))


def signed_by_nobody(c: Chain) -> Chain:
    return c.replace(1, signer=stub_nvidia.key("nobody's"))


def rim(kind: Kind, change: Callable[[], tuple[Rim, bytes]]) -> Callable[[], Subject]:
    """One of the two RIMs, pinned as it is."""

    def make() -> Subject:
        made = {"driver": pinned("driver"), "vbios": pinned("vbios")} | {kind: change()}
        return subject(C, rims=tuple(made.values()))

    return make


def resigned(kind: Kind, change: Callable[[stub_rim.Rim], stub_rim.Rim]) -> Callable[[], Subject]:
    """A RIM that says something else, genuinely signed."""

    def make() -> tuple[Rim, bytes]:
        says = change(document(kind))
        return pin(kind, says, says.xml(signers()))

    return rim(kind, make)


def rewritten(kind: Kind, old: bytes, new: bytes) -> Callable[[], Subject]:
    """A RIM altered after it was signed."""

    def make() -> tuple[Rim, bytes]:
        data = pinned(kind)[1]
        assert data.count(old) >= 1
        return pin(kind, document(kind), data.replace(old, new, 1))

    return rim(kind, make)


def authored(kind: Kind, change: Callable[[Chain], Chain], *, key: bool = False) -> Callable[[], Subject]:
    """A RIM whose signer's chain is another; `key`: another chain's key signs, the genuine chain is shown."""

    def make() -> tuple[Rim, bytes]:
        other = change(signers())
        xml = document(kind).xml(signers(), key=other) if key else document(kind).xml(other)
        return pin(kind, document(kind), xml)

    return rim(kind, make)


def ocsp(change: Callable[[list[Answer]], list[Answer]]) -> Callable[[], Subject]:
    """The answers about provisioner's issuer, boot ROM and so on: certificates 1 to 3."""
    return lambda: subject(C, answers=change(answers()))


def first(**fields: object) -> Callable[[], Subject]:
    return ocsp(lambda a: [a[0]._replace(**fields), *a[1:]])  # type: ignore[arg-type]  # each field is its own type


def with_rims(change: Callable[[list[Answer]], list[Answer]]) -> Callable[[], Subject]:
    """Answers about the RIMs' signers, too."""
    return lambda: subject(C, answers=[*answers(), *change(stub_ocsp.answers(signers(), NOW))])


def no_purpose(a: list[Answer]) -> list[Answer]:
    signer = a[0].signer
    return [a[0]._replace(signer=signer.put(0, signer.forms[0].without_extension("2.5.29.37"))), *a[1:]]


def by_nobody(a: list[Answer]) -> list[Answer]:
    return [a[0]._replace(signer=a[0].signer._replace(key=stub_nvidia.key("nobody's"))), *a[1:]]


class Bare(Answer):
    """One that encloses no certificate: whoever checks it has the responder's."""

    def pack(self) -> bytes:
        data = self._data()
        signature = der.bits(stub_nvidia.sign(self.signer.key, data))
        basic = der.octets(der.sequence(data, stub_nvidia.ECDSA_SHA384, signature))
        typed = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), basic)
        return der.sequence(der.element(0x0A, b"\0"), der.context(0, typed))


def by_issuer_alone(a: list[Answer]) -> list[Answer]:
    return [Bare(*by_issuer(a)[0]), *a[1:]]


def by_issuer(a: list[Answer]) -> list[Answer]:
    gpu = chain()
    return [a[0]._replace(signer=Chain((gpu.forms[2],), gpu.forms[1].signer)), *a[1:]]


def without(kind: Kind, *indexes: int) -> Callable[[stub_rim.Rim], stub_rim.Rim]:
    def change(says: stub_rim.Rim) -> stub_rim.Rim:
        return says._replace(
            resources=tuple(
                r._replace(active="False") if r.at in indexes or not indexes else r for r in says.resources
            )
        )

    return change


def upper(says: stub_rim.Rim) -> stub_rim.Rim:
    return says._replace(
        resources=tuple(r._replace(hashes=tuple(h.upper() for h in r.hashes)) for r in says.resources)
    )


def short(says: stub_rim.Rim) -> stub_rim.Rim:
    return says._replace(resources=tuple(r._replace(size=47) if r.at == 7 else r for r in says.resources))


def conflicting(says: stub_rim.Rim) -> stub_rim.Rim:
    value = stub_gpu_report.references("driver", C.versions[0])[21][0].hex()
    return says.with_hash(21, value)


def altered_hash(kind: Kind, index: int) -> Callable[[], Subject]:
    value = pinned(kind)[0].measurements[index][0].encode()
    return rewritten(kind, value, value[:-1] + (b"0" if value[-1:] != b"0" else b"1"))
