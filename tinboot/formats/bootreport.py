"""The report that every boot begins with: what it binds, and the console line that shows it.

    tinboot-report {"certificates":"<base64>","provider":"sev-guest","report":"<base64>","sealed":"<base64>"}

Its REPORT_DATA is the SHA-512 of a label and of what the hooks sealed, so that the signed report says not
only which image was launched but what that image then verified. Nobody outside chose a number for it: it
shows what a machine booted, not that it did so just now.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import NamedTuple

from tinboot.formats import certtable, snpreport

PREFIX = "tinboot-report "

#: Keeps this REPORT_DATA apart from any other that a guest may ask for.
_LABEL = b"tinboot-boot-report 1\n"


class BootReport(NamedTuple):
    """`sealed`: the bytes of bootlog.REPORT_FILE, which the report binds. `provider`: the interface it came
    through. `certificates`: the host's table, or nothing.
    """

    sealed: bytes
    provider: str
    report: bytes
    certificates: bytes


def report_data(sealed: bytes) -> bytes:
    """64 bytes; `sealed`: the bytes of bootlog.REPORT_FILE."""
    return hashlib.sha512(_LABEL + sealed).digest()


def line(boot: BootReport) -> str:
    """The console line."""
    fields = {
        "certificates": base64.b64encode(boot.certificates).decode(),
        "provider": boot.provider,
        "report": base64.b64encode(boot.report).decode(),
        "sealed": base64.b64encode(boot.sealed).decode(),
    }
    return PREFIX + json.dumps(fields, separators=(",", ":"))


def parse(text: str) -> BootReport:
    """The inverse of `line`; raises ValueError for anything else."""
    if not text.startswith(PREFIX):
        raise ValueError(f"not the line of a boot's report: {text[:80]!r}")
    fields = json.loads(text[len(PREFIX) :])
    names = ["certificates", "provider", "report", "sealed"]
    if not isinstance(fields, dict) or sorted(fields) != names:
        raise ValueError(f"the line of a boot's report has {', '.join(names)}: {text[:200]!r}")
    try:
        report, certificates, sealed = (
            base64.b64decode(fields[n], validate=True) for n in ("report", "certificates", "sealed")
        )
    except (TypeError, binascii.Error) as error:
        raise ValueError(f"the line of a boot's report is not in base64: {error}") from error
    if len(report) != snpreport.SIZE or len(certificates) > certtable.MAX_SIZE:
        raise ValueError(f"a report of {len(report)} bytes, certificates of {len(certificates)}")
    return BootReport(sealed, str(fields["provider"]), report, certificates)
