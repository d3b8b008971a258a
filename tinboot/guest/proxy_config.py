"""HAProxy's whole configuration, from the `shim` section of the attested config.

    client --TLS 1.3, h2 or http/1.1--> proxy --/.well-known/--------------> attestation (Unix socket)
                                              --Ehbp-Encapsulated-Key------> ehbp        (Unix socket)
                                              --a path that is allowed-----> workload

Only the one spelling of a path is served to which normalisation would lead (RFC 3986, 6.2.2), so that nobody
behind the proxy can read another path than the proxy did. Bodies are passed on as they come, both ways at
once. Manual: https://docs.haproxy.org/3.0/configuration.html
"""

from __future__ import annotations

import json

from tinboot.formats.config_schema import Shim

#: Certificate and key, as systemd hands them over (LoadCredential= of tinboot-proxy.service).
CERTIFICATE = "${CREDENTIALS_DIRECTORY}/tls.pem"

ATTESTATION = "unix@/run/tinboot-attestation/http.sock"
EHBP = "unix@/run/tinboot-ehbp/http.sock"

#: Streams of evidence: at a time in the server behind, which takes 256, waiting for it, and of one address.
#: The last is the least: who reads slowly holds a stream for half a minute, and no address may hold all.
_EVIDENCE_BUSY, _EVIDENCE_WAITING, _EVIDENCE_SOURCE = 128, 64, 16
#: Requests for a nonce's evidence that are passed on in so many ms, and those of one address: as many as are
#: answered there (collector.py) and, so that one address leaves some to others, three quarters of them.
_NONCES_MS, _NONCES, _NONCES_SOURCE = 4000, 8, 6
#: The others wait so many seconds for their 429, and may come back after so many more, at most. Whoever asks
#: again at once has one request in these seconds, and costs the workload nothing (bench/flood.py).
_HELD, _LATEST = 5, 30
#: Encrypted requests of one address at a time, half of what the gateway takes (ehbp_gateway.py).
_EHBP_SOURCE = 256
#: Addresses whose use is remembered; the oldest go first. About 100 bytes each.
_SOURCES = 16384

#: A path that is not in its one spelling: empty segments; dot segments, with parameters, too; characters that
#: RFC 3986, 3.3 has not; encodings that are none; and encoded what need not be (unreserved) or must not be
#: (controls, slashes, the percent sign, which a second decoding would turn into any of these), or is the
#: beginning of ASCII in two bytes (RFC 3629, 3: overlong).
_ODD = (
    r"^[^/]|//|/\.\.?(/|;|$)|[^!$&-;=@-Z_a-z~%]|%(?![0-9a-fA-F]{2})"
    r"|%([01]|2[5d-fD-F]|3[0-9]|4[1-9a-fA-F]|5[0-9acfACF]|6[1-9a-fA-F]|7[0-9aefAEF]|[cC][01])"
)

#: What the proxy itself answers: RFC 9457, and no word about what is behind it. What cannot be read as a
#: request at all gets HAProxy's own few words, which no setting changes (src/mux_h1.c).
_ERRORS = {
    400: ("malformed", "The request is malformed."),
    404: ("not-found", "Nothing is served under this path."),
    405: ("method", "This method is not served."),
    408: ("slow", "The request did not come in time."),
    429: ("too-many", "Too many requests."),
    500: ("proxy", "The request could not be answered."),
    502: ("workload-failed", "The workload did not answer properly."),
    503: ("not-ready", "The workload is not ready."),
    504: ("workload-slow", "The workload did not answer in time."),
}
_PROBLEM = "application/problem+json"
_ERROR_TYPE = "urn:tinboot:error:"


def render(shim: Shim, upstream: tuple[str, int], *, cpus: int, memory: int, readiness: str | None) -> str:
    """`upstream`: address and port of the workload. `cpus` and `memory` (MiB) of the machine.

    `readiness`: path of the attestation server that answers 200 while the workload is ready; without one
    the workload is what accepts connections.
    """
    exact = [path for path in shim.paths if not path.endswith("*")]
    prefixes = [path.removesuffix("*") for path in shim.paths if path.endswith("*")]
    lines = [
        *_globals(cpus, connections(memory)),
        *_defaults(),
        *_frontend(shim, exact, prefixes),
        *_attestation(),
        *_challenge(connections(memory)),
        *_ehbp(),
        *_workload(upstream, readiness),
    ]
    return "\n".join(lines) + "\n"


def connections(memory: int) -> int:
    """One for each MiB: each takes about 200 KB at its busiest, so that all of them take a fifth."""
    return max(256, min(memory, 20000))


