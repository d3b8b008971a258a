"""The checks of what a report states: against the format's own rules, the policy, and the TCB floors.

Signature, certificates and how they belong together are elsewhere (chain.py, binding.py). Field layout and
meaning of every bit: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, tables 9, 23 and 24.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tinboot.formats.errors import Malformed, Mismatch, Refused, Unavailable
from tinboot.formats.snpreport import SIZE, VERSIONS, Report, reserved
from tinboot.formats.snptcb import Line, Tcb, decode, product_of
from tinboot.verify.advisories import Data
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.policy import PLATFORM_BITS, POLICY_BITS, Policy, Rule

T = TypeVar("T")

_ECDSA_P384_SHA384 = 1  # SIGNATURE_ALGO, table 23 and chapter 10

_POLICY_ONE, _POLICY_END = 1 << 17, 26  # must be one; reserved from here on
_PLATFORM_END, _KEY_INFO_END = 8, 5  # reserved from here on

#: Milan is refused unless a policy names it, and this is why.
_MILAN = "Milan's chip-unique secrets can be read out of it (arXiv:2605.12990), and no TCB helps"

_NEWER = "the host needs newer firmware"

_RESERVED = {version: reserved(version) for version in VERSIONS}

#: KEY_INFO bits 4:2, table 23.
_SIGNING_KEYS = {0: "VCEK", 1: "VLEK"}


class Subject(NamedTuple):
    """`line`, `tcb`, `csp_id`: of the endorsement, or as far as known where there is none."""

    report: Report
    line: Line
    policy: Policy
    data: Data
    tcb: Tcb | None = None
    csp_id: str | None = None


def version(subject: Subject) -> Unchecked | None:
    """The report is of a version that the policy allows."""
    return _among(subject.report.version, subject.policy.versions, "version", str)


def signature_algorithm(subject: Subject) -> None:
    """The report says that it is signed with ECDSA, P-384 and SHA-384."""
    if subject.report.signature_algorithm != _ECDSA_P384_SHA384:
        raise Malformed(f"signature algorithm {subject.report.signature_algorithm}, expected 1")


def reserved_zero(subject: Subject) -> None:
    """What the format reserves is zero, in the report, its policy and its bit fields."""
    report = subject.report
    for part in _RESERVED[report.version]:
        if report.raw[part.start : part.stop].strip(b"\0"):
            at = next(at for at in part if report.raw[at])
            raise Malformed(f"offset {at:#x}: {report.raw[at]:#04x} in a reserved byte, expected zero")
    for name, value, end in (
        ("POLICY", report.policy, _POLICY_END),
        ("PLATFORM_INFO", report.platform_info, _PLATFORM_END),
        ("KEY_INFO", report.key_info, _KEY_INFO_END),
    ):
        if value >> end:
            raise Malformed(f"{name} is {value:#x}: its bits from {end} on are reserved")
    if not report.policy & _POLICY_ONE:
        raise Malformed(f"POLICY is {report.policy:#x}: bit 17 must be one")


def cpu(subject: Subject) -> Unchecked | None:
    """The CPU is of a model that is known: Bergamo and Siena count to Genoa's line."""
    if subject.report.cpuid is None:
        return Unchecked("version 2 of the report does not name the CPU")
    product_of(subject.report.cpuid)
    return None


def _policy_bit(name: str) -> Callable[[Subject], None]:
    def run(subject: Subject) -> None:
        rule = subject.policy.guest_policy[name]
        if rule != "allow":
            _rule(subject.report.policy, POLICY_BITS[name], rule, f"POLICY {name}")

    return run


def abi(subject: Subject) -> Unchecked | None:
    """The guest was launched with at least this minimum of the firmware's ABI."""
    least = subject.policy.abi
    if isinstance(least, Unchecked):
        return least
    own = (subject.report.policy >> 8 & 0xFF, subject.report.policy & 0xFF)
    if own < least:
        raise Refused(f"the guest demands ABI {own[0]}.{own[1]}, the policy at least {least[0]}.{least[1]}")
    return None


#: Guest policy bit -> platform bit, and what the platform must say where the guest's bit is as given.
_KEPT = (("smt", False, "smt", False), ("rapl_disabled", True, "rapl_disabled", True),
         ("ciphertext_hiding", True, "ciphertext_hiding", True))  # fmt: skip


