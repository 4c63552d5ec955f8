"""Sweeps over a server whose clock is known: what is counted is exact, and nothing is measured shorter than it was."""

from __future__ import annotations

import json
import socket
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest
from bench_tools import OUTPUT_TOKENS, PROMPT_TOKENS, settings_of, sweep_of
from clock_server import MODEL, Behaviour, ClockServer

from headrace.bench.arrivals import Rate
from headrace.bench.endpoints import Endpoint
from headrace.bench.plot import plot_of
from headrace.bench.report import Limits, ServeReport
from headrace.bench.sweep import Level
from headrace.bench.table import notes, print_serve_report
from headrace.bench.target import served_model, server_tokenizer
from headrace.client import AuthenticationError, ConnectFailed, ServerError

MS = 1e3
LAST_TOKEN = OUTPUT_TOKENS - 1


def assert_no_time_is_too_short(report: ServeReport, clock: Behaviour) -> None:
    for level in report.levels:
        assert level.ttft.min >= clock.first * MS
        assert level.e2el.min >= (clock.first + LAST_TOKEN * clock.gap) * MS
        for times in (level.ttft, level.tpot, level.itl, level.e2el):
            assert times.min <= times.p50 <= times.p90 <= times.p95 <= times.p99 <= times.max
            assert times.min <= times.mean <= times.max
        assert level.tpot.mean * LAST_TOKEN + level.ttft.mean <= level.e2el.mean + 1e-6
        assert level.itl.mean == pytest.approx(level.tpot.mean)
        assert level.seconds * MS >= level.e2el.max


@pytest.mark.parametrize(("endpoint", "as_ids"), [("completions", True), ("completions", False), ("chat", False)])
def test_closed_loops(endpoint: str, as_ids: bool):
    clock = Behaviour(first=0.02, gap=0.004)
    with ClockServer(clock) as server:
        sweep = sweep_of(server, Level(concurrency=1), Level(concurrency=4), endpoint=Endpoint(endpoint), as_ids=as_ids)
        report = sweep.run()
    assert_no_time_is_too_short(report, clock)
    for level, requests in zip(report.levels, (4, 12), strict=True):
        assert (level.completed, level.failed, level.cancelled, level.errors) == (requests, 0, 0, {})
        assert level.most_running == level.concurrency
        assert level.output_tokens == requests * OUTPUT_TOKENS
        assert level.output_tokens_counted_by == {"usage": requests}
        assert level.prompt_tokens == requests * PROMPT_TOKENS
        assert (level.unexpected_prompt_lengths, level.unexpected_output_lengths) == (0, 0)
        assert level.tokens_per_event == 1
        assert level.request_rate == pytest.approx(requests / level.seconds)
        assert level.output_token_rate == pytest.approx(level.output_tokens / level.seconds)
        assert level.total_token_rate == pytest.approx(level.prompt_token_rate + level.output_token_rate)
        # So many clients cannot do more than the clock allows.
        longest = clock.first + LAST_TOKEN * clock.gap
        assert level.request_rate <= level.concurrency / longest
    assert server.most_running == 4
    # A client keeps its connection; the two levels have an event loop each, and /tokenize was called three times.
    assert server.connections == 1 + 4 + 3
    assert all(body["ignore_eos"] is True and body["stream"] is True for body in server.bodies)
    prompts = [json.dumps(body.get("prompt", body.get("messages"))) for body in server.bodies]
    assert len(set(prompts)) == 16


def test_an_open_loop_does_not_wait_for_answers():
    clock = Behaviour(first=0.5, gap=0.0)
    rate = Rate(first=400, last=400)
    with ClockServer(clock) as server:
        free, limited = (
            sweep_of(server, Level(rate=rate, requests=20), Level(rate=rate, requests=6, concurrency=2)).run().levels
        )
    # All arrive within 0.05 s, long before the first answer begins.
    assert (free.completed, free.most_running, free.concurrency) == (20, 20, None)
    assert (free.rate.first, free.rate.last, free.rate.burstiness) == (400, 400, 1)
    assert free.lateness.min >= 0
    assert (limited.completed, limited.most_running) == (6, 2)
    # The last two of six wait for two answers each, and they are late by it.
    assert limited.lateness.max >= 2 * clock.first * MS - 6 / 400 * MS
    assert limited.ttft.min >= clock.first * MS


