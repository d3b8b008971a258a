"""From a GPU's key to the root: it holds for both architectures, and each check refuses what is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import stub_der as der
import stub_nvidia
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fake_gpus import endorsement, failures, presented
from fake_nvidia import NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_chain import AUTHORITY_KEY, CONSTRAINTS, KEY_USAGE, SUBJECT_KEY, spki
from stub_nvidia import HOPPER_FWID, TCB_INFO, Arch, Chain, Form

from tinboot.formats.errors import Malformed, Mismatch, TinbootError
from tinboot.verify import gpu_chain, gpu_roots
from tinboot.verify.certificate import parse
from tinboot.verify.gpu_chain import CHECKS, Endorsement, Presented, endorse, examine, present

GOOD = stub_nvidia.chain()
OTHER = stub_nvidia.key("another")

CA, NO_CA = der.sequence(der.true()), der.sequence()


@pytest.mark.parametrize("arch", ["HOPPER", "BLACKWELL"])
def test_both_architectures_hold(arch: Arch) -> None:
    chain = stub_nvidia.chain(arch, 3)
    found = endorse(presented(chain))
    chip = stub_nvidia.CHIPS[arch]
    assert (found.architecture, found.chip, found.fwid) == (arch, chip, stub_nvidia.FWID)
    assert found.hwmodel == f"{chip} A01 {'GSP' if arch == 'HOPPER' else 'FSP'} BROM"
    assert found.ueid == str(chain.forms[0].serial)
    assert found.key == chain.key.public_key()
    assert [own.der for own in found.chain] == list(chain.der())


def test_a_test_root_is_not_trusted_unless_named() -> None:
    with pytest.raises(
        Mismatch, match=r"root-pinned: the root 'NVIDIA Device Identity CA' \(SHA-256 [0-9a-f]{64}\)"
    ):
        endorse(presented(GOOD, gpu_roots.NVIDIA))


def test_what_holds_is_kept_for_the_same_bytes_and_roots_alone() -> None:
    pem, roots = stub_nvidia.chain(number=5).pem(), presented(GOOD).pinned
    first = gpu_chain.endorsed(pem, roots)
    assert gpu_chain.endorsed(pem, roots) is first
    with pytest.raises(Mismatch, match="root-pinned"):
        gpu_chain.endorsed(pem, gpu_roots.NVIDIA)
    with pytest.raises(Malformed):
        gpu_chain.endorsed(pem[:-40], roots)
    assert gpu_chain.endorsed(stub_nvidia.chain(number=6).pem(), roots) is not first


def test_pem_as_nvml_gives_it_with_the_buffers_zeros() -> None:
    pem = GOOD.pem()
    assert present(pem).chain == present(pem + bytes(40)).chain == presented(GOOD).chain
    with pytest.raises(Malformed, match="0 PEM blocks"):
        present(b"")


Case = tuple[str, str, Callable[[], Presented], type[TinbootError], str]


def at(number: int, change: Callable[[Form], Form]) -> Callable[[], Presented]:
    return lambda: presented(GOOD.put(number, change(GOOD.forms[number])))


def extended(number: int, oid: str, value: bytes, *, critical: bool = False) -> Callable[[], Presented]:
    return at(number, lambda form: form.with_extension(oid, value, critical=critical))


def without(number: int, oid: str) -> Callable[[], Presented]:
    return at(number, lambda form: form.without_extension(oid))


def named(number: int, name: str) -> Callable[[], Presented]:
    """With another common name, and the certificate below it issued by that."""

    def made() -> Presented:
        forms = GOOD.forms
        subject = (*(pair for pair in forms[number].subject if pair[0] != "CN"), ("CN", name))
        chain = GOOD.replace(number, subject=subject)
        return presented(chain.replace(number - 1, issuer=subject) if number else chain)

    return made


def two_algorithms() -> Presented:
    """The leaf says SHA-256 beside its signature, where nothing signs it."""
    chain = GOOD.der()
    own, beside = stub_nvidia.ECDSA_SHA384, der.sequence(der.oid("1.2.840.10045.4.3.2"))
    head, _, tail = chain[0].rpartition(own)
    found = [parse(one) for one in (head + beside + tail, *chain[1:])]
    return Presented(found, (found[-1].fingerprint,))


def again(*order: int) -> Callable[[], Presented]:
    def made() -> Presented:
        chain = [GOOD.forms[number] for number in order]
        return presented(GOOD._replace(forms=tuple(chain)), (parse(GOOD.der()[-1]).fingerprint,))

    return made


def broken() -> Iterator[Case]:
    yield "chain-length", "root twice", again(0, 1, 2, 3, 4, 4), Mismatch, "6 certificates, expected 5"
    other = partial(presented, stub_nvidia.chain(realm="x"), (parse(GOOD.der()[-1]).fingerprint,))
    yield "root-pinned", "another root of the same name", other, Mismatch, "is not trusted"

    parameters = "signature-parameters"
    yield parameters, "two algorithms", two_algorithms, Mismatch, "beside the signature than inside"
    sha256: dict[str, Any] = {
        "algorithm": der.sequence(der.oid("1.2.840.10045.4.3.2")),
        "hash": hashes.SHA256(),
    }
    pinned = at(4, lambda form: form._replace(**sha256))  # the pinned one's is not looked at
    yield parameters, "root by SHA-256", pinned, Mismatch, "not signed with ECDSA and SHA-384"
    p256 = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    yield parameters, "P-256", at(0, lambda form: form._replace(key=p256)), Mismatch, "is not of P-384"
    off = GOOD.forms[0].key[:-1] + bytes((GOOD.forms[0].key[-1] ^ 1,))
    yield parameters, "no point", at(0, lambda form: form._replace(key=off)), Malformed, "cannot be read"

    yield from broken_roles()

    for number in range(4):
        forged = at(number, lambda form: form._replace(signer=OTHER))
        yield "certificate-signatures", f"{number} by another key", forged, Mismatch, "does not hold"

    firmware = "firmware-identity"
    fwid = stub_nvidia.fwid_extension
    other_key = fwid("HOPPER", stub_nvidia.FWID, OTHER)
    yield (
        firmware,
        "another boot ROM",
        extended(0, HOPPER_FWID, other_key),
        Mismatch,
        "another boot ROM's key",
    )
    both = extended(0, TCB_INFO, fwid("BLACKWELL", stub_nvidia.FWID, OTHER))
    yield firmware, "both forms", both, Mismatch, "twice"
    yield firmware, "cut", extended(0, HOPPER_FWID, b"\x30"), Malformed, "firmware identity in"


def broken_roles() -> Iterator[Case]:
    roles = "certificate-roles"
    for number, name in (
        *((0, "GH100 A01 GSP BROM"), (0, "GB100 A01 GSP FMC LF"), (1, "GH100 A01 GSP FMC LF")),
        *((1, "GX100 A01 GSP BROM"), (2, "NVIDIA GH100 Identity"), (3, "NVIDIA GB100 Identity")),
        (3, "NVIDIA GH100 Identity 2"),
    ):
        message = "several chips" if "GB" in name else "where that of"
        yield roles, f"{number} named {name}", named(number, name), Mismatch, message
    for number in range(4):
        other = at(number, lambda form: form._replace(issuer=(("CN", "somebody"),)))
        yield roles, f"{number} by somebody", other, Mismatch, "names another issuer"
        wrong = extended(number, AUTHORITY_KEY, der.sequence(der.element(0x80, bytes(20))))
        yield roles, f"{number} by another key", wrong, Mismatch, "names another key of its issuer"
    unknown = extended(2, "1.2.3.4", b"", critical=True)
    yield roles, "critical", unknown, Mismatch, r"the critical extension 1\.2\.3\.4, which"
    yield roles, "SKI with more", extended(1, SUBJECT_KEY, der.octets(b"x") + b"\0"), Malformed, "too many"
    for what, change, message in (
        ("leaf is an authority", extended(0, CONSTRAINTS, CA, critical=True), "something else"),
        ("leaf signs certificates", extended(0, KEY_USAGE, b"\x03\x02\x02\x84", critical=True), "something"),
        (
            "leaf cannot sign data",
            extended(0, KEY_USAGE, b"\x03\x02\x03\x08", critical=True),
            "something else",
        ),
        ("leaf says nothing", without(0, KEY_USAGE), "something else than sign data"),
        ("no authority", extended(1, CONSTRAINTS, NO_CA, critical=True), "not marked as an authority"),
        ("constraints not critical", extended(2, CONSTRAINTS, CA), "not marked as an authority"),
        ("no constraints", without(3, CONSTRAINTS), "not marked as an authority"),
        ("signs no certificates", extended(1, KEY_USAGE, b"\x03\x02\x07\x80"), "may not sign certificates"),
        ("root without usage", without(4, KEY_USAGE), "may not sign certificates"),
        (
            "path of 0",
            extended(2, CONSTRAINTS, der.sequence(der.true(), der.integer(0)), critical=True),
            "allows 0",
        ),
        (
            "path of 2",
            extended(4, CONSTRAINTS, der.sequence(der.true(), der.integer(2)), critical=True),
            "there are 3",
        ),
    ):
        yield roles, what, change, Mismatch, message


CASES = tuple(broken())


@pytest.mark.parametrize(
    ("check", "what", "make", "error", "message"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES]
)
def test_each_check_refuses_its_own(
    check: str, what: str, make: Callable[[], Presented], error: type[TinbootError], message: str
) -> None:
    examined = examine(make())
    found = failures(examined.verdicts)
    assert list(found) == [check]
    assert type(found[check]) is error
    with pytest.raises(error, match=message):
        raise found[check]
    assert examined.endorsement is None


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == {check.id for check in CHECKS}


@pytest.mark.parametrize(
    "order",
    [
        (0,),
        (4,),
        (0, 1),
        (0, 1, 2, 3),
        (1, 2, 3, 4),
        (0, 2, 3, 4),
        (0, 2, 1, 3, 4),
        (0, 1, 2, 4, 4),
        (0, 0, 2, 3, 4),
    ],
)
def test_chains_that_are_cut_or_out_of_order(order: tuple[int, ...]) -> None:
    examined = examine(again(*order)())
    assert examined.endorsement is None
    assert failures(examined.verdicts)


def test_path_lengths_that_are_long_enough() -> None:
    for number, length in ((1, 0), (2, 1), (3, 2), (4, 3)):
        constraints = der.sequence(der.true(), der.integer(length))
        endorse(extended(number, CONSTRAINTS, constraints, critical=True)())


def test_an_authority_key_may_repeat_its_issuers_issuer_and_serial() -> None:
    identifier = der.element(0x80, x509_key_id(GOOD.forms[2]))
    name = der.context(1, der.context(4, stub_nvidia.name(GOOD.forms[2].issuer)))
    endorse(extended(1, AUTHORITY_KEY, der.sequence(identifier, name, der.element(0x82, b"\x05")))())
    endorse(without(1, AUTHORITY_KEY)())
    endorse(without(2, SUBJECT_KEY)())


def x509_key_id(form: Form) -> bytes:
    found = x509.load_der_x509_certificate(form.issue())
    return found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_dates_are_no_part_of_an_endorsement() -> None:
    assert endorse(presented(GOOD.replace(0, not_after=NOW - timedelta(days=900)))).fwid == stub_nvidia.FWID


def test_nothing_else_makes_an_endorsement() -> None:
    with pytest.raises(TypeError, match="made by verifying"):
        Endorsement(object(), presented(GOOD))
    found = endorsement()
    with pytest.raises(AttributeError, match="cannot be set"):
        found.root = "x"


def test_it_is_of_its_own_chain_and_root_alone() -> None:
    found = endorsement()
    assert found.is_of(presented(GOOD).chain, (found.root,))
    assert not found.is_of(presented(GOOD).chain, gpu_roots.NVIDIA)
    assert not found.is_of(presented(stub_nvidia.chain(number=1)).chain, (found.root,))
    assert not found.is_of(presented(GOOD).chain[:4], (found.root,))


def test_a_failure_is_not_kept() -> None:
    """What a chain's links are kept by is all that decides them."""
    forged = GOOD.replace(1, signer=OTHER)
    for _ in range(2):
        with pytest.raises(Mismatch, match="certificate-signatures"):
            endorse(presented(forged))
        endorse(presented(GOOD))


