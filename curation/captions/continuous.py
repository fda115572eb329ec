"""Captions without waiting for the slowest row: a row that ends makes room for the next picture at once.

A plain loop captions batch after batch, so each batch takes as many steps as its longest caption, and most rows only
watch. Here every slot of the batch works all the time, pictures are prepared for the model in threads beside it, and
no prompt is padded. Which rows meet in a batch follows from the requests alone, so a unit captioned again is the same.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from curation.captions.decode_step import DecodeStep
from curation.captions.engine import Completion, FinishReason, Request
from curation.captions.slot_cache import SlotCache
from curation.captions.transformers_engine import REQUEST_ERRORS, TransformersEngine, one_line

_PREPARE_THREADS: Final = 2

Inputs = dict[str, Tensor]


@dataclass(slots=True)
class _Row:
    """A request under way, the `number`-th."""

    number: int
    request: Request
    n_prompt_tokens: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class ContinuousBatches:
    """Asks a `TransformersEngine`, of a model that `DecodeStep` knows, with `slots` rows under way at any time.

    `compile_backend` compiles the step of all slots, for which shapes are kept fixed: the whole block of columns is
    attended to, and slots that have no request left run idle.
    """

    note = None

    def __init__(
        self, engine: TransformersEngine, slots: int, compile_backend: str | Callable[..., Any] | None = None
    ) -> None:
        self._engine, self._slots, self._fixed = engine, slots, compile_backend is not None
        self._step = DecodeStep(engine.model, compile_backend)

    @property
    def ahead(self) -> int:
        """As many as there are slots, beside those that are being prepared."""
        return self._slots

    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """One completion for each request, in order.

        A request that fails alone is answered with `error`; if of the first requests none can be answered, the fault
        is not theirs and the exception goes up.
        """
        finished: dict[int, Completion] = {}
        due = 0
        with ThreadPoolExecutor(_PREPARE_THREADS) as pool:
            run = _Run(self._engine, self._step, self._slots, self._fixed, _prepared(self._engine, requests, pool))
            for number, completion in run.completions():
                finished[number] = completion
                while due in finished:
                    yield finished.pop(due)
                    due += 1


def _prepared(
    engine: TransformersEngine, requests: Iterable[Request], pool: ThreadPoolExecutor
) -> "Iterator[tuple[Request, Future[Inputs]]]":
    """Each request with its inputs under way. Pulled from the caller's thread alone."""
    for request in requests:
        yield request, pool.submit(engine.prepare, request)


