"""Certificates as DER: what they say is what a library reads in them, and everything else is refused."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import fake_amd
import pytest
import stub_chain
import stub_der as der
import vectors
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from fake_amd import NOW
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.snptcb import LINES, Line
from tinboot.verify import amd_certificates
from tinboot.verify.certificate import Certificate, common_name, parse, read, read_extensions
from tinboot.verify.chain import ALGORITHMS, Kind
from tinboot.verify.der import Der, dotted

AMD = fake_amd.authority()
KINDS: tuple[Kind, ...] = ("VCEK", "VLEK")
FORM = fake_amd.vek_form()
GOOD = AMD.issue(FORM)


@contextlib.contextmanager
def serial_number_zero() -> Iterator[None]:
    """The library warns of it: every VCEK has it, and this is why it is not the one that reads them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)
        yield


def agree(own: Certificate) -> None:
    """`own` says what cryptography.x509 reads in the same bytes."""
    with serial_number_zero():
        other = x509.load_der_x509_certificate(own.der)
        assert own.serial == other.serial_number
    assert own.signed == other.tbs_certificate_bytes
    assert own.signature == other.signature
    assert own.issuer == other.issuer.public_bytes()
    assert own.subject == other.subject.public_bytes()
    (attribute,) = other.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert own.common_name == attribute.value
    assert (own.not_before, own.not_after) == (other.not_valid_before_utc, other.not_valid_after_utc)
    assert own.key == other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for ours, theirs in zip(own.extensions, other.extensions, strict=True):
        assert (dotted(ours.oid), ours.critical) == (theirs.oid.dotted_string, theirs.critical)
        if isinstance(theirs.value, x509.UnrecognizedExtension):
            assert ours.value == theirs.value.value
    if own.algorithm in ALGORITHMS:
        parameters = other.signature_algorithm_parameters
        assert isinstance(parameters, PSS)
        assert isinstance(parameters.mgf, MGF1)
        assert other.signature_hash_algorithm is not None
        assert other.signature_hash_algorithm.name == parameters.mgf._algorithm.name == "sha384"
        assert parameters._salt_length == 48


@pytest.mark.parametrize("pem", [*amd_certificates.ROOTS.values(), *amd_certificates.INTERMEDIATES.values()])
def test_shipped(pem: bytes) -> None:
    for certificate in read(pem):
        agree(certificate)
        assert certificate.algorithm in ALGORITHMS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_fake(line: Line, kind: Kind) -> None:
    agree(parse(fake_amd.authority(line).issue(fake_amd.vek_form(line, kind))))


@pytest.mark.parametrize(
    "name",
    [
        *("go-sev-guest/vcek.testcer", "virtee-sev/vcek_milan.der", "trustee/test-vlek.der"),
        *("oak/milan_oc_release.vcek.der", "oak/milan_rk_release.vcek.der"),
    ],
)
def test_genuine(name: str) -> None:
    (certificate,) = read(vectors.read(f"snp/{name}"))
    agree(certificate)
    assert certificate.algorithm in ALGORITHMS


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**159 - 1),
    st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1)).map(
        lambda d: d.replace(microsecond=0, tzinfo=UTC)
    ),
    st.text("abcXYZ 012-'", min_size=1, max_size=30),
)
def test_any_serial_date_and_name(serial: int, date: datetime, name: str) -> None:
    form = FORM._replace(serial=serial, not_before=date, not_after=date + timedelta(seconds=1), subject=name)
    own = parse(AMD.issue(form))
    assert (own.serial, own.not_before, own.common_name) == (serial, date, name)
    agree(own)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_what_is_read_after_a_change_is_what_the_library_reads(changes: list[tuple[int, int]]) -> None:
    """Where both read it. Each refuses what the other lets pass: names of odd characters, long lengths."""
    altered = bytearray(GOOD)
    for at, byte in changes:
        altered[at] = byte
    own = None
    with contextlib.suppress(Malformed):
        own = parse(bytes(altered))
    assume(own is not None)
    assert own is not None
    with serial_number_zero():
        try:
            other = x509.load_der_x509_certificate(bytes(altered))
            same = own.not_before == other.not_valid_before_utc, own.not_after == other.not_valid_after_utc
            assert own.serial == other.serial_number
        except ValueError:
            return
    assert same == (True, True)
    assert (own.signed, own.signature) == (other.tbs_certificate_bytes, other.signature)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(GOOD) - 1))
