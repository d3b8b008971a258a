"""`tinboot request`: nothing is sent before the verification passed; then one request, over TLS or EHBP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import served_guest
import stub_nvidia
from click.testing import CliRunner, Result
from served_guest import MEASUREMENT, Answer, Guest, Host, Request

from tinboot.cli import request
from tinboot.ehbp import messages
from tinboot.formats.errors import Refused, TinbootError, Unavailable

COMMON = (
    *("--at", "2026-06-01T12:00:00Z", "--trust-root", "ark.pem", "--offline", "--no-gpus"),
    *("--measurement", MEASUREMENT.hex()),
)


def run(*arguments: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(request.command, arguments, input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("ark.pem").write_bytes(stub_nvidia.pem([served_guest.issuers()[1]]))
    return tmp_path


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def name(host: Host) -> str:
    return host.origin.authority


def test_a_request_without_a_body(host: Host, name: str) -> None:
    done = run(name, "/v1/models?x=%20y", *COMMON)
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == b"answer to "
    sent = host.seen[-1]
    assert (sent.method, sent.target, sent.body) == ("GET", "/v1/models?x=%20y", b"")
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["user-agent"] == "tinboot"
    assert "content-type" not in sent.headers
    lines = done.stderr.splitlines()
    assert lines[1] == f"verified {name}: launch digest 0001020304050607…, no GPUs"
    assert "TEST ROOT" in lines[2]


def test_a_body_of_text(host: Host, name: str) -> None:
    done = run(name, "/v1/embeddings", "-d", '{"input":"x"}', "-H", "X-Own:  1 ", *COMMON)
    assert done.stdout_bytes == b'answer to {"input":"x"}'
    sent = host.seen[-1]
    assert (sent.method, sent.headers["content-type"], sent.headers["x-own"]) == (
        "POST",
        "application/json",
        "1",
    )


def test_method_and_type_of_ones_own(host: Host, name: str) -> None:
    run(name, "/", "-X", "PUT", "-d", "x", "-H", "content-type: text/plain", *COMMON)
    assert (host.seen[-1].method, host.seen[-1].headers["content-type"]) == ("PUT", "text/plain")


@pytest.mark.parametrize("ehbp", [False, True])
def test_a_body_from_a_file_and_from_standard_input(host: Host, name: str, ehbp: bool) -> None:
    if ehbp:
        host.answers["/"] = sealed(host)
    data = bytes(range(256)) * 1024
    Path("body").write_bytes(data)
    words = (name, "/", *COMMON, *(["--ehbp"] if ehbp else []))
    assert run(*words, "-d", "@body").stdout_bytes == b"answer to " + data
    assert run(*words, "-d", "-", stdin=data).stdout_bytes == b"answer to " + data


def sealed(host: Host) -> served_guest.Respond:
    """The guest's end of EHBP."""

    def respond(sent: Request) -> Answer:
        header = sent.headers[messages.ENCAPSULATED_KEY.lower()]
        exchange = messages.Answer(host.guest.hpke, header, messages.Limits())
        plain = b"".join(exchange.request.feed(sent.body))
        assert b"secret" not in sent.body
        body = exchange.response(bytes(32)).seal(b"answer to " + plain)
        return Answer(body, headers=((messages.RESPONSE_NONCE, bytes(32).hex()),))

    return respond


def test_ehbp_hides_the_body(host: Host, name: str) -> None:
    host.answers["/"] = sealed(host)
    done = run(name, "/", "-d", "secret", "--ehbp", *COMMON)
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == b"answer to secret"
    assert messages.ENCAPSULATED_KEY.lower() in host.seen[-1].headers


def test_ehbp_with_another_key(host: Host, name: str) -> None:
    """The guest has lost its key: it says 422, as no success does."""
    host.answers["/"] = lambda _: Answer(
        messages.MISMATCH, 422, (("Content-Type", messages.PROBLEM_MEDIA_TYPE),)
    )
    done = run(name, "/", "-d", "secret", "--ehbp", *COMMON)
    assert isinstance(done.exception, TinbootError)
    assert "verify the host again" in done.exception.hint


def test_nothing_is_sent_to_a_host_that_is_refused() -> None:
    with Host(Guest(measurement=bytes(48))) as host:
        done = run(host.origin.authority, "/", "-d", "secret", *COMMON)
        assert isinstance(done.exception, Refused)
    assert {sent.path for sent in host.seen} == {
        served_guest.EVIDENCE,
        served_guest.HPKE_KEYS,
        served_guest.CERTIFICATE,
    }
    assert done.stdout_bytes == b""


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_status_that_is_none_of_success(host: Host, name: str, status: int) -> None:
    host.answers["/"] = lambda _: Answer(b"why", status)
    done = run(name, "/", *COMMON)
    assert isinstance(done.exception, Unavailable)
    assert done.exception.message == f"{name}/: status {status}"
    assert done.stdout_bytes == b"why"


def test_status_and_headers_are_shown(host: Host, name: str) -> None:
    host.answers["/"] = lambda _: Answer(b"body", headers=(("X-Own", "1"),))
    assert run(name, "/", "-i", *COMMON).stdout == "HTTP/1.1 200\ncontent-length: 4\nx-own: 1\n\nbody"


def test_redirects_are_not_followed(host: Host, name: str) -> None:
    host.answers["/"] = lambda _: Answer(b"", 302, (("Location", "/other"),))
    assert run(name, "/", *COMMON).exit_code == 0
    assert host.seen[-1].path == "/"


def test_an_answer_that_breaks_off(host: Host, name: str) -> None:
    host.answers["/"] = lambda _: Answer(b"", 200, (("Content-Length", "9"),))
    done = run(name, "/", *COMMON)
    assert isinstance(done.exception, Unavailable)
    assert "the host was verified" in done.exception.hint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("v1/x",), "does not begin with /"),
        (("/a b",), "does not begin with /"),
        (("/a\nb",), "does not begin with /"),
        (("/a#b",), "does not begin with /"),
        (("/", "-H", "no colon"), "is not as 'Name: value'"),
        (("/", "-H", "X: a\r\nY: b"), "is not as 'Name: value'"),
        (("/", "-X", "GET /"), "is no method"),
    ],
)
def test_usage(name: str, words: tuple[str, ...], message: str) -> None:
    done = run(name, *words, *COMMON)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_file_that_is_not_there(host: Host, name: str) -> None:
    done = run(name, "/", "-d", "@none", *COMMON)
    assert isinstance(done.exception, Unavailable)
    assert done.exception.message == "none: No such file or directory"
    assert host.connections == 0