def policy_kept(subject: Subject) -> None:
    """The platform is as the guest's policy demands: a firmware that starts it elsewhere is broken."""
    report = subject.report
    for wanted, if_set, stated, as_set in _KEPT:
        demands = bool(report.policy >> POLICY_BITS[wanted] & 1) is if_set
        holds = bool(report.platform_info >> PLATFORM_BITS[stated] & 1) is as_set
        if demands and not holds:
            raise Mismatch(
                f"POLICY {report.policy:#x} demands {wanted}={int(as_set)}, "
                f"PLATFORM_INFO {report.platform_info:#x} has not"
            )


def platform_info(subject: Subject) -> None:
    """Each bit of PLATFORM_INFO is as the policy demands."""
    for name, rule in subject.policy.platform_info.items():
        if rule != "allow":
            _rule(subject.report.platform_info, PLATFORM_BITS[name], rule, f"PLATFORM_INFO {name}")


def reported_floor(subject: Subject) -> Unchecked | None:
    """No part of the reported TCB is older than the floor of its product."""
    return _floor(subject, subject.policy.floors, subject.report.reported_tcb, "the reported TCB")


def microcode_floor(subject: Subject) -> Unchecked | None:
    """The microcode is not older than the floor of this very CPU."""
    return _microcode(subject, subject.policy.floors, subject.report.reported_tcb, "the reported TCB")


def launch_floor(subject: Subject) -> Unchecked | None:
    """No part of the TCB at launch is older than the floor: what was launched on old firmware stays so."""
    return _floor(subject, subject.policy.launch_floors, subject.report.launch_tcb, "the TCB at launch")


def launch_microcode(subject: Subject) -> Unchecked | None:
    """Nor was the microcode at launch older than the floor of this very CPU."""
    profile = subject.policy.launch_floors
    return _microcode(subject, profile, subject.report.launch_tcb, "the TCB at launch")


def tcb_order(subject: Subject) -> None:
    """No TCB of the report, nor the certificate's, is newer than the current one, unless by provision."""
    report, line = subject.report, subject.line
    current = decode(line, report.current_tcb)
    others = [("reported", report.reported_tcb), ("committed", report.committed_tcb)]
    others.append(("launch", report.launch_tcb))
    tcbs = [(name, decode(line, raw)) for name, raw in others if raw != report.current_tcb]
    if subject.tcb is not None and subject.tcb != current:
        tcbs.append(("certificate's", subject.tcb))
    for name, tcb in tcbs:
        if newer := current.below(tcb):
            raise Refused(f"the {name} TCB ({tcb}) is newer than the current one ({current}): {newer[0]}")
    if report.committed_version > report.current_version:
        raise Refused(
            f"committed firmware {report.committed_version} is newer than {report.current_version}, current"
        )
    provisional = (report.committed_tcb, report.committed_version) != (
        report.current_tcb,
        report.current_version,
    )
    if provisional and subject.policy.provisional_firmware == "refuse":
        committed = decode(line, report.committed_tcb)
        raise Refused(
            f"the firmware is provisional: {report.current_version} ({current}) is current, "
            f"{report.committed_version} ({committed}) committed",
            "the host can still go back to what is committed; it has to commit",
        )


def firmware(subject: Subject) -> Unchecked | None:
    """The SNP firmware is not older than the policy allows for the product."""
    least = subject.policy.firmware
    if isinstance(least, Unchecked):
        return least
    if subject.line.name not in least:
        raise Refused(f"the policy names no firmware for {subject.line.name}")
    if subject.report.current_version < least[subject.line.name]:
        raise Refused(
            f"SNP firmware {subject.report.current_version}, the policy demands {least[subject.line.name]}"
        )
    return None


def guest_svn(subject: Subject) -> Unchecked | None:
    """The guest's own security version is at least the policy's."""
    least = subject.policy.guest_svn
    if isinstance(least, Unchecked):
        return least
    if subject.report.guest_svn < least:
        raise Refused(f"GUEST_SVN {subject.report.guest_svn}, the policy demands {least}")
    return None


