"""`tinboot request`: verifies a host, then sends it one request over what was verified."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from tinboot import client
from tinboot.cli import gpu_verify
from tinboot.cli import verify as report
from tinboot.cli.host_options import Options, stages, terms, verification, where
from tinboot.client import Verified
from tinboot.formats.errors import Unavailable

_CHUNK = 64 << 10  # bytes read at a time of a body from a file

_Request = tuple[str, str, list[tuple[str, str]], bytes | Iterable[bytes] | None]

#: RFC 9110, 5.1 and 9.1: field names and methods are tokens.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


def _headers(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> list[tuple[str, str]]:
    found = []
    for line in value:
        match = re.fullmatch(rf"({_NAME}):[ \t]*([\t -~]*)", line)
        if match is None:
            raise click.BadParameter(f"{line[:80]!r} is not as 'Name: value'")
        found.append((match[1], match[2].rstrip()))
    return found


def _method(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(_NAME, value):
        raise click.BadParameter(f"{value[:80]!r} is no method")
    return value


def _path(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value) or "#" in value:
        raise click.BadParameter(f"{value[:80]!r} does not begin with / or has a space in it")
    return value


@click.command("request")
@click.argument("host", metavar="HOST[:PORT]")
@click.argument("path", metavar="PATH", callback=_path)
@click.option("-X", "method", metavar="METHOD", callback=_method, help="Default: GET; POST with -d.")
@click.option("-d", "data", metavar="TEXT|@FILE|-", help="The body: text, a file, or standard input.")
@click.option("-H", "headers", metavar="HEADER", multiple=True, callback=_headers, help="Name: value.")
@click.option("--ehbp", is_flag=True, help="Encrypt bodies for the attested HPKE key, too.")
@click.option("-i", "include", is_flag=True, help="Print status and headers before the body.")
@verification
def command(
    options: Options,
    host: str,
    path: str,
    method: str | None,
    data: str | None,
    headers: list[tuple[str, str]],
    ehbp: bool,
    include: bool,
) -> None:
    """Verify HOST as `tinboot verify HOST` does, then send one request to PATH and print the answer's body.

    Nothing is sent before the verification passed, and nothing to a peer with another TLS key than the
    attested one. No redirect is followed. A body without -H Content-Type is application/json.

    Exit codes: as `tinboot verify`; 6 for no answer, or one with a status of 400 or more.
    """
    origin = where(host, options)
    body = _body(data)
    with stages() as told:
        demanded = terms(options, told)
        verified = client.verify(origin, demanded, options.at, seconds=options.timeout, told=told)
    _say(verified)
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers = [*headers, ("Content-Type", "application/json")]
    method = method or ("GET" if body is None else "POST")
    status = _send(verified, (method, path, headers, body), options, ehbp=ehbp, include=include)
    if status >= 400:
        raise Unavailable(f"{origin.authority}{path}: status {status}")


def _send(verified: Verified, request: _Request, options: Options, *, ehbp: bool, include: bool) -> int:
    """The answer goes to standard output as it comes; its status is returned."""
    from tinboot.client.exchange import Request, exchange  # noqa: PLC0415 - it needs httpx, and a refusal does not

    out = sys.stdout.buffer
    with exchange(verified, Request(*request), ehbp=ehbp, seconds=options.timeout) as answer:
        if include:
            lines = [f"{answer.version} {answer.status}"]
            lines += [f"{name}: {value}" for name, value in answer.headers]
            out.write("\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        for part in answer.parts:
            out.write(part)
            out.flush()
        return answer.status


def _say(verified: Verified) -> None:
    """One line on standard error, and warnings; what is on standard output is the answer."""
    appraisal = verified.attested.appraisal
    many = "no GPUs" if appraisal.gpus is None else f"{len(appraisal.gpus.gpus)} GPUs"
    click.echo(
        f"verified {verified.origin.authority}: launch digest {verified.measurement.hex()[:16]}…, {many}",
        err=True,
    )
    if appraisal.cpu is not None:
        report.say_whose(appraisal.cpu, err=True)
    if appraisal.gpus is not None:
        gpu_verify.say_whose(appraisal.gpus, err=True)


def _body(data: str | None) -> bytes | Iterable[bytes] | None:
    """A file is opened before anything is asked, and read when it is sent."""
    if data is None:
        return None
    if data == "-":
        return _parts(sys.stdin.buffer)
    if not data.startswith("@"):
        return data.encode()
    try:
        return click.get_current_context().with_resource(Path(data[1:]).open("rb"))
    except OSError as error:
        raise Unavailable(f"{data[1:]}: {error.strerror}") from error


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_CHUNK):
        yield part
