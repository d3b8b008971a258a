"""PyPI's `tinfoil` talks to the guest's services, as they run in the guest, on this machine.

The same against a booted guest: tests/boot/test_foreign_client.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from foreign_client import Mode, ask
from host_service import MEASUREMENT, Service, answer
from psp import chain
from tls_relay import Relay

from tinboot.formats.snptcb import GENOA, MILAN

MODES: tuple[Mode, ...] = ("tls", "ehbp")
BODY = json.dumps({"input": "a secret", "model": "m"}).encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service"), chain(GENOA)) as service:
        yield service


@pytest.mark.parametrize("mode", MODES)
def test_it_accepts_and_is_answered(service: Service, mode: Mode) -> None:
    told = ask(service.server, service.roots, MEASUREMENT, mode, BODY)
    assert told.refused == ""
    assert told.steps["verify_enclave"] == told.steps["compare_measurements"] == "success"
    answered = json.loads(told.answer)
    assert answered["size"] >= len(BODY)  # it may add to a JSON body what is its own
    assert set(answered) == set(json.loads(answer(b"")))


@pytest.mark.parametrize("mode", MODES)
def test_it_refuses_another_measurement(service: Service, mode: Mode) -> None:
    told = ask(service.server, service.roots, bytes(48), mode, BODY)
    assert "SNP measurement mismatch" in told.refused
    assert told.steps["verify_enclave"] == "success"
    assert told.answer == b""


def test_it_refuses_another_root(service: Service) -> None:
    """Without which the test of a good guest would show nothing."""
    told = ask(service.server, service.roots._replace(ark=chain(MILAN).ark), MEASUREMENT, "tls", BODY)
    assert "SEV attestation verification failed" in told.refused
    assert told.steps["verify_enclave"] == "failed"


def test_it_refuses_another_tls_key(service: Service) -> None:
    """The evidence is genuine, and the certificate is one that it trusts: the key is not the evidence's."""
    with Relay(service.server) as relay:
        told = ask(relay.server, service.roots, MEASUREMENT, "tls", BODY)
    assert "Certificate fingerprint mismatch" in told.refused
    assert b"a secret" not in relay.read
    assert b"/v1/embeddings" not in relay.read


def test_with_encrypted_bodies_who_relays_reads_none(service: Service) -> None:
    with Relay(service.server) as relay:
        told = ask(relay.server, service.roots, MEASUREMENT, "ehbp", BODY)
    assert told.refused == ""
    assert json.loads(told.answer)["size"] >= len(BODY)
    assert b"/v1/embeddings" in relay.read
    assert b"a secret" not in relay.read


def test_a_large_body_each_way(service: Service) -> None:
    body = bytes(range(256)) * 8192
    for mode in MODES:
        told = ask(service.server, service.roots, MEASUREMENT, mode, body)
        assert (told.refused, told.answer) == ("", answer(body))


def test_it_refuses_a_gateway_with_another_key(tmp_path: Path) -> None:
    """It takes our answer for what it is: verifies once more, tries once more, and gives up."""
    with Service(tmp_path, chain(GENOA), hpke=X25519PrivateKey.generate()) as service:
        told = ask(service.server, service.roots, MEASUREMENT, "ehbp", BODY)
        assert told.refused.startswith("KeyConfigMismatchError")
        assert service.world.seen == []
