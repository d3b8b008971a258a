"""Runs in the environment of foreign_client.py, with none of tinboot: JSON in, the client's verdict out."""

from __future__ import annotations

import json
import socket
import sys
import types
from typing import Any
from urllib.parse import urlsplit

asked: dict[str, Any] = json.load(sys.stdin)
sys.path.insert(0, asked["site"])

import requests  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding  # noqa: E402
from tinfoil import SecureClient  # noqa: E402
from tinfoil.attestation import verify_sev  # noqa: E402


def pem(name: str) -> bytes:
    return x509.load_der_x509_certificate(bytes.fromhex(asked[name])).public_bytes(Encoding.PEM)


def of_the_stub(name: x509.Name) -> bool:
    organisations = name.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    return [attribute.value for attribute in organisations] == [asked["organisation"]]


def vcek(url: str, timeout: float) -> types.SimpleNamespace:
    if not urlsplit(url).path.startswith("/vcek/v1/Genoa/"):
        raise requests.RequestException(f"nobody is at {url}")
    return types.SimpleNamespace(content=bytes.fromhex(asked["vcek"]), raise_for_status=lambda: None)


def here(name: str | bytes, port: Any, *rest: Any, **more: Any) -> Any:
    if name in (asked["name"], asked["name"].encode()):
        return resolve("127.0.0.1", port, *rest, **more)
    raise socket.gaierror(f"{name!r} is not known here")


verify_sev.ARK_CERT, verify_sev.ASK_CERT = pem("ark"), pem("ask")
verify_sev._validateAmdLocation = of_the_stub
verify_sev.requests = types.SimpleNamespace(get=vcek, RequestException=requests.RequestException)
resolve = socket.getaddrinfo
socket.getaddrinfo = here  # type: ignore[assignment]  # for this program

host = f"{asked['name']}:{asked['port']}"
told = {"refused": "", "answer": "", "steps": {}, "hpke": "", "tls": ""}
client = SecureClient(
    enclave=host, measurement={"snp_measurement": asked["measurement"]}, transport=asked["mode"]
)
try:
    answer = client.post(
        f"https://{host}{asked['path']}", {"Content-Type": "application/json"}, bytes.fromhex(asked["body"])
    )
    told["answer"] = answer.body.hex()
    if answer.status_code != 200:
        told["refused"] = answer.status
except Exception as error:
    told["refused"] = f"{type(error).__name__}: {error}"
document = client.get_verification_document()
if document is not None:
    told["steps"] = {name: step.status for name, step in document.steps.items()}
    told |= {"hpke": document.hpke_public_key, "tls": document.tls_public_key}
print(json.dumps(told))