def test_all_at_once():
    with ClockServer(Behaviour(first=0.4)) as server:
        rate = Rate(first=float("inf"), last=float("inf"))
        [level] = sweep_of(server, Level(rate=rate, requests=15)).run().levels
    assert (level.completed, level.most_running, level.rate.first) == (15, 15, None)


def test_events_of_several_tokens():
    clock = Behaviour(first=0.02, gap=0.004, per_event=3)
    with ClockServer(clock) as server:
        [level] = sweep_of(server, Level(concurrency=2)).run().levels
    # 8 tokens come in 3 events.
    assert level.tokens_per_event == pytest.approx(8 / 3)
    assert level.output_tokens == 6 * OUTPUT_TOKENS
    assert level.itl.mean * 2 == pytest.approx(level.tpot.mean * LAST_TOKEN)


@pytest.mark.parametrize(("tokenizes", "counted_by"), [(True, "tokenizer"), (False, "events")])
def test_without_usage_tokens_are_counted_otherwise_and_that_is_said(tokenizes: bool, counted_by: str):
    with ClockServer(Behaviour(usage=False, per_event=2, tokenizes=tokenizes)) as server:
        report = sweep_of(server, Level(concurrency=2)).run()
    [level] = report.levels
    assert level.output_tokens_counted_by == {counted_by: 6}
    assert level.output_tokens == 6 * (OUTPUT_TOKENS if tokenizes else OUTPUT_TOKENS // 2)
    assert any(f"counted by {counted_by}" in note for note in notes(report))


def test_answers_of_another_length_are_noticed():
    with ClockServer() as server:
        sweep = sweep_of(server, Level(concurrency=2), extra={"max_tokens": 3, "temperature": 0})
        report = sweep.run()
    assert report.levels[0].unexpected_output_lengths == 6
    assert report.extra_body == {"max_tokens": 3, "temperature": 0}
    assert any("6 answers had another length" in note for note in notes(report))


def test_embeddings_have_latency_alone():
    clock = Behaviour(first=0.03)
    with ClockServer(clock) as server:
        report = sweep_of(server, Level(concurrency=3), endpoint=Endpoint.EMBEDDINGS, as_ids=False).run()
    [level] = report.levels
    assert (level.completed, level.prompt_tokens, level.output_tokens) == (9, 9 * PROMPT_TOKENS, 0)
    assert (level.ttft, level.tpot, level.itl) == (None, None, None)
    assert level.e2el.min >= clock.first * MS
    assert all(set(body) == {"model", "input"} for body in server.bodies)
    ElementTree.fromstring(plot_of(report))


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        (Behaviour(status=503), "http 503", "out of order"),
        (Behaviour(status=429), "http 429", "out of order"),
        (Behaviour(error_after=3), "http 500", "the engine died"),
        (Behaviour(cut_after=3), "disconnect", "the server closed it"),
        (Behaviour(cut_after=3, framed=False), "protocol", "before it was complete"),
        (Behaviour(silent=True), "timeout", "No whole answer within 0.2 s"),
    ],
)
def test_errors_are_counted_by_kind(behaviour: Behaviour, kind: str, said: str):
    with ClockServer(behaviour) as server:
        timeout = 0.2 if behaviour.silent else 60.0
        report = sweep_of(server, Level(concurrency=2, requests=4), timeout=timeout).run()
    [level] = report.levels
    assert (level.completed, level.failed) == (0, 4)
    assert {name: error.count for name, error in level.errors.items()} == {kind: 4}
    assert said in level.errors[kind].example
    assert level.ttft is None
    assert level.output_token_rate == 0
    assert any(said in note for note in notes(report))


def test_a_server_that_closes_its_connections():
    with ClockServer(Behaviour(keep_alive=False)) as server:
        [level] = sweep_of(server, Level(concurrency=2, requests=8)).run().levels
    assert (level.completed, level.failed) == (8, 0)
    with ClockServer(Behaviour(framed=False)) as server:
        [level] = sweep_of(server, Level(concurrency=2, requests=8)).run().levels
    assert (level.completed, level.failed) == (8, 0)


