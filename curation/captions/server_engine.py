"""The server engine: captions by an OpenAI-compatible server, found by URL or started by the worker itself.

The server makes its own batches, so requests are kept in flight one by one, `concurrency` of them, whatever the order
in which they are answered.
"""

import random
import threading
import uuid
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from curation.captions.engine import Completion, Decoding, Engine, Request
from curation.captions.server_chat import PATH, Chat
from curation.captions.server_check import check_model, check_pictures, check_seeds, made_up_requests
from curation.captions.server_gate import Gate
from curation.captions.server_http import Address, OpenLines, RefusedError, TroubleError
from curation.captions.server_keepers import FoundServer, OwnServer
from curation.captions.server_pictures import PictureEncoding
from curation.captions.server_pool import Keeper, Lent, ServerPool

_CHECK_TOKENS: Final = 32
_DEATHS_IN_COMPANY: Final = 2
_DEATHS_ALONE: Final = 2
"""A request that saw the server die twice is asked alone; one that sees it die twice alone is what kills it."""

_LONGEST_PAUSE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is reached and treated; nothing here changes a caption.

    Either `urls` or `command` is given. `concurrency`: requests in flight a worker. `retries`: tries of one request
    after the first, with pauses that double from `pause_seconds`. `restarts`: of a server of our own, in a row without
    an answer. `start_seconds`: time for a server to come up, and to come back.
    """

    urls: tuple[str, ...] = ()
    command: str | None = None
    concurrency: int = 32
    request_seconds: float = 180.0
    retries: int = 5
    pause_seconds: float = 0.5
    start_seconds: float = 900.0
    restarts: int = 10
    log_folder: str | None = None


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The model that `asked_as` names on a server.

    `model` is what goes into the fingerprint: the digest of a local checkpoint's files, or the name as given, with the
    revision as given. `source` and `revision` fill in the command.
    """

    model: str
    asked_as: str
    source: str
    revision: str | None
    encoding: PictureEncoding
    settings: ServerSettings

    @property
    def identity(self) -> dict[str, Any]:
        """The model and what is sent for a picture."""
        return {"engine": "server", "model": self.model, "picture": self.encoding.identity}

    def open(self, decoding: Decoding, prompt: str) -> Engine:
        """Start the server, or find it, and check it on made-up pictures."""
        return ServerEngine(self, decoding, prompt)


