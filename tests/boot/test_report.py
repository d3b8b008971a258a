"""The report that every boot begins with, and what the guest itself refuses about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinboot.formats import bootreport, snpreport

if TYPE_CHECKING:
    from guest import Guest


def test_over_the_device(guest: Guest) -> None:
    result = guest.boot()
    result.expect_up()
    shown = result.report
    report = snpreport.parse(shown.report)
    assert shown.provider == "sev-guest"
    assert report.report_data == bootreport.report_data(shown.sealed)


def test_over_configfs(guest: Guest) -> None:
    result = replace(guest, interface="tsm").boot()
    result.expect_up()
    assert result.report.provider == "configfs-tsm"
