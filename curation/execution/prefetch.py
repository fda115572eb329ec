"""Do work ahead in threads, with the results in order and a bound on how far ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Generator[R, None, None]:
    """`function` over `items` in `threads` threads, results in the order of the items.

    At most `ahead` results exist before they are taken, so memory stays bounded however slow the consumer is. An
    exception of `function` is raised where its result would have come. With no threads everything happens on demand.
    """
    if threads <= 0:
        yield from map(function, items)
        return
    pending: deque[Future[R]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in source:
                pending.append(pool.submit(function, item))
                if len(pending) >= max(1, ahead):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
