"""Messages come out of a byte stream as they went in, however it was cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.frames import Frames, frame


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 80), min_size=1))
def test_messages_survive_any_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, messages))
    frames = Frames()
    received = []
    place = step = 0
    while place < len(stream):
        size = cuts[step % len(cuts)]
        received += frames.feed(stream[place : place + size])
        place, step = place + size, step + 1
    assert received == messages


def test_a_message_is_there_with_its_last_byte() -> None:
    frames = Frames()
    whole = frame(b"abc") + frame(b"")
    assert frames.feed(whole[:6]) == []
    assert frames.feed(whole[6:7]) == [b"abc"]
    assert frames.feed(whole[7:]) == [b""]
