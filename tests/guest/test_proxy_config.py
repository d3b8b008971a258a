"""HAProxy's file, as text; tests/boot/test_service.py and tests/support/host_service.py have it running."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.config_schema import Shim
from tinboot.guest import collector, http_server, proxy_config


def render(
    shim: Shim | None = None, *, readiness: str | None = None, cpus: int = 2, memory: int = 1024
) -> str:
    upstream = ("10.89.0.2", 8080)
    return proxy_config.render(shim or Shim(8080), upstream, cpus=cpus, memory=memory, readiness=readiness)


def section(text: str, name: str) -> list[str]:
    """The lines of one section, without their indent."""
    rest = text.partition(f"\n{name}\n")[2]
    return [
        line.strip() for line in re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    ]


def test_one_door_and_no_other() -> None:
    text = render()
    (bind,) = [line for line in text.splitlines() if line.strip().startswith("bind ")]
    assert bind == '  bind 0.0.0.0:443 ssl crt "${CREDENTIALS_DIRECTORY}/tls.pem" alpn h2,http/1.1'
    assert "  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets" in text.splitlines()
    assert not re.search(r"\b(stats|log|listen|lua-load|cache)\b", text)
    assert re.findall(r"^\s+server server (\S+)", text, re.MULTILINE) == [
        "unix@/run/tinboot-attestation/http.sock",
        "unix@/run/tinboot-attestation/http.sock",
        "unix@/run/tinboot-ehbp/http.sock",
        "10.89.0.2:8080",
    ]


def test_without_paths_nothing_reaches_the_workload() -> None:
    lines = section(render(), "frontend tls")
    assert "acl listed always_false" in lines
    assert [line for line in lines if line.startswith(("acl listed", "acl beneath"))] == [
        "acl listed always_false",
        "acl beneath always_false",
    ]
    assert "http-request deny deny_status 404 if !evidence !listed !beneath" in lines


def test_paths_are_whole_or_beginnings() -> None:
    lines = section(render(Shim(8080, paths=("/v1/chat", "/static/*", "/*"))), "frontend tls")
    assert "acl listed path -m str '/v1/chat'" in lines
    assert {"acl beneath path -m beg '/static/'", "acl beneath path -m beg '/'"} <= set(lines)


def test_spelling_is_looked_at_before_what_stands_beneath_a_path() -> None:
    """HAProxy joins lines with the same name into one ACL, wherever it is used."""
    lines = section(render(Shim(8080, paths=("/v1/chat", "/static/*"))), "frontend tls")
    (odd,) = [line for line in lines if "path -m reg" in line]
    assert odd.startswith("http-request deny deny_status 400 if !listed { path -m reg '")
    assert not any(line.startswith("acl listed path -m beg") for line in lines)


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_what_passes_the_pattern_has_one_spelling(tail: str) -> None:
    odd = re.search(r"path -m reg '(.*)' }", render())
    assert odd is not None
    path = "/" + tail
    if re.search(odd[1], path):
        return
    assert re.fullmatch(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})*)+", path)
    assert "//" not in path
    assert not {".", ".."} & {part.partition(";")[0] for part in path.split("/")}
    for code in re.findall(r"%(..)", path):
        assert not re.fullmatch(r"[A-Za-z0-9._~/\\%\x00-\x1f\x7f-]", chr(int(code, 16)))


@pytest.mark.parametrize("path", ["/", "/v1/chat", "/a%20b", "/a/", "/a.b/..c", "/a%C3%A4", "/@:!$&'()*+,;="])
def test_what_is_spelled_well_passes(path: str) -> None:
    odd = re.search(r"path -m reg '(.*)' }", render())
    assert odd is not None
    assert not re.search(odd[1], path)


def test_readiness_is_asked_of_the_attestation_server() -> None:
    text = render(readiness="/.well-known/readyz")
    assert section(text, "backend workload") == ["server server 10.89.0.2:8080 track readiness/server"]
    asked = section(text, "backend readiness")
    assert "http-check send meth GET uri /.well-known/readyz ver HTTP/1.1 hdr Host localhost" in asked
    assert "http-check expect status 200" in asked
    assert "readiness" not in render()


def test_no_address_holds_all_of_the_evidence() -> None:
    lines = section(render(), "backend attestation")
    (source,) = [re.findall(r"sc1_conn_cur gt (\d+)", line)[0] for line in lines if "conn_cur gt" in line]
    (busy,) = [re.findall(r" maxconn (\d+)", line)[0] for line in lines if " maxconn " in line]
    assert 4 * int(source) <= int(busy) <= http_server.Limits().connections // 2


class TestNonces:
    """bench/flood.py has them running."""

    @staticmethod
    def number(line: str) -> int:
        (found,) = [
            re.findall(line, each)[0]
            for each in section(render(), "backend challenge")
            if re.search(line, each)
        ]
        return int(found)

    def test_only_as_many_are_passed_on_as_are_answered(self) -> None:
        limits = collector.Limits()
        table = section(render(), "backend nonces")[0]
        (window,) = re.findall(r"gpc0_rate\((\d+)ms\)", table)
        passed = self.number(r"sc0_gpc0_rate ge (\d+)")
        assert passed <= limits.burst
        assert passed * 1000 <= limits.rate * int(window)

    def test_one_address_leaves_some_to_others(self) -> None:
        assert section(render(), "backend sources")[0].endswith("store conn_cur,gpc0_rate(4000ms)")
        assert self.number(r"sc2_gpc0_rate ge (\d+)") < self.number(r"sc0_gpc0_rate ge (\d+)")
        assert self.number(r"src_conn_cur\(attestation\) ge (\d+)") <= self.number(r" maxconn (\d+)") // 4

    def test_what_is_passed_on_is_counted_and_what_is_not_is_not(self) -> None:
        lines = section(render(), "backend challenge")
        (held,) = [number for number, line in enumerate(lines) if line.startswith("http-request tarpit")]
        for counted in ("sc-inc-gpc0(0)", "sc-inc-gpc0(2)", "track-sc1 src table attestation"):
            assert lines.index(f"http-request {counted}") > held
        assert lines.index("http-request track-sc0 int(0) table nonces") < held
        assert "http-request del-header Ehbp-Encapsulated-Key" in lines

    def test_others_wait_and_are_told_when_to_come_again(self) -> None:
        (held,) = [
            line for line in section(render(), "backend challenge") if " tarpit " in line and "deny" in line
        ]
        assert held.startswith(
            "http-request tarpit deny_status 429 content-type application/problem+json string '"
        )
        assert held.endswith(" hdr Retry-After %[var(txn.after)] if much || much_of_one || much_held")
        assert json.loads(held.split("'")[1])["type"] == "urn:tinboot:error:too-many"
        assert 1 <= self.number(r"timeout tarpit (\d+)s") <= 10
        assert 1 <= self.number(r"set-var\(txn.after\) int\((\d+)\)") <= 60

    @pytest.mark.parametrize("memory", [64, 1024, 8192])
    def test_nobody_is_dropped_who_has_one_request_a_connection(self, memory: int) -> None:
        lines = section(render(memory=memory), "backend challenge")
        most = proxy_config.connections(memory)
        assert [line for line in lines if "reject" in line] == [
            f"http-request reject if {{ be_conn gt {most} }} {{ sc2_conn_cur gt 16 }}",
            f"http-request reject if {{ be_conn gt {2 * most} }}",
        ]

    def test_they_leave_the_frontend_before_other_evidence(self) -> None:
        lines = section(render(), "frontend tls")
        challenge = lines.index("use_backend challenge if evidence { query -m beg nonce= }")
        assert challenge + 1 == lines.index("use_backend attestation if evidence")


def test_idle_connections_to_the_workload_are_kept_however_many_clients_there_are() -> None:
    """HAProxy's default ends that at a fifth of the descriptors, of which each client and server has one."""
    (low, high) = (
        int(re.findall(rf"tune.pool-{end}-fd-ratio (\d+)", render())[0]) for end in ("low", "high")
    )
    assert 50 < low < high < 100


