"""The monitor client against the other end of a socket pair."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from qmp import Qmp

from tinboot.formats.errors import Malformed, Unavailable


@pytest.fixture
def pair() -> Iterator[tuple[Qmp, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Qmp(ours), theirs


def answer(theirs: socket.socket, *messages: object) -> None:
    for message in messages:
        theirs.sendall(json.dumps(message).encode() + b"\r\n")


def test_leaves_negotiation_at_once(pair: tuple[Qmp, socket.socket]) -> None:
    assert json.loads(pair[1].recv(4096)) == {"execute": "qmp_capabilities", "id": "capabilities"}


def test_the_answer_is_the_one_with_the_same_id(pair: tuple[Qmp, socket.socket]) -> None:
    qmp, theirs = pair
    reset = {"event": "RESET", "data": {"guest": True}}
    answer(
        theirs, {"QMP": {}}, {"return": {}, "id": "capabilities"}, reset, {"return": {"status": "x"}, "id": 1}
    )
    assert qmp.execute("query-status", {"a": 1}) == {"status": "x"}
    assert qmp.events == [reset]
    sent = [json.loads(line) for line in theirs.recv(4096).splitlines()]
    assert sent[1:] == [{"execute": "query-status", "id": 1, "arguments": {"a": 1}}]
    answer(theirs, {"return": 7, "id": 2})
    assert qmp.execute("x") == 7


def test_an_error_is_told(pair: tuple[Qmp, socket.socket]) -> None:
    answer(pair[1], {"error": {"class": "CommandNotFound", "desc": "no x"}, "id": 1})
    with pytest.raises(Unavailable, match=r"QMP x: .*no x"):
        pair[0].execute("x")


def test_no_answer_has_a_deadline(pair: tuple[Qmp, socket.socket]) -> None:
    with pytest.raises(Unavailable, match=r"no answer within 0.05 s"):
        pair[0].execute("x", seconds=0.05)


def test_a_qemu_that_has_ended(pair: tuple[Qmp, socket.socket]) -> None:
    qmp, theirs = pair
    answer(theirs, {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}})
    theirs.close()
    qmp.drain()
    assert qmp.shutdown_reason() == "guest-reset"
    with pytest.raises(Unavailable, match="cannot send x"):
        qmp.execute("x")


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_qmp(pair: tuple[Qmp, socket.socket], line: bytes) -> None:
    pair[1].sendall(line)
    with pytest.raises(Malformed, match="QMP: "):
        pair[0].execute("x")


def test_no_event_no_reason(pair: tuple[Qmp, socket.socket]) -> None:
    pair[1].close()
    pair[0].drain()
    assert pair[0].shutdown_reason() is None
