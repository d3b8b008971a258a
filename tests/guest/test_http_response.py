"""Answers, as a library of the client's side reads them."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.guest import http_response
from tinboot.guest.http_response import REASONS, Response, problem


def test_whole() -> None:
    text = http_response.head(Response(200, b"{}", more=(("X-A", "b"),)), 0.0, last=False)
    assert text == (
        b"HTTP/1.1 200 OK\r\n"
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: 2\r\n"
        b"Cache-Control: no-store\r\n"
        b"Tinfoil-Pt: https://tinfoil.sh/predicate/sev-snp-guest/v2\r\n"
        b"X-A: b\r\n"
        b"\r\n"
    )


def test_the_last_says_so() -> None:
    text = http_response.head(Response(200, b"{}"), 0.0, last=True)
    assert text.endswith(b"\r\nConnection: close\r\n\r\n")


@given(st.integers(0, 253402300799))
def test_dates(now: int) -> None:
    assert http_response.date(now) == formatdate(now, usegmt=True)


@pytest.mark.parametrize("status", sorted(set(REASONS) - {200}))
def test_problems(status: int) -> None:
    found = problem(status, Retry_After="1")
    assert found.media_type == "application/problem+json"
    assert json.loads(found.body) == {"type": "about:blank", "title": REASONS[status], "status": status}
    assert found.more == (("Retry-After", "1"),)
    assert json.loads(problem(status, "why").body)["detail"] == "why"
