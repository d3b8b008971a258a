"""What the schema takes and no image does is refused by its key, where it is built and where it runs."""

from __future__ import annotations

import pytest

from tinboot.formats import config, config_supported
from tinboot.formats.errors import Refused

BASE = "cpus: 1\nmemory: 1024\n"
SHIM = "shim:\n  upstream-port: 8080\n"
APP = "localhost/app@sha256:" + "0" * 64
CONTAINER = f"containers:\n  - name: app\n    image: {APP}\n"


@pytest.mark.parametrize(
    "text",
    [
        BASE,
        BASE + SHIM,
        BASE + SHIM + "  paths: [/v1/chat, /static/*]\n  origins: ['*']\n" + CONTAINER,
        BASE + SHIM + "  rate-limit: 2.5\n  rate-burst: 10\n",
        BASE + SHIM + "  tls-mode: self-signed\n  publish-attestation: false\n  expected-gpus: 0\n",
        BASE + "networks:\n  out:\n    egress: open\n" + CONTAINER,
        "cvm-version: 0.1.0\nshim-version: 0.1.0\nvault-url: https://vault.example\n" + BASE,
    ],
)
def test_supported(text: str) -> None:
    config_supported.check(config.load(text.encode()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SHIM + "  tls-mode: acme\n", r"shim\.tls-mode: acme"),
        (SHIM + "  tls-mode: cert-proxy\n", r"shim\.tls-mode: cert-proxy"),
        (SHIM + "  tls-env: staging\n", r"shim\.tls-env"),
        (SHIM + "  tls-challenge: http\n", r"shim\.tls-challenge"),
        (SHIM + "  tls-wildcard: true\n", r"shim\.tls-wildcard"),
        (SHIM + "  email: a@example.com\n", r"shim\.email"),
        (SHIM + "  tls-own-san-domain: true\n", r"shim\.tls-own-san-domain"),
        (SHIM + "  control-plane: https://api.example\n", r"shim\.control-plane"),
        (SHIM + "  atc: https://atc.example\n", r"shim\.atc"),
        (SHIM + "  authenticated: true\n", r"shim\.authenticated is"),
        (SHIM + "  authenticated-endpoints: [/v1]\n", r"shim\.authenticated-endpoints"),
        (SHIM + "  rate-burst: 10\n", r"shim\.rate-burst says nothing"),
        (SHIM + "  paths: [/a//b]\n", r"shim\.paths: '/a//b'"),
        (SHIM + '  paths: ["/a\'b"]\n', r"shim\.paths: "),
        (SHIM + "  paths: [/.well-known/*]\n", r"shim\.paths: '/\.well-known/\*'"),
        (SHIM + "  origins: ['https:" + "//a''b']\n", r"shim\.origins: "),
        (SHIM + CONTAINER, r"shim\.paths lets nothing through"),
        (
            SHIM + "  paths: [/*]\n" + CONTAINER + f"  - name: other\n    image: {APP}\n",
            r"shim\.upstream-container is missing",
        ),
        (CONTAINER + "    attestation: true\n", r"containers\.app\.attestation"),
        (
            "attested-keys: [{id: host, key: ed25519}]\n" + CONTAINER + "    keys: [host]\n",
            "attested-keys is",
        ),
        (
            "networks:\n  out:\n    egress: allowlist\n    allow: [a.example]\n",
            r"networks\.out\.egress: allowlist",
        ),
        ("keyserver-url: https://keys.example\n", "keyserver-url is"),
    ],
)
def test_not_there_yet(text: str, told: str) -> None:
    with pytest.raises(Refused, match=told):
        config_supported.check(config.load((BASE + text).encode()))
