"""What the operator gives: what the config asks for, and nothing that nobody attested to."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import operatorinput
from tinboot.formats.config import Config
from tinboot.formats.config_container import Container, Variable
from tinboot.formats.errors import Malformed, Mismatch, Refused
from tinboot.formats.operatorinput import MAX_SIZE, NOTHING, Network, OperatorInput, check, pad, parse

NETWORK = {"address": "192.0.2.7/24", "gateway": "192.0.2.1", "dns": ["192.0.2.53"]}
WHOLE = {"env": {"DOMAIN": "a.example"}, "secrets": {"KEY": "two\nlines"}, "network": NETWORK}

IMAGE = "localhost/app@sha256:" + "0" * 64
ASKING = Config(
    1, 64, containers=(Container("app", IMAGE, env=(Variable("DOMAIN", None),), secrets=("KEY",)),)
)


def packed(value: object) -> bytes:
    return pad(json.dumps(value).encode())


def test_all_of_it() -> None:
    disk = packed(WHOLE)
    assert len(disk) % 512 == 0
    network = Network("192.0.2.7", 24, "192.0.2.1", ("192.0.2.53",))
    assert parse(disk) == OperatorInput({"DOMAIN": "a.example"}, {"KEY": "two\nlines"}, network)
    assert parse(disk).values == {"DOMAIN": "a.example", "KEY": "two\nlines"}
    assert network.netmask == "255.255.255.0"


def test_each_member_is_optional() -> None:
    assert parse(packed({})) == NOTHING
    assert parse(packed({"network": {"address": "10.0.0.2/30", "gateway": "10.0.0.1"}})).network == Network(
        "10.0.0.2", 30, "10.0.0.1", ()
    )


@pytest.mark.parametrize("size", [1, 510, 511, 512, 513])
def test_padding(size: int) -> None:
    data = b"{}".ljust(size + 2)
    assert parse(pad(data)) == NOTHING


@pytest.mark.parametrize(
    ("disk", "told"),
    [
        (b"", "not strict JSON"),
        (bytes(512), "not strict JSON"),
        (b"{}" + bytes(1024), "more than the padding of a sector"),
        (b"{}" + bytes(10) + b"x", "more than the padding of a sector"),
        (b"[]".ljust(512, b"\0"), "an array, expected an object"),
        (b'{"env":{},"env":{}}', "stands twice"),
        (b"{}".ljust(MAX_SIZE + 512), f"expected at most {MAX_SIZE}"),
        (b'{"env":{"A":"\xff"}}', "not strict JSON"),
    ],
)
def test_disks_that_are_none(disk: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(disk)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"more": {}}, "unknown member 'more'"),
        ({"env": []}, "operator.env is an array"),
        ({"env": {"1A": "x"}}, "the name '1A'"),
        ({"env": {"A-B": "x"}}, "the name 'A-B'"),
        ({"env": {"": "x"}}, "the name ''"),
        ({"env": {"A" * 129: "x"}}, "expected that of a variable"),
        ({"env": {"A": 1}}, "operator.env.A is a number"),
        ({"secrets": {"A": "\u202e"}}, "operator.secrets.A is not text"),
        ({"secrets": {"A": "tab\t"}}, "operator.secrets.A is not text"),
        ({"secrets": {"A": "x" * 32769}}, "operator.secrets.A is not text"),
        ({"network": {}}, "operator.network.address is missing"),
        ({"network": NETWORK | {"mtu": 9000}}, "unknown member 'mtu'"),
        ({"network": NETWORK | {"address": "192.0.2.7"}}, "has the prefix ''"),
        ({"network": NETWORK | {"address": "192.0.2.7/31"}}, "has the prefix '31'"),
        ({"network": NETWORK | {"address": "192.0.2.7/024"}}, "has the prefix '024'"),
        ({"network": NETWORK | {"address": "192.0.2.256/24"}}, "expected the IPv4 address of a host"),
        ({"network": NETWORK | {"address": "192.0.2.0/24"}}, "is no host of"),
        ({"network": NETWORK | {"address": "192.0.2.255/24"}}, "is no host of"),
        ({"network": NETWORK | {"gateway": "192.0.3.1"}}, "is no host of"),
        ({"network": NETWORK | {"gateway": "192.0.2.7"}}, "are both"),
        ({"network": NETWORK | {"gateway": "127.0.0.1"}}, "expected the IPv4 address of a host"),
        ({"network": NETWORK | {"gateway": "::1"}}, "expected the IPv4 address of a host"),
        ({"network": NETWORK | {"dns": ["224.0.0.1"]}}, "expected the IPv4 address of a host"),
        ({"network": NETWORK | {"dns": ["192.0.2.53"] * 2}}, "has an item twice"),
        ({"network": NETWORK | {"dns": [f"192.0.2.{n}" for n in (2, 3, 4, 5)]}}, "expected at most 3"),
        ({"network": {"address": "10.89.3.9/24", "gateway": "10.89.3.1"}}, "16 is the containers'"),
        ({"network": {"address": "10.1.0.9/8", "gateway": "10.1.0.1"}}, "16 is the containers'"),
    ],
)
def test_refused(value: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        packed(value)


def test_no_value_is_in_a_message() -> None:
    for value in ("hush\u202e", "hush" * 10000):
        with pytest.raises(Malformed) as caught:
            packed({"secrets": {"KEY": value}})
        assert "hush" not in str(caught.value)


def test_what_was_asked_for_passes() -> None:
    check(parse(packed(WHOLE)), ASKING)
    check(NOTHING, Config(1, 64))


@pytest.mark.parametrize(
    ("env", "secrets", "error", "told"),
    [
        ({}, {"KEY": "x"}, Mismatch, "operator.env.DOMAIN: missing"),
        ({"DOMAIN": "x"}, {}, Mismatch, "operator.secrets.KEY: missing"),
        ({"DOMAIN": "x", "MORE": "x"}, {"KEY": "x"}, Refused, "operator.env.MORE: no container"),
        ({"DOMAIN": "x", "KEY": "x"}, {"KEY": "x"}, Refused, "operator.env.KEY: no container"),
        (
            {"DOMAIN": "x"},
            {"KEY": "x", "LD_PRELOAD": "x"},
            Refused,
            "operator.secrets.LD_PRELOAD: no container",
        ),
    ],
)
def test_other_names(env: dict[str, str], secrets: dict[str, str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        check(OperatorInput(env, secrets, None), ASKING)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "NODE_OPTIONS"])
def test_even_a_name_that_is_asked_for_cannot_change_what_runs(name: str) -> None:
    asking = Config(1, 64, containers=(Container("app", IMAGE, env=(Variable(name, None),)),))
    with pytest.raises(Refused, match="its value changes what runs"):
        check(OperatorInput({name: "x"}, {}, None), asking)


@given(st.binary(max_size=600))
def test_any_bytes_are_refused_or_read(disk: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse(disk)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["192.0.2.7/24", "10.0.0.1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["env", "secrets", "network", "address", "gateway", "dns", "A"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_refused_or_means_what_it_says(value: object) -> None:
    try:
        read = parse(packed(value))
    except Malformed:
        return
    assert isinstance(value, dict)
    assert dict(read.env) == value.get("env", {})
    assert dict(read.secrets) == value.get("secrets", {})
    assert (read.network is None) == ("network" not in value)


def test_the_default_is_qemus() -> None:
    assert operatorinput.DEFAULT_NETWORK.netmask == "255.255.255.0"
