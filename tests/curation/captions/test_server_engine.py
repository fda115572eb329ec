import dataclasses
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from stub_server import Asked, StubServer, text_for

from curation.captions.engine import Completion, Decoding, Request
from curation.captions.server_engine import ServerChoice, ServerEngine, ServerSettings
from curation.captions.server_http import Address
from curation.captions.server_pictures import PictureEncoding
from schemas.errors import GuardError

PROMPT = "Describe this image"
GREEDY = Decoding(max_new_tokens=50)
ENCODING = PictureEncoding(side_px=512, pad=None)
QUICK = ServerSettings(concurrency=4, pause_seconds=0.01, start_seconds=20.0, request_seconds=20.0, retries=3)
STUB = str(Path(__file__).parents[2] / "support/stub_server.py")

Open = Callable[..., ServerEngine]


@pytest.fixture
def open_engine() -> Iterator[Open]:
    """Opens engines on the stub model, and closes them."""
    engines = []

    def one(settings: ServerSettings, decoding: Decoding = GREEDY) -> ServerEngine:
        choice = ServerChoice("stub", "stub", "stub", None, ENCODING, settings)
        engines.append(ServerEngine(choice, decoding, PROMPT))
        return engines[-1]

    yield one
    for engine in engines:
        engine.close()


@pytest.fixture
def requests(picture: Any) -> list[Request]:
    return [Request(f"key-{n}", picture(n, 24 + n % 3, 32), f"{PROMPT} {n % 5}", -1) for n in range(24)]


def expected(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(r.key, text_for(r.image, r.prompt, None, 0.0)) for r in requests]


def got(completions: Sequence[Completion]) -> list[tuple[str, str]]:
    return [(c.key, c.text) for c in completions]


def by_url(*servers: StubServer, **changes: Any) -> ServerSettings:
    return dataclasses.replace(QUICK, urls=tuple(server.url for server in servers), **changes)


def own(*arguments: object, **changes: Any) -> ServerSettings:
    command = " ".join(map(str, (sys.executable, STUB, "--port {port} --model {model}", *arguments)))
    return dataclasses.replace(QUICK, command=command, **changes)


def of_job(trouble: Callable[[Asked], str | None]) -> Callable[[Asked], str | None]:
    """`trouble` for the requests of a job alone: the pictures of the checks are higher than theirs."""
    return lambda asked: trouble(asked) if asked.picture.height < 30 else None


def test_answers_come_in_order_with_the_keys_of_their_requests(open_engine: Open, requests: list[Request]) -> None:
    with StubServer() as server:
        completions = list(open_engine(by_url(server)).answers(requests))
    assert got(completions) == expected(requests)
    first = completions[0]
    assert (first.finish_reason, first.n_prompt_tokens, first.n_tokens) == ("stop", 600, 13)
    assert first.mean_logprob == pytest.approx(-1.0)
    assert {asked.body["model"] for asked in server.asked} == {"stub"}


def test_as_many_requests_as_asked_for_are_in_flight_and_never_more(open_engine: Open, requests: list[Request]) -> None:
    all_there = threading.Barrier(4, timeout=20)

    def wait_for_all(asked: Asked) -> None:
        all_there.wait()

    with StubServer(trouble=of_job(wait_for_all)) as server:
        completions = list(open_engine(by_url(server)).answers(requests))
    assert got(completions) == expected(requests)  # a barrier that is not reached breaks, and drops the answer
    assert server.most_inside == 4


def test_requests_are_taken_ahead_of_the_answers_but_not_without_bound(
    open_engine: Open, requests: list[Request]
) -> None:
    taken = 0

    def source() -> Iterator[Request]:
        nonlocal taken
        for request in requests:
            taken += 1
            yield request

    with StubServer(trouble=of_job(lambda asked: "hang")) as server:
        engine = open_engine(by_url(server))
        answers = engine.answers(source())
        thread = threading.Thread(target=lambda: list(answers))
        thread.start()
        while server.inside < 4:
            time.sleep(0.01)
        assert 4 <= taken <= 7  # in flight, two with the threads, and one that waits for them
        server.trouble = lambda asked: None
        server.release.set()
        thread.join(30)
    assert taken == len(requests)