def vmpl(subject: Subject) -> Unchecked | None:
    """The report was asked for by a privilege level that the policy allows."""
    return _among(subject.report.vmpl, subject.policy.vmpl, "VMPL", str)


def _value(name: str) -> Callable[[Subject], Unchecked | None]:
    def run(subject: Subject) -> Unchecked | None:
        own: bytes = getattr(subject.report, name)
        allowed: tuple[bytes, ...] | Unchecked = getattr(subject.policy, name)
        return _among(own, allowed, name.upper(), bytes.hex)

    return run


def _mitigations(name: str) -> Callable[[Subject], Unchecked | None]:
    def run(subject: Subject) -> Unchecked | None:
        demanded: int | Unchecked = getattr(subject.policy, name)
        own: int | None = getattr(subject.report, name)
        if isinstance(demanded, Unchecked):
            return demanded
        if own is None:
            if demanded:
                raise Refused(f"version {subject.report.version} of the report states no mitigations")
            return Unchecked("this version of the report states no mitigations, the policy demands none")
        if demanded & ~own:
            raise Refused(f"mitigations {own:#x}, the policy demands {demanded:#x}")
        return None

    return run


def trusted(subject: Subject) -> Unchecked | None:
    """Neither product, chip nor provider is one that the policy distrusts, and the product is allowed."""
    distrust, line = subject.policy.distrust, subject.line
    if line.name in distrust.products:
        raise Refused(f"the policy distrusts the product {line.name}")
    chip = subject.report.chip_id.rstrip(b"\0")
    if distrust.chips and not chip:
        raise Unavailable(
            "the report states no chip, and the policy distrusts some",
            "the host has to unmask CHIP_ID, or the policy to name no chips",
        )
    if chip in distrust.chips:
        raise Refused(f"the policy distrusts the chip {chip.hex()}")
    if subject.csp_id is not None and subject.csp_id in distrust.providers:
        raise Refused(f"the policy distrusts the provider {subject.csp_id!r}")
    allowed = subject.policy.products
    if isinstance(allowed, Unchecked):
        return Unchecked(f"{allowed.reason}; {_MILAN}") if line.name == "Milan" else allowed
    if line.name not in allowed:
        why = f": {_MILAN}" if line.name == "Milan" else ""
        raise Refused(f"the product {line.name} is not allowed{why}", f"--allow-product {line.name} takes it")
    return None


def length(subject: Subject) -> None:
    """The report has exactly 1184 bytes: nothing was cut off, nothing follows."""
    if len(subject.report.raw) != SIZE:
        raise Malformed(f"the report has {len(subject.report.raw)} bytes, expected {SIZE}")


def key_allowed(subject: Subject) -> Unchecked | None:
    """The report is signed by a chip's key or by a provider's, whichever the policy allows."""
    field = subject.report.key_info >> 2 & 7
    name = _SIGNING_KEYS.get(field, f"key {field}")
    return _among(name, subject.policy.signing_keys, "SIGNING_KEY", str)


def _microcode(subject: Subject, profile: str | Unchecked, raw: bytes, what: str) -> Unchecked | None:
    if isinstance(profile, Unchecked):
        return profile
    least = subject.data.microcode(profile, subject.line, subject.report.cpuid)
    if least is None:
        why = f"no microcode floor is known for this CPU ({subject.report.cpuid})"
        if subject.policy.unknown_microcode == "refuse":
            raise Unavailable(why, "a newer data file may know one")
        return Unchecked(why)
    own = decode(subject.line, raw).ucode
    if own < least:
        raise Refused(f"{what} is below the floor: ucode={own} < {least}", _NEWER)
    return None


def _rule(value: int, bit: int, rule: Rule, what: str) -> None:
    is_set = value >> bit & 1
    if rule == "require" and not is_set:
        raise Refused(f"{what} (bit {bit}) is not set, the policy requires it")
    if rule == "refuse" and is_set:
        raise Refused(f"{what} (bit {bit}) is set, the policy refuses it")


def _among(
    own: T, allowed: tuple[T, ...] | Unchecked, what: str, show: Callable[[T], str]
) -> Unchecked | None:
    if isinstance(allowed, Unchecked):
        return allowed
    if own not in allowed:
        listed = ", ".join(map(show, allowed[:3])) + (", …" if len(allowed) > 3 else "")
        raise Refused(f"{what} is {show(own)}, expected {listed or 'none at all'}")
    return None