def test_cut_anywhere(size: int) -> None:
    with pytest.raises(Malformed):
        parse(GOOD[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD + b"\0", "1 bytes too many"),
        (b"", "0 PEM blocks"),
        (b"x" * 70000, "a file of 70000 bytes, expected at most 65536"),
        (b"-----BEGIN CERTIFICATE-----\nMII", "1 PEM blocks, of which 0 can be read"),
        (b"-----BEGIN CERTIFICATE-----\nM!I=\n-----END CERTIFICATE-----\n", "offset 0x0: no base64"),
        (stub_chain.pem([GOOD], "PRIVATE KEY"), "a PRIVATE KEY, expected a CERTIFICATE"),
        (stub_chain.pem([GOOD] * 9), "9 PEM blocks, of which 9 can be read; expected 1 to 8"),
        (stub_chain.pem([GOOD]) + b"-----BEGIN CERTIFICATE-----", "2 PEM blocks, of which 1 can"),
        (AMD.issue(FORM._replace(version=1)), "not of version 3"),
        (AMD.issue(FORM._replace(serial=-1)), "a negative integer"),
    ],
)
def test_what_is_no_certificate(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        read(data)


def test_nothing_follows_the_version() -> None:
    outer = Der(GOOD).take(0x30)
    body = outer.whole(0x30)
    rest = outer.data[outer.at : outer.end]
    fields = Der(body).take(0x30)
    fields.take(0xA0)
    longer = der.sequence(bytes.fromhex("a006020102020100"), fields.data[fields.at :])
    with pytest.raises(Malformed, match="3 bytes too many"):
        parse(der.sequence(longer, rest))


def test_pem_with_text_around_it() -> None:
    text = (
        b"subject=x\n"
        + stub_chain.pem([GOOD]).replace(b"\n", b"\r\n")
        + b"\nissuer=y\n"
        + stub_chain.pem([GOOD])
    )
    assert read(text) == read(GOOD) * 2


def test_names() -> None:
    assert common_name(stub_chain.name("SEV-VCEK")) == "SEV-VCEK"
    part = der.element(der.SET, der.sequence(der.oid("2.5.4.3"), der.element(der.UTF8, b"x")))
    other = der.element(der.SET, der.sequence(der.oid("2.5.4.6"), der.element(der.PRINTABLE, b"US")))
    with pytest.raises(Malformed, match="two common names"):
        common_name(der.sequence(part, other, part))
    with pytest.raises(Malformed, match="without a common name"):
        common_name(der.sequence(other))
    with pytest.raises(Malformed, match="bytes too many"):
        common_name(der.sequence(part[:1] + bytes((part[1] * 2,)) + part[2:] * 2))
    assert common_name(der.sequence(part.replace(b"x", b"\xff"))) == "\\xff"
    assert common_name(stub_chain.name("x" * 64)) == "x" * 64
    with pytest.raises(Malformed, match="a common name of 65 bytes, expected at most 64"):
        common_name(stub_chain.name("x" * 65))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02\x00", "not in its shortest form"),
        (b"\x02\x02\x00\x7f", "not in its shortest form"),
        (b"\x02\x01\x80", "a negative integer"),
        (b"\x02\x81\x01\x05", "offset 0x1: a length that is not in its shortest form"),
        (b"\x02\x82\x00\x80" + bytes(128), "a length that is not in its shortest form"),
        (b"\x02\x80\x05\x00\x00", "offset 0x1: a length in 0 bytes"),
        (b"\x02\x84\x00\x00\x00\x01\x05", "a length in 4 bytes"),
        (b"\x02\x82\x01", "a length in 2 bytes"),
        (b"\x02\x02\x05", "2 bytes, of which 1 are there"),
        (b"\x02", "ends where an element 0x02 should be"),
        (b"\x04\x01\x05", "an element 0x04, expected 0x02"),
    ],
)
def test_integers(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        Der(data).integer()


@pytest.mark.parametrize(
    ("tag", "text", "message"),
    [
        (0x17, b"260601120000+0100", "not to the second, in UTC"),
        (0x17, b"2606011200Z", "not to the second"),
        (0x17, b"26060112000aZ", "not to the second"),
        (0x17, b"261301120000Z", "there is no time 20261301120000"),
        (0x18, b"20260601120000Z", "before 2050 that is not in its shortest form"),
        (0x18, b"20500601120000.5Z", "not to the second"),
        (0x16, b"260601120000Z", "expected 0x18"),
    ],
)
def test_times(tag: int, text: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        Der(der.element(tag, text)).time()


def test_what_der_says_in_one_way() -> None:
    assert Der(b"\x01\x01\xff").boolean()
    with pytest.raises(Malformed, match="a boolean of 01"):
        Der(b"\x01\x01\x01").boolean()
    with pytest.raises(Malformed, match="not of whole bytes"):
        Der(b"\x03\x02\x01\x80").bits()
    assert Der(der.time(NOW)).time() == NOW
    assert Der(der.time(NOW.replace(year=2060))).time() == NOW.replace(year=2060)
    default = der.sequence(der.oid("1.2.3"), b"\x01\x01\x00", der.octets(b""))
    with pytest.raises(Malformed, match="says that it is not critical"):
        read_extensions(Der(der.sequence(default)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=6), st.integers(0, 2), st.integers(0, 39))
def test_object_identifiers(rest: list[int], first: int, second: int) -> None:
    text = ".".join(map(str, (first, second, *rest)))
    assert dotted(Der(der.oid(text)).content(0x06)) == text


def test_what_is_no_object_identifier_is_shown_as_it_is() -> None:
    assert dotted(b"\x2b\x86") == "2b86"
    assert dotted(b"") == ""
    assert dotted(b"\xff" * 60_000 + b"\x01") == "ff" * 64  # a number of as many bytes takes a second
