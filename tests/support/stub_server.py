"""A small server of OpenAI's chat API for tests: its text is a pure function of picture, prompt and seed.

In a test's process `StubServer` misbehaves as the test's function `trouble` says. Run as a script it is a server to be
started by a job, which can be told to die.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

WORDS = ("red", "blue", "green", "small", "barn", "river", "horse", "street", "lamp", "jug", "lemon", "table", "bird")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its body, its picture, and how often this picture was asked for before."""

    body: dict[str, Any]
    picture: Image.Image
    attempt: int

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"][1]["text"]


def text_for(picture: Image.Image, prompt: str, seed: int | None, temperature: float) -> str:
    """Twelve words that follow from what was asked."""
    drawn = f"{seed}" if temperature else ""
    digest = hashlib.sha256(picture.tobytes() + prompt.encode() + drawn.encode()).digest()
    return " ".join(WORDS[byte % len(WORDS)] for byte in digest[:12]).capitalize() + "."


class StubServer(ThreadingHTTPServer):
    """Serves `model`. `trouble` names how a request goes wrong: a status, or one of the words in `_Handler`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int = 0, model: str = "stub", trouble: Callable[[Asked], str | None] | None = None
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.model, self.trouble = model, trouble or (lambda asked: None)
        self.lists_models = self.has_health = True
        self.any_name = False
        self.release = threading.Event()  # lets go of what hangs
        self.attempts: Counter[bytes] = Counter()
        self.asked: list[Asked] = []
        self.keys: set[str | None] = set()
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "StubServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        if self.path == "/health" and self.server.has_health:
            self._send(200, b"")
        elif self.path == "/v1/models" and self.server.lists_models:
            self._send(200, json.dumps({"object": "list", "data": [{"id": self.server.model}]}).encode())
        else:
            self._send(404, b"not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.keys.add(self.headers["Authorization"])
            self.server.inside += 1
            self.server.most_inside = max(self.server.most_inside, self.server.inside)
        try:
            self._chat(body)
        finally:
            with self.server.lock:
                self.server.inside -= 1

    def _chat(self, body: dict[str, Any]) -> None:
        if body["model"] != self.server.model and not self.server.any_name:
            self._send(404, json.dumps({"error": {"message": f"no model {body['model']}"}}).encode())
            return
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
        name = hashlib.sha256(picture.tobytes()).digest()
        with self.server.lock:
            asked = Asked(body, picture, self.server.attempts[name])
            self.server.attempts[name] += 1
            self.server.asked.append(asked)
        trouble = self.server.trouble(asked)
        if trouble is None:
            self._answer(asked)
        elif trouble.isdecimal():
            said = {"error": {"message": f"trouble {trouble}", "code": int(trouble)}}
            self._send(int(trouble), json.dumps(said).encode())
        elif trouble == "garbage":
            self._send(200, b'{"choices": [{"mess')
        elif trouble == "no_chat":
            self._send(200, b'{"choices": []}')
        elif trouble == "misrouted":
            self._answer(asked, request_id="lm-" + "0" * 32)
        elif trouble == "abort":
            self._answer(asked, finish="abort")
        elif trouble == "drop":
            self.close_connection = True
        elif trouble == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": ')
            self.close_connection = True
        elif trouble == "hang":
            self.server.release.wait(60)
            self.close_connection = True
        elif trouble == "die":
            os._exit(1)
        else:
            raise ValueError(trouble)

    def _answer(self, asked: Asked, request_id: str | None = None, finish: str = "stop") -> None:
        body = asked.body
        text = text_for(asked.picture, asked.prompt, body.get("seed"), body["temperature"])
        count = min(body["max_tokens"], 13)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish if count == 13 else "length",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
        answer = {
            "id": f"chatcmpl-{request_id or self.headers['X-Request-Id']}",
            "model": self.server.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 600, "completion_tokens": count, "total_tokens": 600 + count},
        }
        self._send(200, json.dumps(answer).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """`stub_server.py --port N --model NAME`; see the arguments for how it dies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--starts", help="a file that gets a line at each start")
    parser.add_argument("--poison", help="die of pictures of this size, WIDTHxHEIGHT")
    parser.add_argument("--answers", type=int, help="die after so many answers")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long an answer takes")
    parser.add_argument("--exit", type=int, help="end at once with this code")
    given = parser.parse_args()
    if given.starts:
        with Path(given.starts).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if given.exit is not None:
        print("the weights do not fit", flush=True)
        sys.exit(given.exit)
    count = 0

    def trouble(asked: Asked) -> str | None:
        nonlocal count
        count += 1
        if given.poison == f"{asked.picture.width}x{asked.picture.height}":
            return "die"
        time.sleep(given.seconds)
        return "die" if given.answers is not None and count > given.answers else None

    with StubServer(given.port, given.model, trouble):
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