def _floor(subject: Subject, profile: str | Unchecked, raw: bytes, what: str) -> Unchecked | None:
    if isinstance(profile, Unchecked):
        return profile
    floor = subject.data.floors[profile][subject.line.name]
    own = decode(subject.line, raw)
    parts = [(name, getattr(own, name), least) for name, least in floor.tcb.items()]
    if low := [f"{name}={part} < {least}" for name, part, least in parts if part < least]:
        raise Refused(f"{what} is below the floor: {', '.join(low)} ({floor.why})", _NEWER)
    return None


CHECKS: tuple[Check[Subject], ...] = (
    Check("length", 36, "the report has exactly its 1184 bytes", length),
    Check("version", 1, "the version is one that the policy allows", version),
    Check("signature-algorithm", 2, "the report claims ECDSA P-384 with SHA-384", signature_algorithm),
    Check("reserved-zero", 3, "reserved bytes and bits are zero", reserved_zero),
    Check("cpu", 17, "the CPU model is known, Bergamo and Siena too", cpu),
    Check("debug", 19, "the host may debug the guest or not, as the policy says", _policy_bit("debug")),
    Check("migrate-ma", 20, "a migration agent is allowed or not", _policy_bit("migrate_ma")),
    Check("smt", 21, "the guest allows SMT or not", _policy_bit("smt")),
    Check("single-socket", 21, "the guest demands one socket or not", _policy_bit("single_socket")),
    Check("abi", 21, "the guest demands a new enough ABI", abi),
    Check("cxl", 21, "the guest allows CXL or not", _policy_bit("cxl")),
    Check("aes-256-xts", 21, "the guest demands AES-256-XTS or not", _policy_bit("aes_256_xts")),
    Check("rapl-disabled", 21, "the guest demands RAPL off or not", _policy_bit("rapl_disabled")),
    Check("ciphertext-hiding", 21, "the guest demands it or not", _policy_bit("ciphertext_hiding")),
    Check("page-swap", 21, "the guest demands page swap off or not", _policy_bit("page_swap_disabled")),
    Check("policy-kept", 22, "the platform is as the guest's policy demands", policy_kept),
    Check("platform-info", 23, "the platform is as the verifier's policy demands", platform_info),
    Check("reported-floor", 24, "the reported TCB reaches the floor", reported_floor),
    Check("microcode-floor", 24, "the microcode reaches the floor of this CPU", microcode_floor),
    Check("launch-floor", 25, "the TCB at launch reaches the floor", launch_floor),
    Check("launch-microcode", 25, "the microcode at launch reaches the floor of this CPU", launch_microcode),
    Check("tcb-order", 26, "no TCB is newer than the current one; it is committed", tcb_order),
    Check("firmware", 27, "the SNP firmware is new enough", firmware),
    Check("guest-svn", 28, "the guest's security version is new enough", guest_svn),
    Check("family-id", 28, "the family is the expected one", _value("family_id")),
    Check("image-id", 28, "the image is the expected one", _value("image_id")),
    Check("vmpl", 29, "the privilege level is an allowed one", vmpl),
    Check("report-data", 30, "REPORT_DATA is the expected value", _value("report_data")),
    Check("measurement", 30, "the launch digest is an expected one", _value("measurement")),
    Check("host-data", 31, "HOST_DATA is the expected value", _value("host_data")),
    Check("id-key", 32, "the ID key is a trusted one", _value("id_key_digest")),
    Check("author-key", 32, "the author key is a trusted one", _value("author_key_digest")),
    Check("report-id", 33, "the instance is the expected one", _value("report_id")),
    Check("report-id-ma", 33, "the migration agent is the expected one, or none", _value("report_id_ma")),
    Check("launch-mitigations", 34, "mitigations at launch", _mitigations("launch_mitigations")),
    Check("current-mitigations", 34, "mitigations now", _mitigations("current_mitigations")),
    Check("key-allowed", 35, "a chip's or a provider's key signed, as the policy allows", key_allowed),
    Check("trusted", 35, "product, chip and provider are not distrusted", trusted),
)
