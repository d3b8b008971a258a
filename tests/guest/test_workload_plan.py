"""Names and addresses, which follow from the config alone."""

from __future__ import annotations

import pytest
from workload_configs import config

from tinboot.formats.errors import Refused
from tinboot.guest import workload_plan, workload_units


def test_each_network_and_container_has_its_number() -> None:
    loaded = config(
        "networks:\n  a:\n  b:\n    egress: open\n",
        one="networks: [b, a]",
        two="",
        three="networks: [a]",
    )
    found = [[a.ip for a in workload_plan.addresses(loaded, c)] for c in loaded.containers]
    assert found == [["10.89.2.2", "10.89.1.2"], ["10.89.0.3"], ["10.89.1.4"]]
    nets = workload_plan.nets(loaded)
    assert [(n.name, n.bridge, n.internal) for n in nets] == [
        ("net0-default", "tbnet0", True),
        ("net1-a", "tbnet1", True),
        ("net2-b", "tbnet2", False),
    ]
    assert [(n.subnet, n.gateway) for n in nets] == [
        (f"10.89.{number}.0/24", f"10.89.{number}.1") for number in range(3)
    ]


def test_a_network_that_nobody_uses_is_not_made() -> None:
    loaded = config("networks:\n  a:\n  b:\n", app="networks: [b]")
    assert [net.name for net in workload_plan.nets(loaded)] == ["net2-b"]


def test_units_are_never_ours() -> None:
    loaded = config(**{"tinboot-proxy": ""})
    assert workload_plan.unit(loaded.containers[0]) == "tinboot-container-tinboot-proxy.service"


def test_upstream_is_the_one_container_or_the_named_one() -> None:
    one = config("shim:\n  upstream-port: 8001\n", app="")
    assert workload_units.upstream(one) == ("10.89.0.2", 8001)
    named = config(
        "shim:\n  upstream-port: 1\n  upstream-container: b\nnetworks:\n  x:\n", a="", b="networks: [x]"
    )
    assert workload_units.upstream(named) == ("10.89.1.3", 1)


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_no_upstream_where_none_can_be_told(names: tuple[str, ...]) -> None:
    loaded = config("shim:\n  upstream-port: 1\n", **dict.fromkeys(names, ""))
    with pytest.raises(Refused, match=f"{len(names)} containers could be"):
        workload_units.upstream(loaded)


def test_no_upstream_without_a_shim() -> None:
    with pytest.raises(Refused, match="no shim"):
        workload_units.upstream(config(app=""))


def test_the_store_is_the_image_s_volume_or_none() -> None:
    image = f"example.com/a@sha256:{'1' * 64}"
    stored = config(
        f"images:\n  - image: {image}\n    mpk: {'ab' * 32}_4096_{'0' * 8}-0000-0000-0000-{'0' * 12}\n", a=""
    )
    assert workload_plan.store(stored, stored.containers[0]) == f"/run/tinboot/images/{'ab' * 10}"
    pulled = config(a="")
    assert workload_plan.store(pulled, pulled.containers[0]) is None