@pytest.mark.parametrize("trouble", ["500", "503", "429", "garbage", "no_chat", "drop", "half", "misrouted", "abort"])
def test_a_passing_trouble_changes_nothing(trouble: str, open_engine: Open, requests: list[Request]) -> None:
    failing = of_job(lambda asked: trouble if asked.attempt < 2 else None)
    with StubServer(trouble=failing) as server:
        completions = list(open_engine(by_url(server)).answers(requests))
        assert got(completions) == expected(requests)
        assert len([asked for asked in server.asked if asked.picture.height < 30]) == 3 * len(requests)


def test_a_hanging_answer_is_asked_for_again(open_engine: Open, requests: list[Request]) -> None:
    hanging = of_job(lambda asked: "hang" if asked.attempt == 0 and asked.picture.height == 25 else None)
    with StubServer(trouble=hanging) as server:
        completions = list(open_engine(by_url(server, request_seconds=1.0)).answers(requests))
    assert got(completions) == expected(requests)


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_a_request_that_the_server_refuses_is_not_repeated_and_its_row_says_why(
    status: str, open_engine: Open, requests: list[Request]
) -> None:
    with StubServer(trouble=of_job(lambda asked: status if asked.picture.height == 25 else None)) as server:
        completions = list(open_engine(by_url(server)).answers(requests))
        refused = [asked for asked in server.asked if asked.picture.height == 25]
    whole = dict(expected(requests))
    assert [c.key for c in completions] == list(whole)
    for request, completion in zip(requests, completions, strict=True):
        if request.image.height == 25:
            assert (completion.text, completion.finish_reason) == ("", "error")
            assert completion.error == f"HTTP {status}: trouble {status}"
        else:
            assert completion.text == whole[request.key]
    assert len(refused) == 8


def test_a_request_that_always_fails_at_a_server_that_answers_others_is_given_up(
    open_engine: Open, requests: list[Request]
) -> None:
    with StubServer(trouble=of_job(lambda asked: "500" if asked.picture.height == 25 else None)) as server:
        completions = list(open_engine(by_url(server)).answers(requests))
        assert server.attempts.most_common(1)[0][1] >= 4
    errors = {c.key: c.error for c in completions if c.finish_reason == "error"}
    assert errors.keys() == {r.key for r in requests if r.image.height == 25}
    assert set(errors.values()) == {"given up after 4 tries; the last: HTTP 500: trouble 500"}


def test_when_everything_fails_no_row_is_blamed_and_the_job_stops(open_engine: Open, requests: list[Request]) -> None:
    with StubServer() as server:
        engine = open_engine(by_url(server, start_seconds=0.3))
        server.trouble = lambda asked: "500"
        with pytest.raises(GuardError, match=r"no captioning server is left.*HTTP 500.*run the same command"):
            list(engine.answers(requests))


def test_a_server_that_goes_away_and_comes_back_is_waited_for(open_engine: Open, requests: list[Request]) -> None:
    with StubServer() as server:
        port = server.server_address[1]
        engine = open_engine(by_url(server))
        answers = engine.answers(requests)
        completions = [next(answers)]
    rest = threading.Thread(target=lambda: completions.extend(answers))
    rest.start()
    with socket.create_server(("127.0.0.1", port)) as dead:
        for _ in range(3):
            dead.accept()[0].close()
    with StubServer(port):
        rest.join(60)
    assert got(completions) == expected(requests)


