"""Policies are complete: nothing defaults to unchecked, and what is shipped says what it claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.snpreport import FirmwareVersion
from tinboot.verify import advisories, policy
from tinboot.verify.checks import Unchecked

BASELINE: dict[str, Any] = json.loads(policy.text("baseline"))
GROUPS = ("guest_policy", "platform_info", "distrust")
MEMBERS = [(name,) for name in BASELINE] + [(group, name) for group in GROUPS for name in BASELINE[group]]


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    members = json.loads(policy.text("baseline"))
    change(members)
    return json.dumps(members).encode()


@pytest.mark.parametrize("path", MEMBERS, ids=".".join)
def test_no_member_may_be_missing(path: tuple[str, ...]) -> None:
    def remove(members: dict[str, Any]) -> None:
        for name in path[:-1]:
            members = members[name]
        members.pop(path[-1])

    with pytest.raises(Malformed, match=f"{path[-1]} is missing"):
        policy.load("mine", changed(remove))


@pytest.mark.parametrize("name", policy.PROFILES)
def test_shipped_policies(name: str) -> None:
    shipped = policy.shipped(name)
    assert shipped.name == name
    assert shipped.floors == shipped.launch_floors == name
    assert "Milan" not in shipped.products
    assert (shipped.guest_policy["debug"], shipped.guest_policy["migrate_ma"]) == ("refuse", "refuse")
    assert shipped.vmpl == (0,)
    assert isinstance(shipped.revocation, Unchecked) is (name == "baseline")


def test_pinned_values_replace_what_the_policy_says() -> None:
    pinned = policy.shipped("baseline").pinned(measurement=b"m" * 48, host_data=b"h" * 32)
    assert (pinned.measurement, pinned.host_data) == ((b"m" * 48,), (b"h" * 32,))
    assert isinstance(pinned.report_data, Unchecked)


def test_pinned_values_narrow_and_never_widen() -> None:
    narrow = policy.shipped("baseline").pinned(measurement=b"m" * 48)
    assert narrow.pinned(measurement=b"m" * 48).measurement == (b"m" * 48,)
    with pytest.raises(Refused, match="does not allow the measurement"):
        narrow.pinned(measurement=b"n" * 48)


def test_products_can_be_added() -> None:
    allowing = policy.shipped("baseline").allowing("Milan", "Genoa")
    assert allowing.products == ("Genoa", "Turin", "Milan")
    assert allowing.pinned(host_data=b"h" * 32).changed == ("Milan is allowed", "host_data is pinned")
    everything = allowing._replace(products=Unchecked("x"))
    assert everything.allowing("Milan") == everything


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(more=1), "unknown member 'more'"),
        (lambda m: m.update(schema=2), "schema is 2"),
        (lambda m: m.update(date="yesterday"), "date is 'yesterday'"),
        (lambda m: m.update(versions=[4]), "versions has 4"),
        (lambda m: m.update(versions=[3, 3]), "an item twice"),
        (lambda m: m.update(products=["Rome"]), "'Rome'"),
        (lambda m: m.update(signing_keys=["VMEK"]), "'VMEK'"),
        (lambda m: m.update(revocation="maybe"), "'maybe'"),
        (lambda m: m.update(revocation={"unchecked": ""}), "is not one line"),
        (lambda m: m.update(revocation={"unchecked": "x", "y": 1}), "unknown member 'y'"),
        (lambda m: m.update(abi="1"), "abi is '1'"),
        (lambda m: m["guest_policy"].update(debug="ok"), "debug is 'ok'"),
        (lambda m: m["guest_policy"].update(debug={"unchecked": "x"}), "an object, expected a string"),
        (lambda m: m["guest_policy"].update(turbo="allow"), "unknown member 'turbo'"),
        (lambda m: m.update(floors="none"), "floors is 'none'"),
        (lambda m: m.update(unknown_microcode="require"), "unknown_microcode is 'require'"),
        (lambda m: m.update(firmware=[{"product": "Milan", "version": "1.55"}]), "Milan '1.55'"),
        (lambda m: m.update(firmware=[{"product": "Milan", "version": "1.55.1"}] * 2), "each once"),
        (lambda m: m.update(guest_svn=-1), "guest_svn is -1"),
        (lambda m: m.update(vmpl=[4]), r"vmpl\[0\] is 4"),
        (lambda m: m.update(measurement=["ab"]), "expected 96 hex digits"),
        (lambda m: m.update(measurement="ab" * 48), "a string, expected an array"),
        (lambda m: m.update(launch_mitigations=1 << 64), "launch_mitigations is"),
        (lambda m: m["distrust"].update(chips=["00"]), "expected 16 or 128 hex digits"),
        (lambda m: m["distrust"].update(products=["Rome"]), "'Rome'"),
    ],
)
def test_refuses(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        policy.load("mine", changed(change))


def test_what_is_unchecked_keeps_its_reason() -> None:
    read = policy.load("mine", changed(lambda m: m.update(vmpl={"unchecked": "an SVSM runs below us"})))
    assert read.vmpl == Unchecked("an SVSM runs below us")


def test_firmware_and_chips() -> None:
    read = policy.load("mine", changed(lambda m: m["distrust"].update(chips=["0102030405060708"])))
    assert read.distrust.chips == (bytes(range(1, 9)),)
    assert isinstance(read.firmware, dict)
    assert read.firmware["Genoa"] == FirmwareVersion(1, 55, 38)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        policy.load("mine", data)


def test_the_data_file_has_floors_of_every_profile_and_product() -> None:
    data = advisories.shipped()
    assert set(data.floors) == set(policy.PROFILES)
    for floors in data.floors.values():
        assert set(floors) == {"Milan", "Genoa", "Turin"}
    for product in ("Milan", "Genoa", "Turin"):
        low, high = (data.floors[profile][product].tcb for profile in policy.PROFILES)
        assert all(high[name] >= least for name, least in low.items())
