"""Each refusal of the config's schema outside the containers, with its line and path."""

from __future__ import annotations

import hashlib

import pytest

from tinboot.formats.config import load
from tinboot.formats.halt import Refusal
from tinboot.formats.verity import Verity

ROOT_HASH = "ee92facce9c6f735d5e4b19cf32591a9457245ab6a1ed00882e8cb0017ba6510"
UUID = "0f98fbd8-f18a-5628-948d-11a952f8b391"


def refusal(text: str) -> str:
    with pytest.raises(Refusal) as refused:
        load(text.encode())
    return str(refused.value)


def machine(rest: str = "") -> str:
    """A config whose `rest` begins on line 3."""
    return f"cpus: 2\nmemory: 1024\n{rest}"


def model(name: str = "minilm", repo: str = "org/minilm@1", root_hash: str = ROOT_HASH) -> str:
    return f"  - {{name: {name}, repo: {repo}, mpk: {root_hash}_91627520_{UUID}}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- cpus: 1\n", "config-invalid: line 1: a list, expected a mapping with cpus, memory"),
        ("cpus\n", "config-invalid: line 1: 'cpus', expected a mapping"),
        ("---\n", "config-invalid: line 2: no value, expected a mapping"),
        ("memory: 1024\n", "config-invalid: line 1: the key cpus is missing"),
        ("# \ncpus: 1\n", "config-invalid: line 2: the key memory is missing"),
        (machine("gpu: 1\n"),
         "config-unknown-key: line 3, gpu is not a key of the schema; here it has cpus, "),
        (machine("shim: {upstream_port: 1}\n"),
         "config-unknown-key: line 3, shim.upstream_port is not a key"),
        (machine("Shim: {}\n"), "config-unknown-key: line 3, Shim is not a key of the schema"),
        ('cpus: "2"\nmemory: 64\n', "config-invalid: line 1, cpus: the string '2', expected a whole number"),
        ("cpus: 0\nmemory: 64\n", "config-invalid: line 1, cpus: '0', expected a whole number from 1 to 255"),
        ("cpus: 256\nmemory: 64\n", "config-invalid: line 1, cpus: '256', expected"),
        ("cpus: 010\nmemory: 64\n", "config-invalid: line 1, cpus: '010', expected"),
        ("cpus: 0x10\nmemory: 64\n", "config-invalid: line 1, cpus: '0x10', expected"),
        ("cpus: 1:30\nmemory: 64\n", "config-invalid: line 1, cpus: '1:30', expected"),
        ("cpus: +2\nmemory: 64\n", "config-invalid: line 1, cpus: '+2', expected"),
        ("cpus: 2.0\nmemory: 64\n", "config-invalid: line 1, cpus: '2.0', expected"),
        ("cpus: 1_0\nmemory: 64\n", "config-invalid: line 1, cpus: '1_0', expected"),
        ("cpus: \u0662\nmemory: 64\n", "config-invalid: line 1, cpus: '\\u0662', expected"),
        ("cpus: |\n  2\nmemory: 64\n", "config-invalid: line 1, cpus: the string '2\\n', expected"),
        ("cpus: [2]\nmemory: 64\n", "config-invalid: line 1, cpus: a list, expected a whole number"),
        ("cpus:\nmemory: 64\n", "config-invalid: line 1, cpus: no value, expected a whole number"),
        (f"cpus: {'9' * 5000}\nmemory: 64\n", "config-invalid: line 1, cpus: '999"),
        ("cpus: 1\nmemory: 63\n", "config-invalid: line 2, memory: '63', expected a whole number from 64"),
        (machine("gpus: 9\n"), "config-invalid: line 3, gpus: '9', expected a whole number from 0 to 8"),
        (machine("gpus: full\n"), "config-invalid: line 3, gpus: 'full', expected"),
        (machine("cvm-version: 0.11\n"),
         "config-invalid: line 3, cvm-version: 0.11 reads as a number, expected"),
        (machine("cvm-version: v1.2\n"),
         "config-invalid: line 3, cvm-version: 'v1.2', expected a version X.Y.Z"),
        (machine("cvm-version: 1.2.3@sha256:a\n"), "config-invalid: line 3, cvm-version: '1.2.3@sha256:a'"),
        (machine("keyserver-url: ftp://a\n"),
         "config-invalid: line 3, keyserver-url: 'ftp://a', expected an https"),
        (machine("models: {}\n"), "config-invalid: line 3, models: a mapping, expected a list"),
        (machine("models:\n"), "config-invalid: line 3, models: no value, expected a list"),
    ],
)  # fmt: skip
def test_the_machine(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("  - {name: a, repo: b@c}\n", "line 4, models[0]: the key mpk is missing"),
        (model(name="A"), "line 4, models[0].name: 'A', expected 1 to 64 of a-z, 0-9"),
        (model(name="../a"), "line 4, models[0].name: '../a', expected 1 to 64"),
        (model(name=".a"), "line 4, models[0].name: '.a', expected 1 to 64"),
        (model(name="a/b"), "line 4, models[0].name: 'a/b', expected 1 to 64"),
        (model(name="''"), "line 4, models[0].name: '', expected 1 to 64"),
        (model(name="a" * 65), f"line 4, models[0].name: '{'a' * 65}', expected 1 to 64"),
        (model(name="no"),
         "line 4, models[0].name: no reads as a boolean, expected a string; quote it: 'no'"),
        (model(name="2026-11-22"), "line 4, models[0].name: 2026-11-22 reads as a date"),
        (model(repo="org/minilm"), "line 4, models[0].repo: 'org/minilm', expected name@revision"),
        (model(repo="org/../x@1"), "line 4, models[0].repo: 'org/../x@1', expected name@revision"),
        (model(repo="a@b@c"), "line 4, models[0].repo: 'a@b@c', expected name@revision"),
        (model(repo="'a b@c'"), "line 4, models[0].repo: 'a b@c', expected name@revision"),
        (model(root_hash="E" * 64), "line 4, models[0].mpk: 'EEEE"),
        (model().replace("91627520", "91627521"), "line 4, models[0].mpk: 'ee92"),
        (model() + model(root_hash="5" * 64), "line 5, models[1].name: the same as in models[0]"),
        (model() + model(name="b"), "line 5, models[1].mpk: the same as in models[0]"),
        (model() + model(name="b").replace("mpk", "mwp"), "line 5, models[1]: the same as in models[0]"),
        (model().replace("mpk: ", "mwp: x"), "line 4, models[0].mwp: 'xee92"),
        (model().replace("mpk", "emwp"), "line 4, models[0].emwp: encrypted models are not supported yet"),
        (model().replace("}", ", key-secret: K}"),
         "line 4, models[0].key-secret: belongs to encrypted models"),
        (model().replace("}", ", schema: 0}"),
         "line 4, models[0].schema: '0', expected a whole number from 1"),
        ("".join(model(f"m{n}", root_hash=f"{n:064x}") for n in range(25)),
         "line 4, models: 25 entries, expected at most 24"),
    ],
)  # fmt: skip
def test_models(models: str, expected: str) -> None:
    assert refusal(machine("models:\n" + models)).startswith(f"config-invalid: {expected}")