def test_work_goes_on_with_the_other_server_when_one_goes_away(open_engine: Open, requests: list[Request]) -> None:
    other_asked = threading.Event()

    def wait_for_other(asked: Asked) -> None:
        other_asked.wait(20)

    with StubServer(trouble=of_job(wait_for_other)) as stays:
        with StubServer(trouble=of_job(lambda asked: other_asked.set())) as leaves:
            engine = open_engine(by_url(stays, leaves))
            answers = engine.answers(requests)
            completions = [next(answers)]
        completions += list(answers)
    assert got(completions) == expected(requests)
    assert [asked for asked in leaves.asked if asked.picture.height < 30]


def test_an_abandoned_run_cuts_its_requests_and_the_engine_can_be_asked_again(
    open_engine: Open, requests: list[Request]
) -> None:
    with StubServer(trouble=of_job(lambda asked: "hang" if asked.picture.height != 24 else None)) as server:
        engine = open_engine(by_url(server))
        answers = engine.answers(requests)
        assert next(answers).key == "key-0"
        answers.close()
        server.trouble = lambda asked: None
        assert got(list(engine.answers(requests))) == expected(requests)


def test_sampling_is_asked_for_with_the_seed_of_the_sample(open_engine: Open, requests: list[Request]) -> None:
    seeded = [dataclasses.replace(request, seed=(7 << 40) + n) for n, request in enumerate(requests)]
    with StubServer() as server:
        engine = open_engine(by_url(server), Decoding(50, temperature=0.7, top_p=0.9))
        completions = list(engine.answers(seeded))
    assert [c.text for c in completions] == [text_for(r.image, r.prompt, n, 0.7) for n, r in enumerate(seeded)]
    body = server.asked[-1].body
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["logprobs"]) == (0.7, 0.9, 50, True)


