"""The schema of `tinboot.yml`, section by section; `docs/config.md` says the same for people.

Keys are those of Tinfoil's published schema, so that an existing file loads, and `gpu-policy`. What a
field's type alone cannot say (names that must be declared, and once) is in `config.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats import config_values as kind
from tinboot.formats import verity
from tinboot.formats.config_container import CONTAINER, MAX_CPUS, MAX_GPUS, Container
from tinboot.formats.config_readers import (
    Section,
    flag,
    invalid,
    is_nothing,
    keyed,
    line,
    listed,
    one_of,
    text_of,
    thousandths,
    whole,
)
from tinboot.formats.yamlstrict import Node

#: MiB; the launcher's bounds.
MIN_MEMORY, MAX_MEMORY = 64, 16 << 20

#: Tinfoil's published schema. Models and images are at most MAX_MODELS together: each is a disk.
MAX_MODELS, MAX_CONTAINERS, MAX_NETWORKS, MAX_KEYS = 24, 64, 32, 32
MAX_OWNER = 65534

#: Ids of the keys that every machine has.
RESERVED_KEYS = ("tls", "hpke")


class Model(NamedTuple):
    """Weights on a volume of their own. `repo` is name@revision, what the volume's salt was made from."""

    name: str
    repo: str
    volume: verity.VolumeRef
    schema: int = 1

    def verity(self) -> verity.Verity:
        """What opens the volume: root hash, salt and data blocks, none of them read from the disk."""
        blocks = self.volume.hash_offset // verity.BLOCK
        return verity.Verity(self.volume.root_hash, verity.salt_for(self.repo), blocks)


class Image(NamedTuple):
    """A container's image on a volume of its own; the salt was made from `image`, which containers name."""

    image: str
    volume: verity.VolumeRef

    def verity(self) -> verity.Verity:
        """As `Model.verity`."""
        blocks = self.volume.hash_offset // verity.BLOCK
        return verity.Verity(self.volume.root_hash, verity.salt_for(self.image), blocks)


class Overlay(NamedTuple):
    """`source` in the model is seen at `target` in the volume; both relative."""

    model: str
    source: str
    target: str


class Volume(NamedTuple):
    """A place to write, in memory and gone with the machine; `owner` is a user id."""

    name: str
    exec: bool = False
    owner: int = 0
    overlays: tuple[Overlay, ...] = ()


class Network(NamedTuple):
    """`allow` are host names, for egress "allowlist" alone."""

    egress: str = "closed"
    allow: tuple[str, ...] = ()


class Key(NamedTuple):
    """A key pair born in the guest and endorsed by its evidence; `uid` and `gid` own its files."""

    id: str
    key: str
    uid: int = 0
    gid: int = 0


class GpuPolicy(NamedTuple):
    """What 40-gpu requires. `verifiers` must all accept."""

    architecture: str
    verifiers: tuple[str, ...]
    revocation: str


class Shim(NamedTuple):
    """What the TLS proxy does. `rate_limit` in thousandths of a request a second.

    Unlike in Tinfoil's schema no service is asked for anything unless the file names it.
    """

    upstream_port: int
    upstream_container: str | None = None
    paths: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tls_mode: str = "self-signed"
    tls_env: str = "production"
    tls_challenge: str = "dns"
    tls_wildcard: bool = False
    tls_own_san_domain: bool = False
    control_plane: str | None = None
    atc: str | None = None
    authenticated: bool = False
    authenticated_endpoints: tuple[str, ...] = ()
    rate_limit: int | None = None
    rate_burst: int | None = None
    email: str | None = None
    publish_attestation: bool = True
    dummy_attestation: bool = False
    expected_gpus: int | None = None
    listen_port: int = 443


class CvmNetwork(NamedTuple):
    """TCP ports that the machine's firewall opens."""

    inbound_ports: tuple[int, ...] = ()


class CvmSource(NamedTuple):
    """Where another image than the published one comes from."""

    repo: str
    artifacts: str


class Config(NamedTuple):
    """The whole file. `memory` in MiB."""

    cpus: int
    memory: int
    gpus: int = 0
    gpu_policy: GpuPolicy = GpuPolicy("hopper", ("native",), "relying-party")
    models: tuple[Model, ...] = ()
    images: tuple[Image, ...] = ()
    volumes: tuple[Volume, ...] = ()
    containers: tuple[Container, ...] = ()
    networks: tuple[tuple[str, Network], ...] = ()
    shim: Shim | None = None
    cvm_network: CvmNetwork = CvmNetwork()
    attested_keys: tuple[Key, ...] = ()
    keyserver_url: str | None = None
    cvm_version: str | None = None
    cvm_source: CvmSource | None = None
    ovmf_version: str | None = None
    shim_version: str | None = None
    vault_url: str | None = None

    @property
    def has_services(self) -> bool:
        """Whether anything is to run in the machine beyond its own report."""
        asked = (self.shim, self.containers, self.networks, self.attested_keys, self.keyserver_url)
        return any(bool(part) for part in asked)


