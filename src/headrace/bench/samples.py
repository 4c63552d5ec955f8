"""What became of one request, read from its recording."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from headrace.bench.endpoints import Ask, Piece
from headrace.bench.wire import Recording
from headrace.client import ClientError, ConnectFailed, ProtocolError, StatusError, TimedOut, TransportError
from headrace.client.refusals import refusal_of_body
from headrace.client.streams import EventReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A request that was answered. Times are seconds of the load generator's clock.

    `arrivals`: when each event with tokens came; none, if the answer was no stream. `prompt_tokens` and
    `output_tokens` are what the server's usage says, None where it says nothing; then there is the `text`.
    """

    sent: float
    arrivals: list[float]
    ended: float
    prompt_tokens: int | None
    output_tokens: int | None
    text: str

    @property
    def time_to_first_token(self) -> float:
        return self.arrivals[0] - self.sent

    @property
    def latency(self) -> float:
        """From sending the request to the end of the answer."""
        return self.ended - self.sent

    @property
    def gaps(self) -> list[float]:
        """Between an event with tokens and the next one."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    def time_per_token(self, output_tokens: int) -> float | None:
        """Mean over the tokens after the first; None if there are none."""
        return (self.arrivals[-1] - self.arrivals[0]) / (output_tokens - 1) if output_tokens > 1 else None


def kind_of(error: ClientError) -> str:
    """What failures are counted by: "connect", "timeout", "disconnect", "protocol", or "http" and the status, which
    errors inside a stream have, too."""
    match error:
        case StatusError():
            return f"http {error.status}"
        case ConnectFailed():
            return "connect"
        case TimedOut():
            return "timeout"
        case TransportError():
            return "disconnect"
        case _:
            return "protocol"


def read(recording: Recording, ask: Ask) -> Sample:
    """What a recording says. Raises `StatusError` and `ProtocolError`."""
    if recording.status != 200:
        raise refusal_of_body(recording.status, recording.body, recording.headers)
    pieces = _events(recording, ask) if ask.streamed else [(recording.ended, ask.read(recording.body))]
    arrivals = [time for time, piece in pieces if piece.has_token] or [
        time for time, piece in pieces if piece.has_choice
    ][:1]
    if ask.streamed and not arrivals:
        raise ProtocolError("The stream ended without a token.")
    usage = next((piece.usage for _, piece in reversed(pieces) if piece.usage is not None), None)
    return Sample(
        sent=recording.sent,
        arrivals=arrivals,
        ended=recording.ended,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        output_tokens=None if usage is None else usage.completion_tokens,
        text="" if usage is not None else "".join(piece.text for _, piece in pieces),
    )


def _events(recording: Recording, ask: Ask) -> list[tuple[float, Piece]]:
    """The events of a stream, each with the time at which its last byte came."""
    reader = EventReader(ask.read)
    events = []
    for time, piece in zip(recording.times, recording.pieces, strict=True):
        reader.feed(piece)
        while (event := reader.take()) is not None:
            events.append((time, event))
    reader.feed(b"")
    while (event := reader.take()) is not None:  # raises if more was to come
        events.append((recording.ended, event))
    return events