def test_a_server_that_goes_away_between_levels_is_counted():
    with ClockServer() as server:
        sweep = sweep_of(server, Level(concurrency=2, requests=4))
    [level] = sweep.run().levels
    assert {name: error.count for name, error in level.errors.items()} == {"connect": 4}


def test_a_warm_up_that_fails_is_raised():
    with ClockServer(Behaviour(status=503)) as server, pytest.raises(ServerError, match="out of order"):
        sweep_of(server, Level(concurrency=2), warmup_requests=2).run()
    with ClockServer(Behaviour(status=401)) as server, pytest.raises(AuthenticationError):
        sweep_of(server, Level(concurrency=2), warmup_requests=1).run()


def test_the_warm_up_does_not_count():
    with ClockServer() as server:
        report = sweep_of(server, Level(concurrency=2, requests=5), warmup_requests=3).run()
    assert len(server.bodies) == 8
    assert report.levels[0].completed == 5


def test_long_loads_are_read_as_they_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headrace.bench.load._KEPT_BYTES", 0)
    with ClockServer(Behaviour(first=0.01, gap=0.001)) as server:
        [level] = sweep_of(server, Level(concurrency=2, requests=10)).run().levels
    assert (level.completed, level.output_tokens) == (10, 10 * OUTPUT_TOKENS)


def test_goodput_counts_requests_within_every_limit():
    with ClockServer(Behaviour(first=0.02, gap=0.01)) as server:
        all_good = sweep_of(server, Level(concurrency=2), limits=Limits({"ttft": 6e4, "tpot": 6e4, "e2el": 6e4})).run()
        # The clock lets no answer end within 90 ms.
        none_good = sweep_of(server, Level(concurrency=2), limits=Limits({"ttft": 6e4, "e2el": 89.0})).run()
    [level] = all_good.levels
    assert (level.goodput.requests, level.goodput.rate) == (6, pytest.approx(level.request_rate))
    [level] = none_good.levels
    assert (level.goodput.requests, level.goodput.rate) == (0, 0)
    assert level.goodput.limits == {"ttft": 6e4, "e2el": 89.0}


def test_the_same_seed_sends_the_same_requests():
    def sent(seed: int) -> list[dict[str, object]]:
        with ClockServer() as server:
            sweep_of(server, Level(concurrency=1, requests=5), seed=seed).run()
        return server.bodies

    assert sent(1) == sent(1)
    assert sent(1) != sent(2)


def test_the_key_is_sent_and_not_reported():
    with ClockServer() as server:
        report = sweep_of(server, Level(concurrency=1), key="sesame").run()
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sesame"}
    assert "sesame" not in report.json()


def test_a_report_is_json_a_table_and_a_plot(capsys: pytest.CaptureFixture[str]):
    with ClockServer() as server:
        levels = (Level(concurrency=1), Level(concurrency=3))
        report = sweep_of(server, *levels, limits=Limits({"e2el": 1e4})).run()
    assert msgspec.json.decode(report.json(), type=ServeReport) == report
    print_serve_report(report)
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = {row[0]: row[1:] for row in cells}
    assert rows["concurrency"] == ["1", "3"]
    assert rows["requests completed"] == ["4", "9"]
    assert rows["TTFT ms, p50"] == [f"{level.ttft.p50:.1f}" for level in report.levels]
    assert "lateness ms, p50" not in rows
    picture = ElementTree.fromstring(plot_of(report))
    assert picture.tag.endswith("svg")
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert {"p50", "p90", "p99", "output", "prompt", "requests at a time"} <= set(texts)


def test_what_a_server_says_of_itself():
    with ClockServer() as server:
        assert served_model(settings_of(server), Endpoint.CHAT) == MODEL
        tokenizer = server_tokenizer(settings_of(server), MODEL)
        assert tokenizer is not None
        assert len(tokenizer.encode("one two three")) == 4
        assert len(tokenizer.encode("one two three", add_special_tokens=False)) == 3
        tokenizer.close()
    with ClockServer(Behaviour(tokenizes=False)) as server:
        assert server_tokenizer(settings_of(server), MODEL) is None
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        server.port = unheard.getsockname()[1]
        with pytest.raises(ConnectFailed):
            served_model(settings_of(server), Endpoint.CHAT)
