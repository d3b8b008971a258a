"""What the schema takes, so that an existing file loads, and this image does not do: refused, by its key.

`tinboot build` and the guest ask the same question, so that no config is built whose wish nobody would
grant, and none runs with one that was passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tinboot.formats.config import Config
from tinboot.formats.config_schema import Shim
from tinboot.formats.errors import Refused

#: In the one spelling of RFC 3986, 6.2.2, and without the quote that HAProxy's configuration would need.
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&()*+,;=:@-]+)*/?\*?")
_ORIGIN = re.compile(r"\*|https?://[a-z0-9.:\[\]-]+")

_LATER = "is not there yet: leave the key out"
_ACME = "belongs to tls-mode acme, which is not there yet: leave the key out"


def check(config: Config) -> None:
    """Raises `Refused` with the first key that is not supported."""
    for problem in problems(config):
        raise Refused(problem)


def problems(config: Config) -> Iterator[str]:
    """Each as the key's path and why not."""
    if config.attested_keys:
        yield f"attested-keys {_LATER}"
    if config.keyserver_url is not None:
        yield f"keyserver-url {_LATER}; the operator gives secrets (docs/service.md)"
    for container in config.containers:
        if container.attestation:
            yield f"containers.{container.name}.attestation {_LATER}"
    for name, network in config.networks:
        if network.egress == "allowlist":
            yield f"networks.{name}.egress: allowlist {_LATER}, or say open"
    if config.shim is not None:
        yield from _shim(config, config.shim)


def _shim(config: Config, shim: Shim) -> Iterator[str]:
    if shim.tls_mode != "self-signed":
        yield f"shim.tls-mode: {shim.tls_mode} is not there yet: the certificate is self-signed, and attested"
    for key, given in (
        ("tls-env", shim.tls_env != "production"),
        ("tls-challenge", shim.tls_challenge != "dns"),
        ("tls-wildcard", shim.tls_wildcard),
        ("email", shim.email is not None),
    ):
        if given:
            yield f"shim.{key} {_ACME}"
    for key, given in (
        ("tls-own-san-domain", shim.tls_own_san_domain),
        ("control-plane", shim.control_plane is not None),
        ("atc", shim.atc is not None),
        ("authenticated", shim.authenticated),
        ("authenticated-endpoints", bool(shim.authenticated_endpoints)),
    ):
        if given:
            yield f"shim.{key} {_LATER}"
    for path in shim.paths:
        if not _PATH.fullmatch(path) or path.lower().startswith("/.well-known"):
            yield f"shim.paths: {path!r} is no path that the proxy passes on (docs/service.md)"
    for origin in shim.origins:
        if not _ORIGIN.fullmatch(origin):
            yield f"shim.origins: {origin!r} is none that a browser sends"
    if shim.rate_burst is not None and not shim.rate_limit:
        yield "shim.rate-burst says nothing without rate-limit"
    if config.containers and not shim.paths:
        yield 'shim.paths lets nothing through to the workload: name its paths, or all of them with "/*"'
    if len(config.containers) > 1 and shim.upstream_container is None:
        yield "shim.upstream-container is missing, and there are several containers"