def agree(chain: Chain) -> None:
    """What this says of each link, the library says, too."""
    ders = chain.der()
    for below, above in pairwise(ders):
        own, issuer = x509.load_der_x509_certificate(below), x509.load_der_x509_certificate(above)
        try:
            own.verify_directly_issued_by(issuer)
            theirs = True
        except Exception:  # each of its errors is a no
            theirs = False
        try:
            gpu_chain.issued_by(parse(below), parse(above))
            gpu_chain.verify_link(parse(below), parse(above))
            ours = True
        except TinbootError:
            ours = False
        assert ours == theirs


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 3), st.sampled_from(["signer", "issuer", "serial", ""]), st.integers(1, 2**150))
def test_links_hold_where_the_librarys_do(number: int, field: str, serial: int) -> None:
    changes = {"signer": OTHER, "issuer": (("CN", "x"),), "serial": serial}
    agree(GOOD.replace(number, **{field: changes[field]}) if field else GOOD)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_change_of_a_certificate_is_accepted(changes: list[tuple[int, int]]) -> None:
    chain = list(GOOD.der())
    pinned = (parse(chain[-1]).fingerprint,)
    for where, byte in changes:
        number = where % len(chain)
        altered = bytearray(chain[number])
        altered[where % len(altered)] = byte
        chain[number] = bytes(altered)
    if chain == list(GOOD.der()):
        return
    try:
        found = [parse(one) for one in chain]
        endorse(Presented(found, pinned))
    except TinbootError:
        return
    raise AssertionError("a chain that was altered holds")


def test_a_key_is_of_p384_byte_for_byte() -> None:
    leaf = parse(GOOD.der()[0])
    gpu_chain.key_of(leaf)
    secp384r1, secp521r1 = bytes.fromhex("2b81040022"), bytes.fromhex("2b81040023")
    for key in (leaf.key.replace(secp384r1, secp521r1), leaf.key + b"\0", leaf.key[:-1]):
        assert key != leaf.key
        with pytest.raises(Mismatch, match="is not of P-384"):
            gpu_chain.key_of(leaf._replace(key=key))
