"""The chain to a root: it holds for every line and kind of key, and each check refuses what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fake_amd
import pytest
import stub_chain
import stub_der as der
import stub_report
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fake_amd import failures, presented
from stub_chain import Form, pss

from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line
from tinboot.verify import roots
from tinboot.verify.chain import CHECKS, Endorsement, Kind, Presented, endorse, examine

SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null())
KINDS: tuple[Kind, ...] = ("VCEK", "VLEK")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_line_and_kind_holds(line: Line, kind: Kind) -> None:
    found = endorse(presented(line, kind))
    assert (found.line, found.kind, found.tcb) == (line, kind, stub_report.TCBS[line])
    assert found.hwid == (stub_report.CHIP_ID[: line.hwid] if kind == "VCEK" else None)
    assert found.csp_id == (None if kind == "VCEK" else "CN=stub.provider.example")
    assert found.key == fake_amd.KEY.public_key()


def test_a_test_root_is_not_trusted_unless_named() -> None:
    given = presented()
    with pytest.raises(Mismatch, match=r"root-pinned: the root 'ARK-Genoa' \(SHA-256 [0-9a-f]{64}\) is not"):
        endorse(Presented(given.vek, given.intermediate, given.root, roots.AMD))


def rsa_chain(size: int, exponent: int) -> Presented:
    """A chain whose intermediate has another key, with which it really signs."""
    key = rsa.generate_private_key(exponent, size)
    amd = fake_amd.authority()
    return presented(amd=amd._replace(keys={**amd.keys, "ask": key}))


def own(oid: str, value: bytes, *, critical: bool = False) -> Any:
    """A change of one extension."""
    return lambda form: form.with_extension(oid, value, critical=critical)


def without(oid: str) -> Any:
    return lambda form: form.without_extension(oid)


def to(**fields: Any) -> Any:
    """A change of fields of a form."""
    return lambda form: form._replace(**fields)


def other_spki(_: Form) -> bytes:
    return stub_chain.spki(ec.generate_private_key(ec.SECP256R1()).public_key())


#: Check, what is wrong, how to make the chain, error, part of the message.
Case = tuple[str, str, Any, type[TinbootError], str]


def broken_roots() -> Iterator[Case]:
    yield (
        "root-pinned",
        "another root of the same name",
        lambda: Presented(*chain_of(presented(root=to(serial=7))), presented().pinned),
        Mismatch,
        "is not trusted",
    )
    yield (
        "root-pinned",
        "a root of another line",
        misnamed,
        Mismatch,
        "the root of Milan is called 'ARK-Genoa'",
    )


def broken_parameters() -> Iterator[Case]:
    parameters = "signature-parameters"
    salt, mask = pss(32), pss(mask=der.sequence(der.oid("1.2.840.113549.1.1.8"), SHA256))
    for what, algorithm in (("salt", salt), ("hash", pss(hash_=SHA256)), ("mask", mask)):
        for place in ("vek", "intermediate", "root"):
            change = {place: to(algorithm=algorithm)}
            yield parameters, f"{what} of {place}", lambda c=change: presented(**c), Mismatch, "SHA-384 and a"
    trailer = pss(trailer=der.context(3, der.integer(2)))
    pkcs1 = der.sequence(der.oid("1.2.840.113549.1.1.12"), der.null())
    for what, algorithm in (("trailer", trailer), ("PKCS #1 1.5", pkcs1)):
        change = {"vek": to(algorithm=algorithm)}
        yield parameters, what, lambda c=change: presented(**c), Mismatch, "SHA-384 and a salt"
    change = {"vek": to(outer_algorithm=pss(trailer=b""))}
    yield parameters, "two algorithms", lambda c=change: presented(**c), Mismatch, "beside the signature"
    yield (
        parameters,
        "RSA-2048",
        lambda: rsa_chain(2048, 65537),
        Mismatch,
        "not of RSA-4096 with exponent 65537",
    )
    yield (
        parameters,
        "exponent 3",
        lambda: rsa_chain(4096, 3),
        Mismatch,
        "not of RSA-4096 with exponent 65537",
    )
    change = {"vek": lambda form: form._replace(key=other_spki(form))}
    yield parameters, "P-256", lambda c=change: presented(**c), Mismatch, "not of P-384"
    change = {"vek": to(key=der.sequence(der.sequence(der.oid("1.2.3")), der.bits(b"x")))}
    yield parameters, "unknown key", lambda c=change: presented(**c), Malformed, "cannot be read"


def broken_roles() -> Iterator[Case]:
    roles = "certificate-roles"
    for name in ("SEV-VCEK ", "sev-vcek", "SEV-Genoa", "ARK-Genoa", "SEV-VCEK\0"):
        change = {"vek": to(subject=name)}
        yield roles, f"VCEK named {name!r}", lambda c=change: presented(**c), Mismatch, "expected 'SEV-VCEK'"
    change = {"intermediate": to(subject="SEV-Milan"), "vek": to(issuer="SEV-Milan")}
    yield roles, "ASK of another line", lambda c=change: presented(**c), Mismatch, "expected 'SEV-Genoa'"
    change = {"vek": to(issuer="SEV-Milan")}
    yield roles, "another issuer", lambda c=change: presented(**c), Mismatch, "names another issuer"
    change = {"vek": to(organisation="Advanced Micro Devices")}
    yield roles, "issuer's organisation", lambda c=change: presented(**c), Mismatch, "names another issuer"
    change = {"root": to(issuer="ARK-Milan")}
    yield roles, "root of another issuer", lambda c=change: presented(**c), Mismatch, "names another issuer"
    yield roles, "VLEK by an ASK", vlek_by_ask, Mismatch, "expected 'SEV-VLEK-Genoa'"
    ca, leaf = der.sequence(der.true()), der.sequence()
    usage, constraints = stub_chain.KEY_USAGE, stub_chain.CONSTRAINTS
    for what, change, message in (
        ("VCEK is an authority", {"vek": own(constraints, ca)}, "may sign certificates"),
        ("VCEK signs certificates", {"vek": own(usage, b"\x03\x02\x02\x84")}, "may sign certificates"),
        ("ASK is none", {"intermediate": own(constraints, leaf, critical=True)}, "as an authority"),
        ("ASK without constraints", {"intermediate": without(constraints)}, "as an authority"),
        ("ASK's are not critical", {"intermediate": own(constraints, ca)}, "as an authority"),
        ("ASK with more below it", {"intermediate": own(constraints, ca, critical=True)}, "number of auth"),
        ("ASK signs no certificates", {"intermediate": own(usage, b"\x03\x02\x07\x80")}, "may not sign"),
        ("ASK without usage", {"intermediate": without(usage)}, "may not sign"),
        ("ARK without usage", {"root": without(usage)}, "may not sign"),
        ("ARK is none", {"root": own(constraints, leaf, critical=True)}, "as an authority"),
    ):
        yield roles, what, lambda c=change: presented(**c), Mismatch, message
    change = {"intermediate": own(usage, b"\x03\x01\x00")}
    yield roles, "usage of no bits", lambda c=change: presented(**c), Malformed, "key usage of 030100"


def broken_signatures() -> Iterator[Case]:
    signatures = "certificate-signatures"
    change = {"vek": to(salt=32)}
    yield signatures, "salt of another length", lambda c=change: presented(**c), Mismatch, "by 'SEV-Genoa'"
    change = {"vek": to(signer="asvk")}
    yield signatures, "VCEK by another key", lambda c=change: presented(**c), Mismatch, "by 'SEV-Genoa'"
    change = {"intermediate": to(signer="ask")}
    yield signatures, "ASK by itself", lambda c=change: presented(**c), Mismatch, "'SEV-Genoa' by 'ARK-Genoa'"


def broken_identities() -> Iterator[Case]:
    both = own(stub_chain.CSP_ID, der.element(der.IA5, b"CN=x"))
    identity = "vlek-identity"
    yield identity, "chip and provider", lambda: presented(vek=both), Mismatch, "names a chip and a provider"
    neither = without(stub_chain.HWID)
    yield identity, "neither", lambda: presented(vek=neither), Mismatch, "neither chip nor provider"
    chip = own(stub_chain.HWID, bytes(64))
    yield identity, "VLEK of a chip", lambda: presented(GENOA, "VLEK", vek=chip), Mismatch, "names a chip and"
    change_kind = {"vek": lambda form: chip(form.without_extension(stub_chain.CSP_ID))}
    yield (
        identity,
        "VLEK of a chip alone",
        lambda c=change_kind: presented(GENOA, "VLEK", **c),
        Mismatch,
        "a VLEK that names a chip",
    )


def chain_of(given: Presented) -> tuple[Any, Any, Any]:
    return given.vek, given.intermediate, given.root


def misnamed() -> Presented:
    given = presented()
    return Presented(*chain_of(given), (roots.Root(MILAN, given.root.fingerprint),))


def vlek_by_ask() -> Presented:
    amd = fake_amd.authority()
    vlek = amd.vlek(fake_amd.KEY, stub_report.TCBS[GENOA])
    return presented(vek=lambda _: vlek._replace(issuer="SEV-Genoa", signer="ask"))


CASES = (
    *broken_roots(),
    *broken_parameters(),
    *broken_roles(),
    *broken_signatures(),
    *broken_identities(),
)


@pytest.mark.parametrize(
    ("check", "make", "error", "message"),
    [pytest.param(c, make, e, m, id=f"{c}: {what}") for c, what, make, e, m in CASES],
)
def test_each_check_alone_refuses(check: str, make: Any, error: type[TinbootError], message: str) -> None:
    found = examine(make())
    refused = failures(found.verdicts)
    assert list(refused) == [check]
    assert message in refused[check].message
    assert type(refused[check]) is error
    assert found.endorsement is None


def extension_changes() -> Iterator[tuple[str, Line, Any, str]]:
    amd = stub_chain
    yield "unknown of AMD's", GENOA, own(f"{amd.AMD}.6", der.integer(1)), "3704.1.6, which Genoa has not"
    yield "FMC before Turin", GENOA, own(amd.FMC, der.integer(1)), "3704.1.3.9, which Genoa has not"
    yield "unknown", GENOA, own("1.2.3.4", der.null()), "the extension 1.2.3.4, which AMD's have not"
    yield "critical key id", GENOA, own("2.5.29.14", der.octets(b"x"), critical=True), "2.5.29.14, which"
    for oid in (amd.BL, amd.TEE, amd.SNP, amd.UCODE, amd.STRUCT_VERSION, *amd.RESERVED):
        yield f"without {oid}", GENOA, without(oid), f"lacks the extension {oid}"
    yield "without FMC", TURIN, without(amd.FMC), f"lacks the extension {amd.FMC}"
    yield "without product", MILAN, without(amd.PRODUCT_NAME), "product is ''"
    yield (
        "long integer",
        GENOA,
        own(amd.SNP, b"\x02\x02\x00\x1b"),
        "3.3: offset 0x0: an integer that is not in",
    )
    yield "negative integer", GENOA, own(amd.UCODE, b"\x02\x01\xdb"), "a negative integer"
    yield "large integer", GENOA, own(amd.UCODE, der.integer(256)), "is 256, expected at most 255"
    yield "no integer", GENOA, own(amd.BL, der.null()), "an element 0x05, expected 0x02"
    yield "bytes behind", GENOA, own(amd.BL, der.integer(1) + b"\0"), "1 bytes too many"
    yield "Turin's version", GENOA, own(amd.STRUCT_VERSION, der.integer(1)), "version 1 of the extensions"
    yield "Genoa's version", TURIN, own(amd.STRUCT_VERSION, der.integer(0)), "expected 1 of Turin"
    yield "reserved", GENOA, own(amd.RESERVED[2], der.integer(1)), "is reserved and is not zero"
    yield "product unknown", GENOA, own(amd.PRODUCT_NAME, der.element(der.IA5, b"Rome")), "product is 'Rome'"
    yield "product of UTF-8", GENOA, own(amd.PRODUCT_NAME, der.element(der.UTF8, b"Genoa")), "expected 0x16"
    yield "product", GENOA, own(amd.PRODUCT_NAME, der.element(der.IA5, b"Milan-B0")), "its root of Genoa"
    yield "HWID of Turin", GENOA, own(amd.HWID, bytes(8)), "has 8 bytes, expected 64"
    yield "HWID of Genoa", TURIN, own(amd.HWID, bytes(64)), "has 64 bytes, expected 8"
    yield "empty HWID", GENOA, own(amd.HWID, b""), "has 0 bytes"


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [pytest.param(line, change, message, id=what) for what, line, change, message in extension_changes()],
)
def test_strict_extensions(line: Line, change: Any, message: str) -> None:
    refused = failures(examine(presented(line, vek=change)).verdicts)
    # without them nobody can say whose certificate it is
    assert list(refused) in (["amd-extensions"], ["amd-extensions", "vlek-identity"])
    assert message in refused["amd-extensions"].message


@pytest.mark.parametrize("line", [GENOA, TURIN], ids=lambda line: line.name)
def test_a_wrapped_hwid_is_read_too(line: Line) -> None:
    wrapped = own(stub_chain.HWID, der.octets(stub_report.CHIP_ID[: line.hwid]))
    assert endorse(presented(line, vek=wrapped)).hwid == stub_report.CHIP_ID[: line.hwid]


def test_turin_may_have_the_reserved_part_that_amd_leaves_out() -> None:
    endorse(presented(TURIN, vek=own(stub_chain.RESERVED[0], der.integer(0))))


def test_a_vcek_may_say_that_it_signs_data_and_is_no_authority() -> None:
    def change(form: Form) -> Form:
        usage = form.with_extension(stub_chain.KEY_USAGE, b"\x03\x02\x07\x80", critical=True)
        return usage.with_extension(stub_chain.CONSTRAINTS, der.sequence(), critical=True)

    endorse(presented(vek=change))


def test_an_extension_twice_is_no_certificate() -> None:
    def twice(form: Form) -> Form:
        return form._replace(extensions=(*form.extensions, form.extensions[3]))

    with pytest.raises(Malformed, match=r"extension 1\.3\.6\.1\.4\.1\.3704\.1\.3\.2 is there twice"):
        presented(vek=twice)


def test_a_root_of_no_line() -> None:
    named = to(subject="ARK-Rome", issuer="ARK-Rome")
    with pytest.raises((Mismatch, Refused), match="the product line 'Rome'"):
        endorse(presented(root=named, intermediate=to(issuer="ARK-Rome")))


def test_an_intermediate_that_was_issued_again_is_as_good() -> None:
    again = to(serial=0x10002, not_before=fake_amd.NOW)
    assert endorse(presented(intermediate=again)).chain[1].serial == 0x10002


def test_nothing_else_makes_an_endorsement() -> None:
    with pytest.raises(TypeError, match="made by verifying"):
        Endorsement(object(), presented())
    with pytest.raises(AttributeError):
        fake_amd.endorsement().tcb = stub_report.TCBS[MILAN]


def test_what_an_endorsement_is_of() -> None:
    given = presented()
    found = endorse(given)
    assert found.is_of(given.vek, given.pinned)
    assert found.is_of(given.vek, (*roots.AMD, *given.pinned))
    assert not found.is_of(given.vek, roots.AMD)
    assert not found.is_of(given.vek, (roots.Root(MILAN, given.root.fingerprint),))
    assert not found.is_of(presented(vek=to(serial=1)).vek, given.pinned)


def test_names_and_rows_of_checks_are_unique() -> None:
    rows = [check.row for check in CHECKS if check.row is not None]
    assert len(set(rows)) == len(rows)
    assert len({check.id for check in CHECKS}) == len(CHECKS)
