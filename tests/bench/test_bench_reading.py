"""What a recording says, and what is made of samples, with times that are made up and therefore exact."""

from __future__ import annotations

from array import array

import pytest

from headrace.bench.endpoints import Ask, Asking, Endpoint
from headrace.bench.errors import BenchError
from headrace.bench.load import Outcome
from headrace.bench.prompts import Prompt
from headrace.bench.report import Distribution, Limits, percentile, report_of
from headrace.bench.samples import Sample, kind_of, read
from headrace.bench.wire import Recording
from headrace.client import ProtocolError, RateLimitError, ServerError

PROMPT = Prompt(content="Hi", tokens=1, output_tokens=3)


def ask(endpoint: str = "completions") -> Ask:
    return Asking(endpoint=Endpoint(endpoint), model="m", ignore_eos=True, extra={}).ask(PROMPT)


def recording(*pieces: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Recording:
    """Piece k came at k + 1 seconds, the request went out at 0.5."""
    times = array("d", [float(number + 1) for number in range(len(pieces))])
    return Recording(0.5, times, list(pieces), status, headers or {}, len(pieces) + 0.25)


TEXT = b'data: {"choices":[{"index":0,"text":"%s","finish_reason":%s}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"


def text(word: bytes, finish: bytes = b"null") -> bytes:
    return TEXT % (word, finish)


def test_an_event_came_when_its_last_byte_did():
    first, second, third = text(b"a"), text(b"b"), text(b"c", b'"length"')
    sample = read(recording(first[:9], first[9:] + second + third[:-1], third[-1:] + USAGE, DONE), ask())
    assert sample.arrivals == [2.0, 2.0, 3.0]
    assert (sample.sent, sample.ended) == (0.5, 4.25)
    assert (sample.prompt_tokens, sample.output_tokens) == (7, 3)
    assert sample.time_to_first_token == 1.5
    assert sample.latency == 3.75
    assert sample.gaps == [0.0, 1.0]
    assert sample.time_per_token(3) == 0.5
    assert sample.time_per_token(1) is None


def test_an_end_without_text_is_no_token():
    sample = read(recording(text(b"a"), text(b"b"), text(b"", b'"stop"'), USAGE + DONE), ask())
    assert sample.arrivals == [1.0, 2.0]


def test_a_token_without_text_is_one():
    sample = read(recording(text(b""), text(b"b"), USAGE + DONE), ask())
    assert sample.arrivals == [1.0, 2.0]


def test_a_single_token_that_ends_without_text_is_one():
    sample = read(recording(text(b"", b'"length"'), USAGE + DONE), ask())
    assert sample.arrivals == [1.0]


def test_chats_open_with_whose_turn_it_is():
    events = [
        b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"[DONE]",
    ]
    sample = read(recording(*(b"data: " + event + b"\n\n" for event in events)), ask("chat"))
    assert sample.arrivals == [2.0, 3.0, 4.0, 5.0]
    assert (sample.output_tokens, sample.text) == (None, "HmHellof{}")


def test_comments_and_other_line_ends():
    wire = b": keep-alive\n\n" + text(b"a") + USAGE + DONE
    assert read(recording(wire.replace(b"\n", b"\r\n")), ask()).arrivals == [1.0]


@pytest.mark.parametrize(
    ("pieces", "status", "error", "kind"),
    [
        ((text(b"a"),), 200, ProtocolError, "protocol"),
        ((DONE,), 200, ProtocolError, "protocol"),
        ((b'{"choices":[{"index":0,"text":"whole"}]}',), 200, ProtocolError, "protocol"),
        ((b"data: {broken\n\n", DONE), 200, ProtocolError, "protocol"),
        ((text(b"a"), b'data: {"error":{"message":"no","code":503}}\n\n', DONE), 200, ServerError, "http 503"),
        ((b'{"error":{"message":"slow down"}}',), 429, RateLimitError, "http 429"),
        ((b"<html>", b"</html>"), 502, ServerError, "http 502"),
    ],
)
def test_what_is_no_answer(pieces: tuple[bytes, ...], status: int, error: type[Exception], kind: str):
    with pytest.raises(error) as raised:
        read(recording(*pieces, status=status), ask())
    assert kind_of(raised.value) == kind


def test_percentiles_are_interpolated():
    values = [10.0, 20.0, 30.0, 40.0]
    assert [percentile(values, percent) for percent in (0, 50, 90, 100)] == pytest.approx([10, 25, 37, 40])
    assert percentile([5.0], 99) == 5.0


def test_distributions_are_in_milliseconds():
    found = Distribution.of([0.004, 0.002])
    assert found is not None
    assert (found.mean, found.std, found.min, found.max) == pytest.approx((3, 1, 2, 4))
    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx((3, 3.8, 3.9, 3.98))
    assert Distribution.of([]) is None


def sample(*arrivals: float, ended: float, output_tokens: int) -> Sample:
    return Sample(sent=0.0, arrivals=list(arrivals), ended=ended, prompt_tokens=1, output_tokens=output_tokens, text="")


def test_figures_of_known_samples():
    outcome = Outcome(
        answered=[
            (ask(), sample(0.1, 0.3, 0.4, ended=0.5, output_tokens=3)),
            (ask(), sample(0.2, ended=0.2, output_tokens=1)),
        ],
        seconds=2.0,
        most_running=2,
        cpu_seconds=0.5,
    )
    limits = Limits({"ttft": 150, "tpot": 160})
    level = report_of("2", outcome, concurrency=2, rate=None, limits=limits, tokenizer=None)
    assert (level.completed, level.output_tokens, level.prompt_tokens) == (2, 4, 2)
    assert (level.request_rate, level.output_token_rate, level.total_token_rate) == (1.0, 2.0, 3.0)
    assert level.ttft.mean == pytest.approx(150)
    # The answer of one token has no time per token, and no gaps.
    assert (level.tpot.min, level.tpot.max) == pytest.approx((150, 150))
    assert (level.itl.min, level.itl.max) == pytest.approx((100, 200))
    assert level.e2el.mean == pytest.approx(350)
    assert level.unexpected_output_lengths == 1
    assert (level.goodput.requests, level.goodput.rate) == (1, 0.5)


def test_limits_that_make_no_sense():
    for limits in ({"speed": 3.0}, {"ttft": 0.0}, {"e2el": float("nan")}):
        with pytest.raises(BenchError, match="goodput"):
            Limits(limits)
