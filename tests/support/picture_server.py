"""A loopback HTTP server that serves pictures well and badly, and remembers what it was asked for."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTML = b"<!doctype html><html><body>This picture is no longer here.</body></html>"

Answer = Callable[[BaseHTTPRequestHandler], None]


class PictureServer:
    """`answers` maps a path to what it answers with; any other path is a 404. `asked` counts requests by path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()

    def put(self, path: str, answer: Answer) -> str:
        """Serve `path` by `answer`; its URL."""
        self.answers[path] = answer
        return self.url + path


@contextmanager
def serving() -> Iterator[PictureServer]:
    """A server for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked[self.path] += 1
            server.answers.get(self.path, status(404))(self)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = PictureServer(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def body(data: bytes, kind: str = "image/jpeg", headers: Mapping[str, str] | None = None) -> Answer:
    """200 with `data`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int) -> Answer:
    """An empty answer of that status."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirect(to: str) -> Answer:
    """302."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut_short(data: bytes) -> Answer:
    """All of `data` announced, half of it sent."""
    return body(data[: len(data) // 2], headers={"Content-Length": str(len(data))})


def half_without_length(data: bytes) -> Answer:
    """Half of `data`, of a length that was not announced, so that only the decoder can tell."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])

    return answer


def silent(seconds: float) -> Answer:
    """Nothing for a while, longer than a client waits."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return answer


def after(seconds: float, then: Answer) -> Answer:
    """A late answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """The connection ends without an answer."""
    handler.close_connection = True