def test_a_server_of_its_own_that_dies_is_restarted_and_nothing_is_lost(
    open_engine: Open, requests: list[Request], tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    engine = open_engine(own("--starts", starts, "--answers", 20))
    assert got(list(engine.answers(requests))) == expected(requests)
    pids = [int(line) for line in starts.read_text().split()]
    assert len(pids) >= 3
    engine.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_picture_that_kills_the_server_is_found_and_those_asked_with_it_are_cleared(
    open_engine: Open, requests: list[Request], picture: Any, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    poison = Request("poison", picture(99, 23, 31), PROMPT, -1)
    asked = [*requests[:6], poison, *requests[6:]]
    completions = list(open_engine(own("--starts", starts, "--poison", "31x23", "--seconds", 0.2)).answers(asked))
    assert got(completions) == [*expected(requests[:6]), ("poison", ""), *expected(requests[6:])]
    assert "fails whenever it is asked this" in (completions[6].error or "")
    assert len(starts.read_text().split()) == 5  # the first, and one after each of its four deaths


def test_a_server_of_its_own_that_hangs_is_replaced(open_engine: Open, requests: list[Request], tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    engine = open_engine(own("--starts", starts, request_seconds=2.0))
    psutil.Process(int(starts.read_text())).suspend()
    assert got(list(engine.answers(requests))) == expected(requests)
    assert len(starts.read_text().split()) == 2


def test_a_server_that_does_not_come_back_stops_the_job(
    open_engine: Open, requests: list[Request], tmp_path: Path
) -> None:
    marker = tmp_path / "broken"
    stub = f"import os, runpy, sys; os.path.exists({str(marker)!r}) and sys.exit('no GPU'); "
    code = tmp_path / "flaky.py"
    code.write_text(f"{stub}sys.argv[0] = {STUB!r}; runpy.run_path({STUB!r}, run_name='__main__')")
    settings = dataclasses.replace(
        QUICK, command=f"{sys.executable} {code} --port {{port}} --model {{model}} --answers 20", restarts=2
    )
    engine = open_engine(settings)
    marker.touch()
    with pytest.raises(GuardError, match=r"no captioning server is left.*ended with code 1.*no GPU.*3 failures"):
        list(engine.answers(requests))


def test_a_server_that_does_not_start_is_told_with_its_last_words(open_engine: Open, tmp_path: Path) -> None:
    with pytest.raises(GuardError, match=r"ended with code 5 .*the weights do not fit.*--server-log") as error:
        open_engine(own("--exit", 5))
    assert "\n" not in str(error.value)
    with pytest.raises(GuardError, match=r"see .*server-.*\.log"):
        open_engine(own("--exit", 5, log_folder=str(tmp_path / "log")))
    assert "the weights do not fit" in next((tmp_path / "log").iterdir()).read_text()


def test_a_server_that_never_answers_is_given_up_at_the_deadline(open_engine: Open) -> None:
    command = f"{sys.executable} -c 'import time; time.sleep(600)' {{port}}"
    sleeper = dataclasses.replace(QUICK, command=command, start_seconds=0.5)
    with pytest.raises(GuardError, match=r"did not caption within 0.5 s.*refused.*--server-start-timeout"):
        open_engine(sleeper)


def test_no_server_at_a_url_is_told_at_once(open_engine: Open) -> None:
    with StubServer() as server:
        settings = by_url(server)
    with pytest.raises(GuardError, match=r"--server-url http.*connection failed.*Start the server"):
        open_engine(settings)


def test_a_server_of_another_model_is_refused(open_engine: Open) -> None:
    with StubServer(model="another") as server, pytest.raises(GuardError, match="no model stub"):
        open_engine(by_url(server))
    with StubServer(model="another") as server:
        server.any_name = True
        with pytest.raises(GuardError, match="it serves another, and answers to any name"):
            open_engine(by_url(server))


def test_a_server_that_does_not_list_its_model_but_refuses_other_names_is_taken(open_engine: Open) -> None:
    with StubServer() as server:
        server.lists_models = False
        open_engine(by_url(server))


def test_a_server_without_health_is_known_by_its_list_of_models(open_engine: Open, requests: list[Request]) -> None:
    with StubServer() as server:
        server.has_health = False
        assert got(list(open_engine(by_url(server)).answers(requests))) == expected(requests)


def test_a_server_that_is_blind_is_refused(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stub_server.text_for", lambda picture, prompt, seed, temperature: "The image features a dog.")
    with StubServer() as server, pytest.raises(GuardError, match="four different pictures got the same text"):
        open_engine(by_url(server))


def test_a_server_that_mixes_up_answers_is_refused(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[Any] = []

    def mixed_up(picture: Any, prompt: str, seed: int | None, temperature: float) -> str:
        last.append(picture)
        return text_for(last[-2] if len(last) > 5 else picture, prompt, seed, temperature)

    monkeypatch.setattr("stub_server.text_for", mixed_up)
    with StubServer() as server, pytest.raises(GuardError, match="one got the text of another"):
        open_engine(by_url(server))


@pytest.mark.parametrize(
    ("draws", "says"), [("never", "one text at temperature 2"), ("always", "two texts for one seed")]
)
def test_a_server_that_does_not_sample_by_seed_is_refused(
    draws: str, says: str, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(1000))

    def text(picture: Any, prompt: str, seed: int | None, temperature: float) -> str:
        drawn = next(numbers) if draws == "always" and temperature else None
        return text_for(picture, prompt, drawn, 0.0 if drawn is None else temperature)

    monkeypatch.setattr("stub_server.text_for", text)
    with StubServer() as server:
        open_engine(by_url(server))  # greedy: all is well
        with pytest.raises(GuardError, match=says):
            open_engine(by_url(server), Decoding(50, temperature=0.5))


def test_a_server_that_refuses_logprobs_is_asked_without(open_engine: Open, requests: list[Request]) -> None:
    with StubServer(trouble=lambda asked: "400" if "logprobs" in asked.body else None) as server:
        completions = list(open_engine(by_url(server)).answers(requests))
    assert got(completions) == expected(requests)
    assert {c.mean_logprob for c in completions} == {None}


def test_the_key_of_the_environment_is_sent(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_SERVER_KEY", "sesame")
    with StubServer() as server:
        open_engine(by_url(server))
    assert server.keys == {"Bearer sesame"}
    assert "sesame" not in repr(Address(server.url, "sesame"))
