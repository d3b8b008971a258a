"""Rules of the containers' networks: closed, unless the config opens something."""

from __future__ import annotations

from workload_configs import config

from tinboot.guest import workload_firewall

ONLY_ANSWERS = ["ct state established,related accept"]


def rules(text: str) -> dict[str, list[str]]:
    """Chain to what it says behind its first line; and that every chain hooks in before netavark's."""
    found: dict[str, list[str]] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain"):
            found[line.split()[1]] = current = []
        elif line.startswith("type"):
            assert "priority filter - 10;" in line
            current.append(line.rpartition("policy ")[2])
        elif line not in ("}", "table inet tinboot", "delete table inet tinboot", "table inet tinboot {"):
            current.append(line)
    return found


def test_closed_networks_forward_nothing() -> None:
    found = rules(workload_firewall.render(config("networks:\n  a:\n", app="networks: [a]", other="")))
    assert found["forward"] == ["drop;", *ONLY_ANSWERS]


def test_a_container_reaches_nothing_of_the_machine() -> None:
    found = rules(workload_firewall.render(config(app="")))
    assert found["input"][-1] == 'iifname "tbnet*" drop'
    assert 'iifname "eth0" ip saddr 10.89.0.0/16 drop' in found["input"]
    assert 'iifname "eth0" ip daddr 10.89.0.0/16 drop' in found["input"]


def test_open_networks_lead_out_and_opened_ports_in() -> None:
    before = "networks:\n  a:\n  b:\n    egress: open\ncvm-network:\n  inbound-ports: [443, 2222]\n"
    loaded = config(before, app='networks: [a, b]\nports: ["2222:22", "2223:23"]')
    assert rules(workload_firewall.render(loaded))["forward"] == [
        "drop;",
        *ONLY_ANSWERS,
        'iifname "tbnet2" oifname "eth0" accept',
        'iifname "eth0" ct status dnat ct original proto-dst 2222 accept',
    ]