_name = text_of(kind.safe_name)
_url = text_of(kind.url)
_version = text_of(kind.version)
_paths = listed(text_of(kind.url_path), 256, distinct=True)
_port = whole(1, 65535)

MODEL = Section(
    Model,
    {
        "name": _name,
        "repo": text_of(kind.identity),
        "mpk": text_of(kind.volume_ref),
        "mwp": text_of(kind.volume_ref),
        "schema": whole(1, 1000),
    },
    fields={"mpk": "volume", "mwp": "volume"},
    refused={
        "emwp": "encrypted models are not supported yet: wrap the model without encryption, as mpk",
        "key-secret": "belongs to encrypted models (emwp), which are not supported yet",
    },
)

IMAGE = Section(
    Image,
    {"image": text_of(kind.stored_image), "mpk": text_of(kind.volume_ref)},
    fields={"mpk": "volume"},
)

OVERLAY = Section(
    Overlay, {"model": _name, "source": text_of(kind.relative), "target": text_of(kind.relative)}
)

VOLUME = Section(
    Volume,
    {
        "name": _name,
        "exec": flag,
        "owner": whole(0, MAX_OWNER),
        "overlays": listed(OVERLAY, 8, distinct=True),
    },
)

NETWORK = Section(
    Network,
    {
        "egress": one_of("closed", "allowlist", "open"),
        "allow": listed(text_of(kind.host_name), 256, distinct=True),
    },
)

KEY = Section(
    Key,
    {
        "id": text_of(kind.key_id),
        "key": one_of("ecdsa-p256", "ed25519", "x25519"),
        "uid": whole(0, MAX_OWNER),
        "gid": whole(0, MAX_OWNER),
    },
)

GPU_POLICY = Section(
    GpuPolicy,
    {
        "architecture": one_of("hopper", "blackwell"),
        "verifiers": listed(one_of("native", "nv-local-gpu-verifier"), 2, distinct=True),
        "revocation": one_of("ocsp", "relying-party"),
    },
)

SHIM = Section(
    Shim,
    {
        "upstream-port": _port,
        "upstream-container": _name,
        "paths": _paths,
        "origins": listed(text_of(kind.origin), 64, distinct=True),
        "tls-mode": one_of("self-signed", "acme", "cert-proxy"),
        "tls-env": one_of("production", "staging"),
        "tls-challenge": one_of("tls", "dns", "http"),
        "tls-wildcard": flag,
        "tls-own-san-domain": flag,
        "control-plane": _url,
        "atc": _url,
        "authenticated": flag,
        "authenticated-endpoints": _paths,
        "rate-limit": thousandths(1_000_000),
        "rate-burst": whole(1, 1_000_000),
        "email": line(254),
        "publish-attestation": flag,
        "dummy-attestation": flag,
        "expected-gpus": whole(0, MAX_GPUS),
        "listen-port": whole(443, 443),
    },
)

CVM_NETWORK = Section(CvmNetwork, {"inbound-ports": listed(_port, 64, distinct=True)})

CVM_SOURCE = Section(CvmSource, {"repo": line(256), "artifacts": _url})


def _network(node: Node) -> Network:
    """`name:` with nothing behind it is a closed network."""
    network = Network() if is_nothing(node) else NETWORK(node)
    if network.allow and network.egress != "allowlist":
        raise invalid(node.place, f"allow needs egress: allowlist, and egress is {network.egress}")
    if network.egress == "allowlist" and not network.allow:
        raise invalid(node.place, "egress: allowlist needs allow; with nothing allowed it is closed")
    return network


CONFIG = Section(
    Config,
    {
        "cpus": whole(1, MAX_CPUS),
        "memory": whole(MIN_MEMORY, MAX_MEMORY),
        "gpus": whole(0, MAX_GPUS),
        "gpu-policy": GPU_POLICY,
        "models": listed(MODEL, MAX_MODELS),
        "images": listed(IMAGE, MAX_MODELS),
        "volumes": listed(VOLUME, MAX_MODELS),
        "containers": listed(CONTAINER, MAX_CONTAINERS),
        "networks": keyed(kind.network_name, _network, MAX_NETWORKS),
        "shim": SHIM,
        "cvm-network": CVM_NETWORK,
        "attested-keys": listed(KEY, MAX_KEYS),
        "keyserver-url": _url,
        "cvm-version": _version,
        "cvm-source": CVM_SOURCE,
        "ovmf-version": _version,
        "shim-version": _version,
        "vault-url": _url,
    },
)