def test_mpk_and_mwp_together() -> None:
    both = model().replace("}", f", mwp: {ROOT_HASH}_4096_{UUID}}}")
    assert refusal(machine("models:\n" + both)).endswith("mwp: another key says the same: give one of them")


NAME = "localhost/app:1@sha256:" + "ab" * 32


def image(name: str = NAME, root_hash: str = ROOT_HASH) -> str:
    return f"- {{image: '{name}', mpk: {root_hash}_91627520_{UUID}}}\n"


def containers(*names: str) -> str:
    return "containers:\n" + "".join(f"- {{name: c{n}, image: '{name}'}}\n" for n, name in enumerate(names))


def named(number: int) -> str:
    return f"localhost/app@sha256:{number:064x}"


def test_an_image_is_what_opens_its_volume() -> None:
    config = load(machine("images:\n" + image() + containers(NAME)).encode())
    (found,) = config.images
    assert (found.image, config.containers[0].image) == (NAME, NAME)
    salt = hashlib.sha256(NAME.encode()).hexdigest()
    assert found.verity() == Verity(ROOT_HASH, salt, 91627520 // 4096)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (image("app@sha256:" + "ab" * 32), "line 4, images[0].image: 'app@sha256:"),
        (image("library/app@sha256:" + "ab" * 32), "line 4, images[0].image: 'library/app@sha256:"),
        (image("localhost/App@sha256:" + "ab" * 32), "line 4, images[0].image: 'localhost/App@sha256:"),
        (image("localhost/app:1"), "line 4, images[0].image: 'localhost/app:1', expected an image by digest"),
        (image()[:-2] + ", name: a}\n", "config-unknown-key: line 4, images[0].name is not a key"),
        ("- {image: '" + NAME + "'}\n", "line 4, images[0]: the key mpk is missing"),
        (image() + image(root_hash="0" * 64) + containers(NAME),
         "line 5, images[1].image: the same as in images[0]"),
        (image() + image(named(1)) + containers(NAME, named(1)),
         "line 5, images[1].mpk: the same as in images[0]"),
        (image(), "line 4, images[0].image: no container has this image"),
        (image() + containers(named(1)), "line 4, images[0].image: no container has this image"),
        (image() + containers(NAME) + "models:\n" + model(), "line 4, images[0].mpk: the volume of a model"),
        (image() + containers(NAME) + "models:\n"
         + "".join(model(f"m{n}", root_hash=f"{n:064x}") for n in range(24)),
         "line 4, images: 25 with the models, expected at most 24"),
        ("".join(image(named(n), f"{n:064x}") for n in range(25)),
         "line 4, images: 25 entries, expected at most 24"),
    ],
)  # fmt: skip
def test_images(images: str, expected: str) -> None:
    assert expected in refusal(machine("images:\n" + images))