def test_the_header_leads_to_decryption_even_if_empty_and_never_to_the_evidence() -> None:
    lines = section(render(), "frontend tls")
    evidence = lines.index("use_backend attestation if evidence")
    ehbp = lines.index("use_backend ehbp if { req.hdr(Ehbp-Encapsulated-Key) -m found }")
    assert evidence < ehbp < lines.index("default_backend workload")
    assert "http-request del-header Ehbp-Encapsulated-Key" in section(render(), "backend attestation")


@pytest.mark.parametrize(
    ("limit", "burst", "window", "most"),
    [
        (1000, None, 1000, 1),
        (12500, 50, 4000, 50),
        (500, None, 2000, 1),
        (1_000_000_000, 1_000_000, 1000, 10**6),
    ],
)
def test_rate(limit: int, burst: int | None, window: int, most: int) -> None:
    lines = section(render(Shim(8080, rate_limit=limit, rate_burst=burst)), "frontend tls")
    assert f"stick-table type ip size 16384 expire {window}ms store gpc0_rate({window}ms)" in lines
    assert f"http-request deny deny_status 429 if !evidence {{ sc0_gpc0_rate ge {most} }}" in lines
    assert "track-sc0 src" not in render()


def test_origins() -> None:
    text = render(Shim(8080, origins=("https://a.example",)))
    assert "  acl origin_listed req.hdr(Origin) -m str 'https://a.example'" in text.splitlines()
    assert "Access-Control-Allow-Origin" not in render()
    assert "http-after-response del-header Access-Control- -m beg" in section(render(), "frontend tls")
    assert "  acl origin_listed req.hdr(Origin) -m found" in render(Shim(8080, origins=("*",))).splitlines()


@pytest.mark.parametrize(("memory", "most"), [(64, 256), (1024, 1024), (1 << 20, 20000)])
def test_connections_are_as_many_as_memory_allows(memory: int, most: int) -> None:
    assert f"  maxconn {most}" in render(memory=memory).splitlines()


def test_its_own_answers_are_problems_that_tell_nothing() -> None:
    said = re.findall(
        r"http-error status (\d+) content-type application/problem\+json string '(.*)' hdr", render()
    )
    assert len(said) >= 9
    for status, text in said:
        fields = json.loads(text)
        assert fields["status"] == int(status)
        assert fields["type"].startswith("urn:tinboot:error:")
    assert re.search("haproxy", render(), re.IGNORECASE) is None


@pytest.mark.parametrize("text", ["/a'b", "/a\nb", "/ä", "/a\x00"])
def test_what_cannot_be_quoted_is_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be quoted"):
        render(Shim(8080, paths=(text,)))
