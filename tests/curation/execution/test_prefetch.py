import threading
from collections.abc import Iterator

import pytest

from curation.execution.clock import PhaseClock
from curation.execution.prefetch import map_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    assert list(map_ahead(lambda x: x * x, range(50), threads=threads, ahead=4)) == [x * x for x in range(50)]
    assert list(map_ahead(lambda x: x, [], threads=threads, ahead=4)) == []


def test_no_more_is_taken_than_is_allowed_to_wait() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ahead(lambda x: x, source(), threads=2, ahead=5)
    for number in range(10):
        assert next(results) == number
        assert len(taken) <= number + 5
    results.close()
    assert len(taken) <= 15


def test_an_exception_comes_where_its_result_would_have_come() -> None:
    def divide(x: int) -> int:
        return 10 // (3 - x)

    results = map_ahead(divide, range(10), threads=2, ahead=8)
    assert [next(results) for _ in range(3)] == [3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_early_ends_the_threads() -> None:
    results = map_ahead(lambda x: x, iter(range(1000)), threads=3, ahead=10)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_source_that_fails_ends_the_threads() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("source")

    with pytest.raises(ValueError, match=r"source"):
        list(map_ahead(lambda x: x, source(), threads=2, ahead=4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_clock_adds_up_by_phase_from_many_threads() -> None:
    clock = PhaseClock()

    def work() -> None:
        for _ in range(200):
            with clock.phase("decode"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match=r"^x$"), clock.phase("write"):
        raise ValueError("x")
    assert list(clock.phases()) == ["decode", "write"]
    assert clock.seconds >= 0
