"""The report that every boot begins with: collected, looked at, kept, and shown; or the machine ends.

A guest that cannot attest is of use to nobody, and one that was launched so that its host may read it should
never hold a key. Only what the guest itself can judge is judged here: signature, chain and TCB are for
whoever verifies from outside (tinboot/verify/), as a host that lies to the guest could lie about those too.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tinboot.formats import bootlog, bootreport, certtable, launchspec, snpreport
from tinboot.formats.bootreport import BootReport
from tinboot.formats.errors import Malformed
from tinboot.formats.halt import Halt, Refusal
from tinboot.guest import configfs_tsm, sev_guest
from tinboot.guest.console import halt, say
from tinboot.guest.evidence import (
    BadAnswer,
    Busy,
    DeviceError,
    Evidence,
    EvidenceError,
    NoAnswer,
    NoDevice,
    Patience,
)

HOOK = "report"  # the name in the halt line; it is no hook, but the next thing after them

SEALED = Path(bootlog.SEALED) / bootlog.REPORT_FILE

#: Of this boot, for the root alone (RuntimeDirectory= of the unit).
KEPT = Path("/run/tinboot-report")

#: Seconds for the whole of it, calls that never come back included.
DEADLINE = 30.0

REASONS = {
    NoDevice: "report-unavailable",
    Busy: "report-busy",
    NoAnswer: "report-timeout",
    DeviceError: "report-refused",
    BadAnswer: "report-malformed",
}
_LIMIT = 64 << 10  # bytes from the collecting process: report and certificates in base64


def collect(report_data: bytes) -> Evidence:
    """From configfs-tsm, else from /dev/sev-guest; raises EvidenceError."""
    try:
        return configfs_tsm.collect(report_data, Patience())
    except NoDevice as first:
        try:
            return sev_guest.collect(report_data, Patience())
        except NoDevice as second:
            raise NoDevice(f"{first}; {second}") from second


def within(seconds: float, work: Callable[[], Evidence]) -> Evidence:
    """`work` in a process that can be given up: a device that never answers cannot be interrupted otherwise.

    Raises what `work` raises of EvidenceError; NoAnswer past the deadline; RuntimeError for other failures.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _work(writer, work)
    os.close(writer)
    data, deadline = b"", time.monotonic() + seconds
    try:
        while len(data) <= _LIMIT:
            ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise NoAnswer(f"no answer within {seconds:g} s")
            part = os.read(reader, _LIMIT)
            if not part:
                break
            data += part
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)  # and no wait for it: it may hang in the kernel
    if not data:
        raise RuntimeError("the process that asks the device ended without a word")
    fields = json.loads(data)
    if "error" in fields:
        kind = next((kind for kind in REASONS if kind.__name__ == fields["error"]), RuntimeError)
        raise kind(fields["detail"])
    return Evidence(fields["provider"], *(base64.b64decode(fields[n]) for n in ("report", "certificates")))


def _work(writer: int, work: Callable[[], Evidence]) -> NoReturn:
    """In the child: one JSON object into the pipe, whatever happens."""
    try:
        found = work()
        answer = {
            "provider": found.provider,
            "report": base64.b64encode(found.report).decode(),
            "certificates": base64.b64encode(found.certificates).decode(),
        }
    except BaseException as error:  # it must not run on in this process
        detail = str(error) if isinstance(error, EvidenceError) else repr(error)
        answer = {"error": type(error).__name__, "detail": detail}
    try:
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def judge(evidence: Evidence, report_data: bytes) -> None:
    """Raises `Refusal` for a report that is not of this request, or of a launch that nobody may trust."""
    try:
        report = snpreport.parse(evidence.report)
        certtable.parse(evidence.certificates)
    except Malformed as error:
        raise Refusal("report-malformed", error.message) from error
    if report.report_data != report_data:
        raise Refusal("report-mismatch", f"REPORT_DATA is {report.report_data.hex()}, not what was asked for")
    if report.vmpl != 0:
        raise Refusal("report-policy", f"the report is of VMPL {report.vmpl}, this guest runs in VMPL 0")
    for bit, word in ((launchspec.POLICY_DEBUG, "DEBUG"), (launchspec.POLICY_MIGRATE, "MIGRATE_MA")):
        if report.policy & bit:
            raise Refusal("report-policy", f"the guest policy {report.policy:#x} has {word}")


def keep(evidence: Evidence, folder: Path) -> None:
    """A file for each part, which the root alone reads."""
    for name, data in evidence._asdict().items():
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def kept(folder: Path = KEPT) -> Evidence:
    """What `keep` left there."""
    return Evidence(
        (folder / "provider").read_text("ascii"),
        (folder / "report").read_bytes(),
        (folder / "certificates").read_bytes(),
    )


def main() -> None:
    """Called by tinboot-report.service."""
    try:
        sealed = SEALED.read_bytes()
        report_data = bootreport.report_data(sealed)
        evidence = within(DEADLINE, lambda: collect(report_data))
        judge(evidence, report_data)
        keep(evidence, KEPT)
        say(bootreport.line(BootReport(sealed, *evidence)))
    except Refusal as refusal:
        halt(Halt(HOOK, refusal.reason, refusal.detail))
    except EvidenceError as error:
        halt(Halt(HOOK, REASONS[type(error)], str(error)))
    except BaseException as error:  # whatever it is, the machine does not stay up without a report
        halt(Halt(HOOK, "report-failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