POLICY = "gpu-policy: {architecture: hopper, verifiers: [native], revocation: ocsp}\n"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (POLICY, "line 3, gpu-policy: there are no GPUs: gpus is 0"),
        ("gpus: 1\ngpu-policy: {architecture: hopper}\n", "line 4, gpu-policy: the key verifiers is missing"),
        ("gpus: 1\n" + POLICY.replace("hopper", "ampere"),
         "line 4, gpu-policy.architecture: 'ampere', expected hopper or blackwell"),
        ("gpus: 1\n" + POLICY.replace("native", "nv-local-gpu-verifier"),
         "line 4, gpu-policy.verifiers: native is always one"),
        ("gpus: 1\n" + POLICY.replace("[native]", "[]"),
         "line 4, gpu-policy.verifiers: native is always one"),
        ("gpus: 1\n" + POLICY.replace("native", "native, native"),
         "line 4, gpu-policy.verifiers[1]: stands twice, first at [0]"),
        ("gpus: 1\n" + POLICY.replace("ocsp", "none"),
         "line 4, gpu-policy.revocation: 'none', expected ocsp or relying-party"),
        ("volumes:\n- {name: a}\n- {name: a}\n", "line 5, volumes[1].name: the same as in volumes[0]"),
        ("volumes:\n- {name: a, owner: 65535}\n", "line 4, volumes[0].owner: '65535', expected"),
        ("volumes:\n- {name: a, exec: yes}\n", "line 4, volumes[0].exec: 'yes', expected true or false"),
        ("volumes:\n- {name: a, exec: 'true'}\n",
         "line 4, volumes[0].exec: the string 'true', expected true or false; remove"),
        ("volumes:\n- {name: a, overlays: [{model: m, source: x, target: t}]}\n",
         "line 4, volumes[0].overlays: overlays need exec: true"),
        ("volumes:\n- {name: a, exec: true, overlays: [{model: m, source: x, target: t}]}\n",
         "line 4, volumes[0].overlays[0].model: m is not declared in models"),
        ("volumes:\n- {name: a, exec: true, overlays: [{model: m, source: ../x, target: t}]}\n",
         "line 4, volumes[0].overlays[0].source: '../x', expected a relative path"),
        ("volumes:\n- {name: a, exec: true, overlays: [{model: m, source: x, target: /y}]}\n",
         "line 4, volumes[0].overlays[0].target: '/y', expected a relative path"),
        ("networks: []\n", "line 3, networks: a list, expected a mapping"),
        ("networks: {" + ", ".join(f"n{n}: " for n in range(33)) + "}\n",
         "line 3, networks: 33 entries, expected at most 32"),
        ("networks: {A: }\n", "line 3, networks.A: 'A', expected 1 to 15 of a-z"),
        ("networks: {a234567890123456: }\n",
         "line 3, networks.a234567890123456: 'a234567890123456', expected 1 to 15"),
        ("networks: {a: {egress: any}}\n",
         "line 3, networks.a.egress: 'any', expected closed or allowlist or open"),
        ("networks: {a: {allow: [b.c]}}\n",
         "line 3, networks.a: allow needs egress: allowlist, and egress is closed"),
        ("networks: {a: {egress: allowlist}}\n", "line 3, networks.a: egress: allowlist needs allow"),
        ("networks: {a: {egress: allowlist, allow: [1.2.3.4]}}\n",
         "line 3, networks.a.allow[0]: '1.2.3.4', expected a host name"),
        ("networks: {a: {egress: allowlist, allow: ['*.b.c']}}\n",
         "line 3, networks.a.allow[0]: '*.b.c', expected a host name"),
        ("cvm-network: {inbound-ports: [0]}\n", "line 3, cvm-network.inbound-ports[0]: '0', expected"),
        ("cvm-network: {inbound-ports: [22, 22]}\n", "line 3, cvm-network.inbound-ports[1]: stands twice"),
        ("cvm-source: {repo: a}\n", "line 3, cvm-source: the key artifacts is missing"),
        ("attested-keys: [{id: tls, key: x25519}]\n",
         "line 3, attested-keys[0].id: tls is a key that every machine has"),
        ("attested-keys: [{id: a, key: rsa}]\n",
         "line 3, attested-keys[0].key: 'rsa', expected ecdsa-p256 or"),
        ("attested-keys: [{id: a, key: x25519}]\n",
         "line 3, attested-keys[0].id: 0 containers have it in keys, expected one"),
        ("attested-keys: [{id: a, key: x25519}, {id: a, key: x25519}]\n",
         "line 3, attested-keys[1].id: the same as in attested-keys[0]"),
    ],
)  # fmt: skip
def test_other_sections(rest: str, expected: str) -> None:
    assert refusal(machine(rest)).startswith(f"config-invalid: {expected}")