class ServerEngine:
    """Keeps requests in flight and gives their answers in order."""

    note = None

    def __init__(self, choice: ServerChoice, decoding: Decoding, prompt: str) -> None:
        settings = choice.settings
        self._encoding, self._settings, self._prompt = choice.encoding, settings, prompt
        self._chat = Chat(choice.asked_as, decoding)
        self._servers = ServerPool(self._keepers(choice), self._probe, pause_seconds=settings.pause_seconds)
        self._gate = Gate()
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="request")
        self._lines = OpenLines()
        try:
            self._servers.open(self._lines)
        except BaseException:
            self.close()
            raise

    @property
    def wanted_px(self) -> int | None:
        """The side that pictures are sent at."""
        return self._encoding.side_px

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to a picture before the server sees it; the chat template is the server's."""
        return self._encoding.identity

    @property
    def ahead(self) -> int:
        """Half of the requests in flight."""
        return max(2, self._settings.concurrency // 2)

    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """One completion for each request, in order.

        `concurrency` requests are in flight as long as there are any; pictures wait for at most a few more, and answers
        for at most eight times as many. Raises `GuardError` when no server is left.
        """
        lines = self._lines = OpenLines()
        free = threading.Semaphore(self._settings.concurrency + 2)
        window: deque[Future[Completion]] = deque()
        most = 8 * self._settings.concurrency
        try:
            for request in requests:
                while window and (window[0].done() or len(window) >= most):
                    yield window.popleft().result()
                free.acquire()
                future = self._threads.submit(self._answer, request, lines)
                future.add_done_callback(lambda done: free.release())
                window.append(future)
            while window:
                yield window.popleft().result()
        finally:
            if window:
                lines.give_up()
            for future in window:
                future.cancel()

    def close(self) -> None:
        """Give up what is under way and end the servers that were started."""
        self._lines.give_up()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._servers.close()

    def _keepers(self, choice: ServerChoice) -> list[Keeper]:
        settings = choice.settings
        if settings.command is None:
            return [FoundServer(url, self._check, patience_seconds=settings.start_seconds) for url in settings.urls]
        own = OwnServer(
            settings.command,
            choice.source,
            choice.revision,
            self._check,
            start_seconds=settings.start_seconds,
            restarts=settings.restarts,
            log_folder=settings.log_folder,
        )
        return [own]

    def _answer(self, request: Request, lines: OpenLines) -> Completion:
        """The answer to one request, or why there is none; the server's own troubles are waited out."""
        body = self._chat.body(self._encoding.data_url(request.image), request.prompt, request.seed)
        tries, deaths = 0, 0
        while True:
            alone = deaths >= _DEATHS_IN_COMPANY
            with self._gate.passed(alone, lines.given_up), self._servers.lent(lines) as lent:
                try:
                    completion = self._ask(lent.address, request.key, body, self._settings.request_seconds, lines)
                    self._servers.answered(lent)
                    return completion
                except RefusedError as error:
                    self._servers.answered(lent)
                    return _failed(request, str(error))
                except TroubleError as error:
                    trouble = error
                blamed = self._blame(lent, trouble, tries, lines)
            if blamed:
                tries += 1
                if tries > self._settings.retries:
                    return _failed(request, f"given up after {tries} tries; the last: {trouble}")
            else:
                deaths += 1
                if deaths == _DEATHS_IN_COMPANY + _DEATHS_ALONE:
                    return _failed(request, f"the server fails whenever it is asked this; the last: {trouble}")
            self._pause(tries, trouble, lines)

    def _blame(self, lent: Lent, trouble: TroubleError, tries: int, lines: OpenLines) -> bool:
        """Whether the trouble counts against the request: the server is well, or there is no reason yet to doubt it."""
        doubtful = trouble.doubtful or tries == self._settings.retries
        return not doubtful or self._servers.is_well(lent, lines)

    def _pause(self, tries: int, trouble: TroubleError, lines: OpenLines) -> None:
        """Wait before the next try: longer each time, and never in step with other requests."""
        pause = min(_LONGEST_PAUSE_SECONDS, self._settings.pause_seconds * 2**tries) * random.uniform(0.5, 1.5)
        lines.given_up.wait(max(pause, trouble.wait_seconds) if tries else 0.0)

    def _ask(self, address: Address, key: str, body: dict[str, Any], seconds: float, lines: OpenLines) -> Completion:
        request_id = f"lm-{uuid.uuid4().hex}"
        return self._chat.completion(key, request_id, address.post(PATH, body, seconds, request_id, lines))

    def _probe(self, address: Address, lines: OpenLines) -> None:
        """Ask for a made-up picture. Raises `TroubleError` or `RefusedError`."""
        self._try_out(self._chat, address, made_up_requests(self._prompt)[1], 0.0, lines)

    def _check(self, address: Address, lines: OpenLines) -> None:
        """All that a server must show before it is used. Raises `TroubleError` or `RefusedError`."""
        picture = made_up_requests(self._prompt)[1]
        try:
            self._probe(address, lines)
        except RefusedError:
            bare = replace(self._chat, logprobs=False)  # not every server takes the wish for them
            self._try_out(bare, address, picture, 0.0, lines)
            self._chat = bare

        def ask(request: Request, temperature: float) -> Completion:
            return self._try_out(self._chat, address, request, temperature, lines)

        check_pictures(ask, self._prompt)
        if self._chat.decoding.temperature > 0:
            check_seeds(ask, self._prompt)

        def ask_by(name: str) -> Completion:
            return self._try_out(replace(self._chat, model=name), address, picture, 0.0, lines)

        check_model(address, self._chat.model, ask_by, lines)

    def _try_out(
        self, chat: Chat, address: Address, request: Request, temperature: float, lines: OpenLines
    ) -> Completion:
        """Ask once, for a short text."""
        short = replace(chat, decoding=Decoding(_CHECK_TOKENS, temperature))
        body = short.body(self._encoding.data_url(request.image), request.prompt, request.seed)
        return self._ask(address, request.key, body, self._settings.request_seconds, lines)


def _failed(request: Request, reason: str) -> Completion:
    return Completion(request.key, "", "error", 0, 0, None, reason)