def _globals(cpus: int, most: int) -> list[str]:
    return [
        "global",
        f"  maxconn {most}",
        f"  nbthread {min(cpus, 16)}",
        "  hard-stop-after 5s",
        "  tune.http.maxhdr 64",
        # three times the default: makes up for what no-delay costs large bodies (bench/proxy.py)
        "  tune.bufsize 49152",
        # else, once a fifth of the descriptors is in use, it opens a connection to the workload for each
        # request: whoever holds so many would take half of the others' throughput (bench/flood.py)
        "  tune.pool-low-fd-ratio 90",
        "  tune.pool-high-fd-ratio 95",
        # no session is resumed: each connection proves the key again
        "  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets",
        "  tune.ssl.cachesize 0",
        "  ssl-default-bind-curves X25519:P-256:P-384",
    ]


def _defaults() -> list[str]:
    return [
        "defaults",
        "  mode http",
        # what one side sends the other gets at once: streams of tokens are many small writes
        "  option http-no-delay",
        "  timeout http-request 10s",
        "  timeout http-keep-alive 60s",
        "  timeout client 120s",
        "  timeout client-fin 10s",
        "  timeout connect 5s",
        "  timeout queue 10s",
        "  timeout server 1h",
        "  timeout tunnel 1h",
        "  retries 1",
        *(
            f"  http-error status {status} content-type {_PROBLEM} "
            f"string {_quoted(_problem(status, name, title))} hdr Cache-Control no-store"
            for status, (name, title) in _ERRORS.items()
        ),
    ]


def _problem(status: int, name: str, title: str) -> str:
    return json.dumps({"type": _ERROR_TYPE + name, "title": title, "status": status}, separators=(",", ":"))


def _frontend(shim: Shim, exact: list[str], prefixes: list[str]) -> list[str]:
    return [
        "frontend tls",
        f'  bind 0.0.0.0:{shim.listen_port} ssl crt "{CERTIFICATE}" alpn h2,http/1.1',
        "  http-request deny deny_status 405 if { method CONNECT TRACE }",
        # a target with a scheme and a host in it would go to the workload as it is; of HTTP/2 all have them,
        # and all but the scheme of this port would
        "  http-request deny deny_status 400 if !{ url -m beg / } !{ req.ver 2.0 }",
        "  http-request deny deny_status 400 if { req.ver 2.0 } !{ url -m beg / https:// }",
        # RFC 9112, 6.1: no recipient should believe such a body
        "  http-request deny deny_status 400 if { req.ver 1.0 } { req.hdr_cnt(Transfer-Encoding) gt 0 }",
        # what follows an upgrade is not looked at: over HTTP/2 in the clear it could ask for any path
        "  acl upgrade req.hdr_cnt(Upgrade) gt 0",
        "  acl websocket req.hdr(Upgrade) -m str -i websocket",
        "  http-request deny deny_status 400 if upgrade !websocket || { req.hdr_cnt(Upgrade) gt 1 }",
        # a path of the list is in its one spelling, and most requests are for one
        "  acl listed always_false",
        *(f"  acl listed path -m str {_quoted(path)}" for path in exact),
        f"  http-request deny deny_status 400 if !listed {{ path -m reg {_quoted(_ODD)} }}",
        "  acl beneath always_false",
        *(f"  acl beneath path -m beg {_quoted(path)}" for path in prefixes),
        "  acl evidence path -m beg /.well-known/",
        # nor under a spelling that some server would take for the same
        "  http-request deny deny_status 404 if !evidence { path -m beg -i /.well-known }",
        "  http-request deny deny_status 404 if !evidence !listed !beneath",
        *_origins(shim.origins),
        *_rate(shim),
        "  use_backend challenge if evidence { query -m beg nonce= }",
        "  use_backend attestation if evidence",
        # found, even if empty: whoever meant to encrypt must not be taken at his plain word
        "  use_backend ehbp if { req.hdr(Ehbp-Encapsulated-Key) -m found }",
        "  default_backend workload",
        "  http-after-response del-header Server",
    ]


def _origins(origins: tuple[str, ...]) -> list[str]:
    """CORS: https://fetch.spec.whatwg.org/#http-cors-protocol"""
    # the proxy alone says who may read an answer
    lines = ["  http-after-response del-header Access-Control- -m beg"]
    if not origins:
        return lines
    known = [f"  acl origin_listed req.hdr(Origin) -m str {_quoted(origin)}" for origin in origins]
    if "*" in origins:
        known = ["  acl origin_listed req.hdr(Origin) -m found"]
    return [
        *known,
        "  http-request set-var(txn.origin) req.hdr(Origin) if origin_listed",
        "  acl known_origin var(txn.origin) -m found",
        "  acl preflight req.hdr(Access-Control-Request-Method) -m found",
        "  http-request return status 204 if { method OPTIONS } known_origin preflight",
        *lines,
        *(
            f"  http-after-response set-header Access-Control-{name} {value} if known_origin"
            for name, value in (
                ("Allow-Origin", "%[var(txn.origin)]"),
                ("Allow-Methods", "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"),
                ("Allow-Headers", "Authorization,Content-Type,Ehbp-Encapsulated-Key"),
                ("Expose-Headers", "Ehbp-Response-Nonce"),
                ("Max-Age", "600"),
            )
        ),
        "  http-after-response add-header Vary Origin",
    ]