class _Run:
    """One stream of requests through the slots."""

    def __init__(
        self,
        engine: TransformersEngine,
        step: DecodeStep,
        slots: int,
        fixed: bool,
        source: "Iterator[tuple[Request, Future[Inputs]]]",
    ) -> None:
        self._engine, self._decode, self._fixed = engine, step, fixed
        self._source = source
        self._waiting: deque[tuple[Request, Future[Inputs]]] = deque()
        self._exhausted = False
        self._asked = 0
        self._answered = False
        self._rows: list[_Row | None] = [None] * slots
        self._cache: SlotCache | None = None
        self._next: list[int] = [engine.pad_token] * slots

    def completions(self) -> Iterator[tuple[int, Completion]]:
        """Each request's number and completion, as they end."""
        while True:
            self._fill()
            if not self._waiting and not any(self._rows):
                return
            with torch.inference_mode():
                ended = self._advance()
            yield from ended

    def _advance(self) -> list[tuple[int, Completion]]:
        """Let waiting requests in where enough slots are free, and take one step."""
        ended = []
        free = [slot for slot, row in enumerate(self._rows) if row is None]
        # A few at a time, since each admission runs the model for the prompts alone.
        if 8 * len(free) >= len(self._rows):
            ended = self._admit(free)
        if self._exhausted and not self._waiting:
            self._shrink()
        return ended + self._step() if any(self._rows) else ended

    def _fill(self) -> None:
        """Have as many requests in preparation as there are slots."""
        while not self._exhausted and len(self._waiting) < len(self._rows):
            entry = next(self._source, None)
            if entry is None:
                self._exhausted = True
            else:
                self._waiting.append(entry)

    def _admit(self, free: list[int]) -> list[tuple[int, Completion]]:
        """Take as many waiting requests as there are free slots; those of equal shapes together."""
        groups: dict[object, list[tuple[_Row, Inputs]]] = {}
        failed: list[tuple[_Row, Exception]] = []
        for _ in range(min(len(free), len(self._waiting))):
            request, future = self._waiting.popleft()
            row = _Row(self._asked, request)
            self._asked += 1
            try:
                inputs = future.result()
            except REQUEST_ERRORS as error:
                failed.append((row, error))
                continue
            row.n_prompt_tokens = int(inputs["input_ids"].shape[1])
            shapes = tuple(sorted((name, tuple(t.shape)) for name, t in inputs.items()))
            groups.setdefault(shapes, []).append((row, inputs))
        ended = [pair for group in groups.values() for pair in self._prefill(group, free, failed)]
        if len(failed) > 1 and not self._answered and not any(self._rows):
            raise failed[0][1]
        return ended + [
            (row.number, Completion(row.request.key, "", "error", 0, 0, None, one_line(error))) for row, error in failed
        ]

    def _prefill(
        self, group: list[tuple[_Row, Inputs]], free: list[int], failed: list[tuple[_Row, Exception]]
    ) -> list[tuple[int, Completion]]:
        """The prompts of `group`, all of one shape, into slots taken from `free`; halves where together they fail."""
        rows = [row for row, _ in group]
        if len(rows) > len(free):  # slots were given up for want of memory since these rows were taken
            return self._whole(rows)
        try:
            inputs = {name: torch.cat([each[name] for _, each in group]) for name in group[0][1]}
            output = self._engine.model(**self._engine.to_device(inputs), use_cache=True, logits_to_keep=1)
        except REQUEST_ERRORS as error:
            failure = error.with_traceback(None)  # its frames would hold all that the prompts took
        else:
            slots = free[: len(rows)]
            if self._let_in(slots, output.past_key_values):
                del free[: len(rows)]
                for slot, row in zip(slots, rows, strict=True):
                    self._rows[slot] = row
                return self._take(slots, output.logits[:, -1])
            del output
            ended = self._start_over(rows)
            free[:] = range(len(self._rows))
            return ended
        if len(rows) == 1:
            failed.append((rows[0], failure))
            return []
        middle = len(rows) // 2
        first = self._prefill(group[:middle], free, failed)
        return first + self._prefill(group[middle:], free, failed)

    def _let_in(self, slots: Sequence[int], fresh: Cache) -> bool:
        """Put the rows of `fresh` into the cache, which is made for the first ones; False where memory is lacking."""
        try:
            if self._cache is None:
                room = self._engine.max_new_tokens + max(64, self._engine.max_new_tokens // 4)
                self._cache = SlotCache(fresh, len(self._rows), room)
            self._cache.admit(slots, fresh)
        except REQUEST_ERRORS:
            return False
        return True

    def _step(self) -> list[tuple[int, Completion]]:
        """One token of every slot."""
        scores = self._scores()
        if scores is None:
            return self._start_over([])
        slots = [slot for slot, row in enumerate(self._rows) if row is not None]
        return self._take(slots, scores[slots])

    def _scores(self) -> Tensor | None:
        """The scores of every slot's next token, [B, V]; None where the step fails."""
        assert self._cache is not None
        try:
            return self._decode(self._next, self._cache)
        except REQUEST_ERRORS:  # done with here, because its frames would hold the cache
            return None

    def _take(self, slots: Sequence[int], scores: Tensor) -> list[tuple[int, Completion]]:
        """The next token of the rows in `slots` from their `scores` [B, V]; rows that end with it leave."""
        rows = [row for slot in slots if (row := self._rows[slot]) is not None]
        seeds = np.array([row.request.seed for row in rows], np.int64)
        steps = np.array([len(row.tokens) for row in rows], np.int64)
        chosen, logprobs = self._engine.rule.choose(scores.float(), seeds, steps)
        ended = []
        for slot, row, token, logprob in zip(slots, rows, chosen.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)
            self._next[slot] = token
            stops = token in self._engine.end_tokens
            if stops or len(row.tokens) == self._engine.max_new_tokens:
                self._leave(slot)
                ended.append((row.number, self._completion(row, "stop" if stops else "length")))
        return ended

    def _leave(self, slot: int) -> None:
        assert self._cache is not None
        self._rows[slot], self._next[slot] = None, self._engine.pad_token
        self._cache.free(slot)

    def _completion(self, row: _Row, finish_reason: FinishReason) -> Completion:
        self._answered = True
        return Completion(
            key=row.request.key,
            text=self._engine.text_of(row.tokens),
            finish_reason=finish_reason,
            n_prompt_tokens=row.n_prompt_tokens,
            n_tokens=len(row.tokens),
            mean_logprob=float(np.mean(row.logprobs)),
        )

    def _start_over(self, more: list[_Row]) -> list[tuple[int, Completion]]:
        """Something failed, most likely for want of memory: answer the rows of all slots, and `more`, in whole batches,
        and go on with half the slots."""
        rows = [*(row for row in self._rows if row is not None), *more]
        count = max(1, len(self._rows) // 2)
        self._rows, self._next, self._cache = [None] * count, [self._engine.pad_token] * count, None
        return self._whole(rows)

    def _whole(self, rows: list[_Row]) -> list[tuple[int, Completion]]:
        """The answers to `rows`, asked anew in one batch."""
        completions = self._engine.complete([row.request for row in rows])
        self._answered = self._answered or any(completion.error is None for completion in completions)
        return [(row.number, completion) for row, completion in zip(rows, completions, strict=True)]

    def _shrink(self) -> None:
        """Nothing more comes: once half of the slots are free, let them go."""
        busy = [slot for slot, row in enumerate(self._rows) if row is not None]
        if self._fixed or self._cache is None or 2 * len(busy) > len(self._rows):
            return
        self._cache.keep(busy)
        self._rows = [self._rows[slot] for slot in busy]
        self._next = [self._next[slot] for slot in busy]
