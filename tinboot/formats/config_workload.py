"""What a container may ask for by the schema and gets from no guest of ours: refused, by its key.

The builder looks so that nobody waits for a boot to learn it; the guest, so that such a container is not
started, and says why on the status endpoint.
"""

from __future__ import annotations

from tinboot.formats.config import Config
from tinboot.formats.config_container import Container
from tinboot.formats.errors import Refused
from tinboot.formats.variablenames import changes_what_runs


def check(config: Config, container: Container) -> None:
    """Raises `Refused` with the first."""
    where = f"containers.{container.name}"
    egress = {name: network.egress for name, network in config.networks}
    wanted = [egress[name] for name in container.networks]
    overlaid = {volume.name for volume in config.volumes if volume.overlays}
    test = container.healthcheck.test if container.healthcheck else ("NONE",)
    words = container.command if not container.entrypoint else ()
    for holds, what in (
        (container.keys, "keys: attested keys are not made yet"),
        (container.attestation, "attestation: no container is given evidence yet; clients fetch it over TLS"),
        ("allowlist" in wanted, "networks: egress by allow-list is not there yet; open or closed are"),
        (
            container.ports and "open" not in wanted,
            "ports: published only from a network whose egress is open; shim leads to a closed one",
        ),
        (
            any(outside not in config.cvm_network.inbound_ports for outside, _ in container.ports),
            "ports: not all of them are in cvm-network.inbound-ports, and nobody could reach the others",
        ),
        (
            overlaid & {name for name, _ in container.volumes},
            "volumes: overlays are not there yet; read the model below /models",
        ),
        (
            test != ("NONE",) and (len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL")),
            "healthcheck.test: expected CMD and words, CMD-SHELL and a line, or NONE",
        ),
        (
            {"", ";"} & set(words),
            "command: an empty argument, or ';' alone, needs entrypoint: both then go as JSON",
        ),
    ):
        if holds:
            raise Refused(f"{where}.{what}")
    for name in operator_names(container):
        if changes_what_runs(name):
            raise Refused(f"{where}: {name} changes what runs, so its value has to be in the config")


def operator_names(container: Container) -> tuple[str, ...]:
    """The variables whose values the operator gives, unmeasured."""
    return (*(v.name for v in container.env if v.value is None), *container.secrets)