def _rate(shim: Shim) -> list[str]:
    """A burst, and as many again in each time that it takes at the configured rate; for one address."""
    if not shim.rate_limit:
        return []
    burst = shim.rate_burst or max(1, -(-shim.rate_limit // 1000))
    window = max(1, burst * 1_000_000 // shim.rate_limit)  # ms; the rate is in thousandths a second
    return [
        f"  stick-table type ip size {_SOURCES} expire {window}ms store gpc0_rate({window}ms)",
        "  http-request track-sc0 src if !evidence",
        f"  http-request deny deny_status 429 if !evidence {{ sc0_gpc0_rate ge {burst} }}",
        "  http-request sc-inc-gpc0(0) if !evidence",
    ]


def _attestation() -> list[str]:
    return [
        "backend attestation",
        "  timeout server 120s",
        f"  stick-table type ip size {_SOURCES} expire 60s store conn_cur",
        "  http-request track-sc1 src",
        f"  http-request deny deny_status 429 if {{ sc1_conn_cur gt {_EVIDENCE_SOURCE} }}",
        "  http-request del-header Ehbp-Encapsulated-Key",
        f"  server server {ATTESTATION} maxconn {_EVIDENCE_BUSY} maxqueue {_EVIDENCE_WAITING}",
    ]


def _challenge(most: int) -> list[str]:
    """Evidence for a nonce. What is too much is never the evidence server's work, and little of the proxy's.

    As many are held as there are connections, so that none is dropped where each has one request. If HTTP/2
    brings more, addresses that have many lose their connections; with twice as many, anybody does.
    """
    answered = _NONCES * 10_000 // _NONCES_MS  # in the time of the rate below
    told = f"content-type {_PROBLEM} string {_quoted(_problem(429, *_ERRORS[429]))} "
    told += "hdr Cache-Control no-store hdr Retry-After %[var(txn.after)]"
    return [
        # all addresses together, as the one entry of a table
        "backend nonces",
        f"  stick-table type integer size 2 expire 60s store http_req_rate(10s),gpc0_rate({_NONCES_MS}ms)",
        "backend sources",
        f"  stick-table type ip size {_SOURCES} expire 60s store conn_cur,gpc0_rate({_NONCES_MS}ms)",
        "backend challenge",
        "  timeout server 120s",
        f"  timeout tarpit {_HELD}s",
        "  http-request track-sc0 int(0) table nonces",
        "  http-request track-sc2 src table sources",
        f"  acl much sc0_gpc0_rate ge {_NONCES}",
        f"  acl much_of_one sc2_gpc0_rate ge {_NONCES_SOURCE}",
        f"  acl much_held src_conn_cur(attestation) ge {_EVIDENCE_SOURCE}",
        # in which all who ask have had their turn
        f"  http-request set-var(txn.after) int({_LATEST})",
        f"  acl soon sc0_http_req_rate lt {answered * _LATEST}",
        f"  http-request set-var(txn.after) sc0_http_req_rate,div({answered}),add(1) if soon",
        f"  http-request reject if {{ be_conn gt {most} }} {{ sc2_conn_cur gt {_EVIDENCE_SOURCE} }}",
        f"  http-request reject if {{ be_conn gt {2 * most} }}",
        f"  http-request tarpit deny_status 429 {told} if much || much_of_one || much_held",
        "  http-request track-sc1 src table attestation",
        "  http-request sc-inc-gpc0(0)",
        "  http-request sc-inc-gpc0(2)",
        "  http-request del-header Ehbp-Encapsulated-Key",
        f"  server server {ATTESTATION} maxconn {_EVIDENCE_BUSY // 2} maxqueue {_EVIDENCE_WAITING}",
    ]


def _ehbp() -> list[str]:
    return [
        "backend ehbp",
        f"  stick-table type ip size {_SOURCES} expire 60s store conn_cur",
        "  http-request track-sc1 src",
        f"  http-request deny deny_status 429 if {{ sc1_conn_cur gt {_EHBP_SOURCE} }}",
        f"  server server {EHBP}",
    ]


def _workload(upstream: tuple[str, int], readiness: str | None) -> list[str]:
    server = f"  server server {upstream[0]}:{upstream[1]}"
    if readiness is None:
        return ["backend workload", server]
    return [
        "backend workload",
        f"{server} track readiness/server",
        # asked, and never used
        "backend readiness",
        "  option httpchk",
        f"  http-check send meth GET uri {readiness} ver HTTP/1.1 hdr Host localhost",
        "  http-check expect status 200",
        f"  server server {ATTESTATION} check inter 500ms rise 1 fall 1",
    ]


def _quoted(text: str) -> str:
    """In strong quotes, within which nothing has a meaning but the next one."""
    if "'" in text or not text.isprintable() or not text.isascii():
        raise ValueError(f"{text!r} cannot be quoted for HAProxy")
    return f"'{text}'"
