"""Answers of the evidence server, as bytes of HTTP/1.1; errors as RFC 9457 has them, and no detail more."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from tinboot.formats.attestationdocument import SEV_SNP_V2

#: RFC 9110, 15, and RFC 6585.
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
JSON = "application/json"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Response(NamedTuple):
    """`more`: header fields beside those that every answer has."""

    status: int
    body: bytes
    media_type: str = JSON
    more: tuple[tuple[str, str], ...] = ()


def problem(status: int, detail: str = "", **more: str) -> Response:
    """`detail`: only what a document says, too, or nothing. `more`: header fields, with _ for -."""
    members: dict[str, object] = {"type": "about:blank", "title": REASONS[status], "status": status}
    if detail:
        members["detail"] = detail
    body = json.dumps(members, separators=(",", ":")).encode()
    fields = tuple((name.replace("_", "-"), value) for name, value in more.items())
    return Response(status, body, "application/problem+json", fields)


def head(response: Response, now: float, *, last: bool) -> bytes:
    """What stands before the body. `last`: the connection ends with the answer."""
    fields = [
        ("Date", date(now)),
        ("Content-Type", response.media_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),  # evidence is of its moment, and what is not is small
        ("Tinfoil-Pt", SEV_SNP_V2),
        *response.more,
    ]
    if last:
        fields.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {response.status} {REASONS[response.status]}"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join((*lines, "", "")).encode("ascii")


def date(now: float) -> str:
    """RFC 9110, 5.6.7, of seconds since 1970; not of the locale."""
    t = time.gmtime(now)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    return f"{day}, {t.tm_mday:02} {month} {t.tm_year:04} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
