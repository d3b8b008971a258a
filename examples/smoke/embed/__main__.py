"""`python3 -m embed MODEL PORT`: POST /v1/embeddings as OpenAI's API reference has it, and GET /health.

The port opens when the model is there: who can connect will be answered.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
import time

# before numpy is there: a thread of its own for each CPU costs more than it wins on sentences
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from embed import bert, http

NAME = "all-MiniLM-L6-v2"

_INPUTS, _CHARACTERS = 32, 8192  # of one request, of one text


class Service:
    """Answers; one text at a time is computed."""

    def __init__(self, encoder: bert.Encoder) -> None:
        self._encoder = encoder
        self._turn = threading.Lock()

    def answer(self, request: http.Request) -> tuple[int, bytes]:
        known = {"/health": "GET", "/v1/embeddings": "POST"}
        if request.path not in known:
            return 404, _error(f"nothing is at {request.path[:80]}")
        if request.method != known[request.path]:
            return 405, _error(f"{request.path} takes {known[request.path]}")
        if request.path == "/health":
            return 200, b'{"status":"ok"}'
        try:
            texts, encoding = _read(request.body)
        except (ValueError, RecursionError) as error:
            return 400, _error(str(error)[:200])
        data, tokens = [], 0
        for index, text in enumerate(texts):
            with self._turn:
                vector, count = self._encoder.encode(text)
            tokens += count
            if encoding == "base64":
                value: object = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            else:
                value = [float(number) for number in vector]
            data.append({"object": "embedding", "index": index, "embedding": value})
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, json.dumps({"object": "list", "data": data, "model": NAME, "usage": usage}).encode()


def _read(body: bytes) -> tuple[list[str], str]:
    """The texts, and "float" or "base64"; raises ValueError."""
    asked = json.loads(body)
    if not isinstance(asked, dict) or set(asked) - {"input", "model", "encoding_format", "user"}:
        raise ValueError(
            "expected an object with input, model, encoding_format and user, and no other member"
        )
    if asked.get("model", NAME) != NAME:
        raise ValueError(f"the model here is {NAME}")
    encoding = asked.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise ValueError("encoding_format is float or base64")
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= _INPUTS:
        raise ValueError(f"input is a text, or 1 to {_INPUTS} of them")
    if not all(isinstance(text, str) and 0 < len(text) <= _CHARACTERS for text in texts):
        raise ValueError(f"a text has 1 to {_CHARACTERS} characters")
    return texts, encoding


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


def main(arguments: list[str]) -> None:
    folder, port = arguments
    # the first process of a container has no default of its own: without this it would have to be killed
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    began = time.monotonic()
    service = Service(bert.Encoder(folder))
    with socket.create_server(("", int(port)), backlog=128) as listener:
        print(f"embed: {NAME} on port {port} after {time.monotonic() - began:.1f} s", flush=True)
        http.serve(listener, service.answer)


if __name__ == "__main__":
    main(sys.argv[1:])