@pytest.mark.parametrize(
    ("shim", "expected"),
    [
        ("{paths: [/a]}", ": the key upstream-port is missing"),
        ("{upstream-port: 65536}", ".upstream-port: '65536', expected"),
        ("{upstream-port: 1, upstream-container: web}",
         ".upstream-container: web is not declared in containers"),
        ("{upstream-port: 1, expected-gpus: 1}", ".expected-gpus: gpus is 0"),
        ("{upstream-port: 1, dummy-attestation: true}", ".dummy-attestation: evidence that proves nothing"),
        ("{upstream-port: 1, tls-wildcard: true, tls-challenge: http}",
         ".tls-wildcard: needs tls-challenge: dns"),
        ("{upstream-port: 1, tls-mode: none}",
         ".tls-mode: 'none', expected self-signed or acme or cert-proxy"),
        ("{upstream-port: 1, listen-port: 8443}", ".listen-port: '8443', expected a whole number from 443"),
        ("{upstream-port: 1, paths: [a]}", ".paths[0]: 'a', expected a path that begins with '/'"),
        ("{upstream-port: 1, paths: [/*/a]}",
         ".paths[0]: '/*/a', expected a path that begins with '/', with '*'"),
        ("{upstream-port: 1, paths: [/a/../b]}", ".paths[0]: '/a/../b', expected a path without '.', '..'"),
        ("{upstream-port: 1, paths: [/a%2e]}", ".paths[0]: '/a%2e', expected a path without"),
        ("{upstream-port: 1, paths: [/a, /a]}", ".paths[1]: stands twice, first at [0]"),
        ("{upstream-port: 1, origins: ['https://a.test/b']}", ".origins[0]: 'https://a.test/b', expected"),
        ("{upstream-port: 1, atc: 'https://example.com b'}", ".atc: 'https://example.com b', expected an https://"),
        ("{upstream-port: 1, rate-limit: 0}", ".rate-limit: '0', expected a decimal number up to 1000000"),
        ("{upstream-port: 1, rate-limit: 1.2345}", ".rate-limit: '1.2345', expected a decimal number"),
        ("{upstream-port: 1, rate-limit: 1e3}", ".rate-limit: '1e3', expected a decimal number"),
        ("{upstream-port: 1, rate-limit: .5}", ".rate-limit: '.5', expected a decimal number"),
        ("{upstream-port: 1, rate-limit: 1.}", ".rate-limit: '1.', expected a decimal number"),
        ('{upstream-port: 1, email: "a\\nb"}', ".email: 'a\\nb', expected one line of 1 to 254 characters"),
    ],
)  # fmt: skip
def test_shim(shim: str, expected: str) -> None:
    assert refusal(machine(f"shim: {shim}\n")).startswith(f"config-invalid: line 3, shim{expected}")
