"""What the services need, from the sealed config and the operator's disk; or the machine ends.

In this order, the network last: whatever is refused is refused before a packet comes in.

    config      parsed again, from the bytes that 10-config hashed; what this image does not do is refused
    operator    the values that the config asks for, and nothing else
    files       the proxy's configuration, settings of the evidence server, units of the containers
    network     loopback; the device, where the config serves or fetches something
"""

from __future__ import annotations

from pathlib import Path

from tinboot.formats import bootlog, config, config_supported, operatorinput, servicesettings
from tinboot.formats.config import Config
from tinboot.formats.errors import Refused
from tinboot.formats.halt import Halt, Refusal
from tinboot.formats.operatorinput import OperatorInput
from tinboot.formats.servicesettings import Settings
from tinboot.guest import network, operator_input, proxy_config
from tinboot.guest.console import halt

HOOK = "prepare"  # the name in the halt line

SEALED = Path(bootlog.SEALED) / bootlog.CONFIG_FILE

#: Of this boot (RuntimeDirectory= of the unit); the units of the services look whether their file is there.
PREPARED = Path(servicesettings.PATH).parent
PROXY_FILE = "proxy.cfg"
UPSTREAM_FILE = "upstream"  # one line, the workload's address and port
WORKLOAD_FOLDER = "workload"

#: Of the attestation server, which answers 200 while the workload is ready (endpoints.py).
READINESS = "/.well-known/readyz"


def settings(loaded: Config) -> Settings:
    shim = loaded.shim
    return Settings(
        loaded.gpus,
        loaded.gpu_policy.architecture,
        shim is None or shim.publish_attestation,
        bool(loaded.containers),
        loaded.cvm_version,
    )


def files(loaded: Config, given: OperatorInput) -> dict[str, bytes]:
    """Path below `PREPARED` to content."""
    made = {Path(servicesettings.PATH).name: servicesettings.render(settings(loaded))}
    if loaded.shim is not None:
        address, port = upstream(loaded)
        readiness = READINESS if loaded.containers else None
        text = proxy_config.render(
            loaded.shim, (address, port), cpus=loaded.cpus, memory=loaded.memory, readiness=readiness
        )
        made[PROXY_FILE] = text.encode("ascii")
        made[UPSTREAM_FILE] = f"{address}:{port}\n".encode("ascii")
    if loaded.containers:
        from tinboot.guest import workload_units  # noqa: PLC0415 - for who has some

        rendered = workload_units.render(loaded, given.values)
        made |= {f"{WORKLOAD_FOLDER}/{name}": content for name, content in rendered.files.items()}
    return made


def upstream(loaded: Config) -> tuple[str, int]:
    """Address and port of the workload; without containers the machine itself, where nobody listens."""
    if not loaded.containers:
        assert loaded.shim is not None  # noqa: S101 - asked for by who has one
        return "127.0.0.1", loaded.shim.upstream_port
    from tinboot.guest import workload_units  # noqa: PLC0415 - for who has some

    return workload_units.upstream(loaded)


def outside(loaded: Config, given: OperatorInput) -> operatorinput.Network | None:
    """The address on the device, for a config by which something comes in or goes out."""
    stored = {image.image for image in loaded.images}
    needed = (
        loaded.shim is not None
        or any(each.egress != "closed" for _, each in loaded.networks)
        or any(container.ports or container.image not in stored for container in loaded.containers)
    )
    return (given.network or operatorinput.DEFAULT_NETWORK) if needed else None


def write(made: dict[str, bytes], folder: Path) -> None:
    """Of what `files` made. What containers are given is for the root alone."""
    for name, content in made.items():
        path = folder / name
        private = name.startswith(f"{WORKLOAD_FOLDER}/")
        for above in reversed(Path(name).parents):
            (folder / above).mkdir(mode=0o700 if private else 0o755, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600 if private else 0o644)


def prepare(sealed: Path = SEALED, folder: Path = PREPARED) -> None:
    """Raises `Refusal`."""
    loaded = config.load(sealed.read_bytes())
    try:
        config_supported.check(loaded)
    except Refused as error:
        raise Refusal("config-unsupported", error.message) from error
    given = operator_input.load(loaded)
    write(files(loaded, given), folder)
    network.configure(outside(loaded, given))


def main() -> None:
    """Called by tinboot-prepare.service."""
    try:
        prepare()
    except Refusal as refusal:
        halt(Halt(HOOK, refusal.reason, refusal.detail))
    except BaseException as error:  # whatever it is, nothing is served on half of it
        halt(Halt(HOOK, "prepare-failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
