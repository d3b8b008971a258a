"""What both verifiers say of each fault: a table, so that a change of either shows.

Nothing here is accepted by all, but what stands in `NOTED` with the reason. What NVIDIA's verifier lets
through is why it never runs alone; where the native one accepts, it is for what it does not see (a RIM that
`tinboot gpu pin` did not take, an expired one) or what NVIDIA's cannot read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import stub_der as der
import stub_nvidia
import stub_ocsp
from gpu_alterations import (
    BLACKWELL,
    C,
    altered_hash,
    authored,
    blackwell,
    by_issuer,
    by_issuer_alone,
    by_nobody,
    certificates,
    conflicting,
    first,
    flip,
    form,
    no_purpose,
    ocsp,
    report,
    resigned,
    rewritten,
    rim,
    short,
    signed_by_nobody,
    upper,
    with_rims,
    without,
)
from gpu_faults import FAULTS, REPLAYED, WRONG
from gpu_mutations import ACCEPTS, NOW, Subject, answers, document, pin, pinned, subject
from stub_chain import CONSTRAINTS, KEY_USAGE
from stub_gpu_report import Field
from stub_nvidia import DAY, chain

# Checks and claims that often decide.
SIGNATURE = "attestation-report-signature-verified"
CERTIFICATES = "attestation-report-cert-chain.x-nvidia-cert-status"
PARSED = "attestation-report-parsed"
FWID = "attestation-report-cert-chain-fwid-match"
MATCH = "attestation-report-nonce-match"
SCHEMA = "driver-rim-schema-validated"
RIM_SIGNATURE = "driver-rim-signature-verified"
RIM_CERTIFICATES = "driver-rim-cert-chain.x-nvidia-cert-status"
FORMAT = "report-format"


BLOCKS = C.listed()
CA = der.sequence(der.true())


class Case(NamedTuple):
    """`native`: the check that decides; `second`: the first claim of NVIDIA's that is not good, or the error.

    `pin`: the error of `tinboot gpu pin`, which is asked about the RIMs before any image has them. `ACCEPTS`
    where it accepts.
    """

    make: Callable[[], Subject]
    native: str
    second: str
    pin: str


CASES: dict[str, Case] = {}


def add(native: str, second: str, pin: str = ACCEPTS, /, **made: Callable[[], Subject]) -> None:
    CASES.update({name.replace("_", "-"): Case(make, native, second, pin) for name, make in made.items()})


# --- the report -----------------------------------------------------------------------------------
add("report-signature", MATCH, bit_of_the_nonce=flip(4))
add("report-signature", SIGNATURE, bit_of_a_measurement=flip(60))
add("report-signature", SIGNATURE, bit_of_the_responders_nonce=flip(3570))
add("report-signature", SIGNATURE, bit_of_the_opaque_data=flip(3640))
add("report-signature", SIGNATURE, bit_of_the_signature=flip(-1))
add(FORMAT, SIGNATURE, last_byte_cut=lambda: subject(C, alter=lambda r: r[:-1]))
add(FORMAT, PARSED, report_cut_in_its_blocks=lambda: subject(C, alter=lambda r: r[:2000]))
add(FORMAT, PARSED, report_empty=lambda: subject(C, alter=lambda r: b""))
add(ACCEPTS, SIGNATURE, byte_after_the_end=lambda: subject(C, alter=lambda r: r + b"\0"))
add("report-signature", SIGNATURE, signature_of_zeros=lambda: subject(C, alter=lambda r: r[:-96] + bytes(96)))
add("report-signature", SIGNATURE, key_of_another_gpu=lambda: subject(C, key=chain("HOPPER", 1)))
add("nonce", MATCH, nonce_of_another_time=report(nonce=REPLAYED))
add(FORMAT, ACCEPTS, spdm_version=report(header=bytes((0x10, 0xE0, 1, 0xFF))))
add(FORMAT, ACCEPTS, spdm_request=report(header=bytes((0x11, 0xE1, 1, 0xFF))))
add(FORMAT, ACCEPTS, spdm_unsigned=report(header=bytes((0x11, 0xE0, 0, 0xFF))))
add(FORMAT, ACCEPTS, spdm_one_block_asked=report(header=bytes((0x11, 0xE0, 1, 1))))
add(FORMAT, ACCEPTS, spdm_slot=report(slot=1))
add(FORMAT, ACCEPTS, spdm_response=report(response=bytes((0x11, 0x61, 0, 0))))
add(FORMAT, ACCEPTS, spdm_response_version=report(response=bytes((0x12, 0x60, 0, 0))))
add(FORMAT, PARSED, block_count_wrong=report(block_count=63))
add(FORMAT, PARSED, record_length_wrong=report(record_length=3519))
add(FORMAT, SIGNATURE, opaque_length_wrong=report(opaque_length=100))
add(FORMAT, ACCEPTS, blocks_41=report(blocks=BLOCKS[:41]))
add(FORMAT, "measres", blocks_34=report(blocks=BLOCKS[:34]))
add(FORMAT, "measres", blocks_10=report(blocks=BLOCKS[:10]))
add(
    FORMAT,
    PARSED,
    block_of_another_specification=report(blocks=(BLOCKS[0]._replace(specification=2), *BLOCKS[1:])),
)
add(FORMAT, ACCEPTS, block_of_another_type=report(blocks=(BLOCKS[0]._replace(type=2), *BLOCKS[1:])))
add(FORMAT, PARSED, block_number_0=report(blocks=(BLOCKS[0]._replace(number=0), *BLOCKS[1:])))
add("measurements", "measres", measurement_7_zero=report(altered={7: bytes(48)}))
add("measurements", "measres", measurement_35_while_nvdec_is_on=report(altered={35: WRONG}))
add("measurements", "measres", measurement_35_while_nvdec_is_off=report(altered={35: WRONG}, nvdec0=b"\x55"))
add("uncovered", ACCEPTS, uncovered_block_41=report(altered={41: WRONG}))

# --- its opaque data, and what NVML says ----------------------------------------------------------
add(FORMAT, PARSED, opaque_unknown_type=report(extra=(Field(199, b"\1"),)))
add(FORMAT, ACCEPTS, opaque_driver_twice=report(extra=(Field(3, b"550.90.07\0"),)))
add(FORMAT, SIGNATURE, opaque_other_driver_twice=report(extra=(Field(3, b"550.90.08\0"),)))
add(ACCEPTS, PARSED, opaque_version_2_of_hopper=report(version=2))
add(ACCEPTS, PARSED, opaque_version_2_of_blackwell=blackwell(version=2))
add(FORMAT, ACCEPTS, opaque_cut=report(opaque=(*C.fields()[:-1], Field(21, b""))))
add("single-gpu", ACCEPTS, protected_pcie=report(protected_pcie=b"\xaa"))
add(
    "single-gpu",
    ACCEPTS,
    feature_mpt=blackwell(
        extra=(),
        opaque=tuple(
            f._replace(data=struct.pack("<H", 1)) if f.type == 36 else f for f in BLACKWELL.fields()
        ),
    ),
)
add(
    "single-gpu",
    ACCEPTS,
    feature_ppcie=blackwell(
        extra=(),
        opaque=tuple(
            f._replace(data=struct.pack("<H", 2)) if f.type == 36 else f for f in BLACKWELL.fields()
        ),
    ),
)
add("fwid", FWID, fwid_differs=report(fwid=WRONG))
add("fwid", ACCEPTS, fwid_absent=report(fwid=b""))
add(FORMAT, FWID, fwid_of_47_bytes=report(fwid=stub_nvidia.FWID[:47]))
add("fwid", FWID, blackwell_fwid_differs=blackwell(fwid=WRONG))
add("vbios-version", "vbios-rim-fetched", other_board=report(project_sku="0299"))
add(
    "driver-version",
    SIGNATURE,
    nvml_driver_differs=lambda: subject(C._replace(driver="550.90.08"), installed=C.versions),
)
add(
    "vbios-version",
    SIGNATURE,
    nvml_vbios_differs=lambda: subject(C._replace(vbios="96.00.9F.00.02"), installed=C.versions),
)
add("driver-version", "Refused", driver_without_reference=lambda: subject(C._replace(driver="550.90.08")))
add("vbios-version", "Refused", vbios_without_reference=lambda: subject(C._replace(vbios="96.00.9F.00.02")))
add(
    "driver-version",
    FWID,
    architecture_of_another_chain=lambda: subject(C)._replace(
        evidence=subject(C).evidence._replace(arch="BLACKWELL")
    ),
)

# --- the device's chain ---------------------------------------------------------------------------
add("chain-length", FWID, chain_of_four=certificates(lambda c: c._replace(forms=c.forms[1:])))
add(
    "chain-length",
    CERTIFICATES,
    chain_without_its_root=certificates(lambda c: c._replace(forms=c.forms[:-1])),
)
add(
    "chain-length",
    CERTIFICATES,
    chain_of_six=certificates(lambda c: c._replace(forms=(*c.forms, c.forms[-1]))),
)
add("chain-length", "Malformed", chain_of_two=certificates(lambda c: c._replace(forms=c.forms[:2])))
add("report-signature", SIGNATURE, chain_of_another_gpu=certificates(lambda c: chain("HOPPER", 1)))
add(
    "root-pinned",
    CERTIFICATES,
    chain_of_another_root=lambda: subject(C, chain=chain(realm="another"), key=chain(realm="another")),
)
add(
    "root-pinned",
    ACCEPTS,
    root_shown_is_another=certificates(lambda c: c.put(4, chain(realm="another").forms[4])),
)
add(
    "certificate-roles",
    CERTIFICATES,
    chain_reordered=certificates(
        lambda c: c._replace(forms=(c.forms[0], c.forms[2], c.forms[1], *c.forms[3:]))
    ),
)
add("dates", CERTIFICATES, leaf_expired=certificates(lambda c: c.replace(0, not_after=NOW - DAY)))
add("dates", CERTIFICATES, provisioner_expired=certificates(lambda c: c.replace(2, not_after=NOW - DAY)))
add("dates", CERTIFICATES, leaf_not_yet_valid=certificates(lambda c: c.replace(0, not_before=NOW + DAY)))
add("certificate-signatures", CERTIFICATES, certificate_forged=certificates(signed_by_nobody))
add(
    "certificate-roles",
    CERTIFICATES,
    provisioner_is_no_authority=form(
        2, lambda f: f.with_extension(CONSTRAINTS, der.sequence(), critical=True)
    ),
)
add(
    "certificate-roles",
    CERTIFICATES,
    provisioner_may_not_sign=form(2, lambda f: f.with_extension(KEY_USAGE, stub_nvidia.SIGN, critical=True)),
)
add(
    "certificate-roles",
    ACCEPTS,
    leaf_is_an_authority=form(0, lambda f: f.with_extension(CONSTRAINTS, CA, critical=True)),
)
add("certificate-roles", ACCEPTS, leaf_without_key_usage=form(0, lambda f: f.without_extension(KEY_USAGE)))
add("fwid", FWID, leaf_without_fwid=form(0, lambda f: f.without_extension(stub_nvidia.HOPPER_FWID)))
add(
    "certificate-roles",
    CERTIFICATES,
    unknown_critical_extension=form(1, lambda f: f.with_extension("1.2.3.4", b"\x05\0", critical=True)),
)
add("certificate-roles", CERTIFICATES, issuer_of_another_name=form(1, lambda f: f._replace(issuer=f.subject)))
add(
    "chain-format",
    "Malformed",
    chain_of_no_certificates=lambda: subject(C)._replace(
        evidence=subject(C).evidence._replace(certificate=b"junk")
    ),
)
add(
    "chain-format",
    "Malformed",
    base64_broken=lambda: subject(C)._replace(
        evidence=subject(C).evidence._replace(
            certificate=subject(C).evidence.certificate.replace(b"MII", b"M!I", 1)
        )
    ),
)

# --- RIMs -----------------------------------------------------------------------------------------
add(
    "measurements",
    "measres",
    driver_rim_other_value_signed=resigned("driver", lambda d: d.with_hash(22, WRONG.hex())),
)
add(
    "measurements",
    "measres",
    vbios_rim_other_value_signed=resigned("vbios", lambda d: d.with_hash(3, WRONG.hex())),
)
add(ACCEPTS, "measres", "Malformed", rim_in_upper_case=resigned("driver", upper))
add(ACCEPTS, "measres", "Malformed", rim_of_another_size=resigned("driver", short))
add("reference-values", ACCEPTS, "Refused", rim_with_nothing_active=resigned("driver", without("driver")))
add("reference-values", ACCEPTS, "Refused", rim_with_less_active=resigned("driver", without("driver", 22)))
add("reference-values", "vbios-index-no-conflict", rims_in_conflict=resigned("vbios", conflicting))
add(
    "reference-values",
    SCHEMA,
    "Malformed",
    rim_without_resources=resigned("driver", lambda d: d._replace(resources=())),
)
add(
    "driver-version",
    "Refused",
    "Refused",
    rim_of_another_version=resigned("driver", lambda d: d._replace(version="550.90.08")),
)
add(
    ACCEPTS, "oemid", "Malformed", rim_of_another_maker=resigned("driver", lambda d: d._replace(maker="5704"))
)
add(
    ACCEPTS,
    ACCEPTS,
    "Refused",
    rim_of_another_product=resigned("driver", lambda d: d._replace(product="GB100")),
)
add(ACCEPTS, RIM_SIGNATURE, "Mismatch", driver_rim_value_altered=altered_hash("driver", 22))
add(ACCEPTS, "vbios-rim-signature-verified", "Mismatch", vbios_rim_value_altered=altered_hash("vbios", 3))
add(
    ACCEPTS,
    RIM_SIGNATURE,
    "Malformed",
    rim_signature_altered=rewritten("driver", b"<ds:SignatureValue>", b"<ds:SignatureValue>AAAA"),
)
add(
    ACCEPTS,
    RIM_SIGNATURE,
    "Malformed",
    rim_digest_altered=rewritten("driver", b"<ds:DigestValue>", b"<ds:DigestValue>AAAA"),
)
add(
    ACCEPTS,
    SCHEMA,
    "Malformed",
    rim_against_the_schema=rewritten("driver", b"<ns0:Payload ", b"<ns0:Foo/><ns0:Payload "),
)
add(
    ACCEPTS,
    SCHEMA,
    "Malformed",
    rim_with_a_declaration=rewritten(
        "driver", b"<SoftwareIdentity", b'<?xml version="1.0" encoding="utf-8"?><SoftwareIdentity'
    ),
)
add(
    ACCEPTS,
    SCHEMA,
    "Malformed",
    rim_that_is_no_xml=rewritten("driver", b"<SoftwareIdentity", b"SoftwareIdentity"),
)
add(
    ACCEPTS,
    "Mismatch",
    "Malformed",
    rim_unsigned=rim("driver", lambda: pin("driver", document("driver"), document("driver").unsigned())),
)
add(
    ACCEPTS,
    RIM_SIGNATURE,
    "Mismatch",
    rim_by_a_foreign_key=authored("driver", lambda c: stub_nvidia.rim_chain(NOW, realm="another"), key=True),
)
add(
    ACCEPTS,
    "Mismatch",
    "Mismatch",
    rim_by_another_root=authored("driver", lambda c: stub_nvidia.rim_chain(NOW, realm="another")),
)
add(
    ACCEPTS,
    RIM_CERTIFICATES,
    "Mismatch",
    driver_rim_expired=authored("driver", lambda c: c.replace(0, not_after=NOW - DAY)),
)
add(
    ACCEPTS,
    "vbios-rim-cert-chain.x-nvidia-cert-status",
    "Mismatch",
    vbios_rim_expired=authored("vbios", lambda c: c.replace(0, not_after=NOW - DAY)),
)
add(
    ACCEPTS,
    RIM_CERTIFICATES,
    "Mismatch",
    rim_signer_forged=authored("driver", lambda c: c.replace(0, signer=stub_nvidia.key("nobody's"))),
)
add(
    ACCEPTS,
    "Mismatch",
    rim_of_another_hash=lambda: subject(
        C, rims=((pinned("driver")[0], pinned("driver")[1] + b"\n"), pinned("vbios"))
    ),
)

# --- OCSP -----------------------------------------------------------------------------------------
add("revocation", CERTIFICATES, ocsp_missing=ocsp(lambda a: a[1:]))
add("revocation", CERTIFICATES, ocsp_revoked=first(status="revoked", reason=1))
add("revocation", CERTIFICATES, ocsp_on_hold=first(status="revoked", reason=6))
add("revocation", CERTIFICATES, ocsp_unknown=first(status="unknown"))
add(
    "revocation",
    ACCEPTS,
    ocsp_expired=first(next_update=NOW - timedelta(minutes=1), this_update=NOW - DAY, produced_at=NOW - DAY),
)
add(
    "revocation",
    ACCEPTS,
    ocsp_of_the_future=first(this_update=NOW + DAY, next_update=NOW + 2 * DAY, produced_at=NOW + DAY),
)
add("revocation", ACCEPTS, ocsp_too_old=first(this_update=NOW - 30 * DAY, produced_at=NOW - 30 * DAY))
add("revocation", ACCEPTS, ocsp_without_an_end=first(next_update=None))
add(
    "ocsp-strays", ACCEPTS, ocsp_of_another_issuer=ocsp(lambda a: [a[0]._replace(issuer=a[1].issuer), *a[1:]])
)
add("revocation", ACCEPTS, ocsp_responder_without_purpose=ocsp(no_purpose))
add("revocation", CERTIFICATES, ocsp_signature_forged=ocsp(by_nobody))
add(
    "revocation",
    ACCEPTS,
    ocsp_responder_of_another=ocsp(lambda a: [a[0]._replace(signer=a[1].signer), *a[1:]]),
)
add("revocation", "Unavailable", ocsp_try_later=first(failure=3))
add(
    "revocation",
    ACCEPTS,
    ocsp_leaf_revoked=lambda: subject(
        C, answers=[stub_ocsp.answers(chain(), NOW)[0]._replace(status="revoked", reason=1), *answers()]
    ),
)
add(ACCEPTS, ACCEPTS, ocsp_by_the_issuer=ocsp(by_issuer))
add(ACCEPTS, CERTIFICATES, ocsp_by_the_issuer_alone=ocsp(by_issuer_alone))
add(
    "ocsp-strays",
    RIM_CERTIFICATES,
    ocsp_of_rims_revoked=with_rims(lambda a: [a[0]._replace(status="revoked", reason=1), *a[1:]]),
)
add("ocsp-strays", RIM_CERTIFICATES, ocsp_of_rims_missing=with_rims(lambda a: a[:1]))
add("ocsp-strays", ACCEPTS, ocsp_of_rims_good=with_rims(list))

#: Accepted by all, and rightly.
NOTED = {"ocsp-by-the-issuer": "RFC 6960, 4.2.2.2: the issuer itself may answer"}

#: Of gpu_faults.FAULTS -> check of the native verifier, which sees both GPUs, and first claim of NVIDIA's,
#: which sees one after the other. Neither sees the driver: see `DRIVERS`.
STUBS: dict[str, tuple[str, str]] = {
    "none": ("count", ACCEPTS),
    "fewer": ("count", ACCEPTS),
    "more": ("count", ACCEPTS),
    "fewer-by-nvml": (ACCEPTS, ACCEPTS),
    "more-by-nvml": ("count", ACCEPTS),
    "foreign": (ACCEPTS, ACCEPTS),
    "wrong-architecture": ("architecture", ACCEPTS),
    "wrong-architecture-by-nvml": (ACCEPTS, ACCEPTS),
    "two-alike": ("distinct", ACCEPTS),
    "cc-off": (ACCEPTS, ACCEPTS),
    "not-production": (ACCEPTS, ACCEPTS),
    "devtools": (ACCEPTS, ACCEPTS),
    "protected-pcie": (ACCEPTS, ACCEPTS),
    "nvlink": (ACCEPTS, ACCEPTS),
    "ready-does-not-stick": (ACCEPTS, ACCEPTS),
    "ready-already-set": (ACCEPTS, ACCEPTS),
    "not-persistent": (ACCEPTS, ACCEPTS),
    "driver-differs": ("driver-version", "Refused"),
    "vbios-differs": ("vbios-version", "Refused"),
    "nonce-replayed": ("nonce", MATCH),
    "evidence-of-another-gpu": ("distinct", ACCEPTS),
    "signature-first": ("report-signature", SIGNATURE),
    "signature-second": ("report-signature", SIGNATURE),
    "signature-bit": ("report-signature", SIGNATURE),
    "report-truncated": (FORMAT, SIGNATURE),
    "report-empty": (FORMAT, PARSED),
    "report-longer": (ACCEPTS, SIGNATURE),
    "chain-cut": ("chain-length", CERTIFICATES),
    "chain-gap": ("chain-length", CERTIFICATES),
    "chain-swapped": ("report-signature", SIGNATURE),
    "chain-reordered": ("certificate-roles", CERTIFICATES),
    "chain-expired": ("dates", CERTIFICATES),
    "chain-of-another-root": ("root-pinned", CERTIFICATES),
    "chain-empty": ("chain-format", "Malformed"),
    "fwid-differs": ("fwid", FWID),
    "fwid-absent": ("fwid", ACCEPTS),
    "driver-unknown": ("driver-version", "Refused"),
    "vbios-unknown": ("vbios-version", "Refused"),
    "board-unknown": ("vbios-version", "vbios-rim-fetched"),
    "opaque-unknown": (FORMAT, PARSED),
    "opaque-repeated": (FORMAT, ACCEPTS),
    "opaque-protected-pcie": ("single-gpu", ACCEPTS),
    "block-missing": (FORMAT, ACCEPTS),
    "block-repeated": (FORMAT, PARSED),
    "block-reordered": (FORMAT, ACCEPTS),
    "block-uncovered": ("uncovered", ACCEPTS),
    "block-of-31-bytes": (FORMAT, "measres"),
}
STUBS |= {name: ("measurements", "measres") for name in FAULTS if name.startswith("measurement-")}

#: Of those, what no evidence shows -> what refuses it.
DRIVERS = {
    "fewer-by-nvml": "the gate counts what NVML counts",
    "foreign": "the hook, from the PCI bus",
    "wrong-architecture-by-nvml": "the gate asks NVML for each GPU's",
    "cc-off": "the gate asks NVML for its state",
    "not-production": "the gate asks NVML for its state",
    "devtools": "the gate asks NVML for its state",
    "protected-pcie": "the gate asks NVML for its settings",
    "nvlink": "the gate asks NVML for its settings",
    "ready-does-not-stick": "the gate reads it back",
    "ready-already-set": "the gate asks before it does anything",
    "not-persistent": "the gate asks NVML whether the daemon holds it",
}

#: Not faults to the native verifier: a zero behind the report is padding of NVML's buffer.
PADDING = {"report-longer"}
