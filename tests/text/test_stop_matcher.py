from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.text import StopMatcher

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)


def first_match(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Where the first match ends, and which: what the matcher does, by brute force."""
    for end in range(1, len(text) + 1):
        for stop in stops:
            if text[:end].endswith(stop):
                return end, stop
    return None


def expected(text: str, stops: tuple[str, ...], include_stop: bool) -> tuple[str, str | None]:
    match = first_match(text, stops)
    if match is None:
        return text, None
    end, stop = match
    return text[: end if include_stop else end - len(stop)], stop


def feed(matcher: StopMatcher, pieces: list[str]) -> tuple[str, str | None]:
    shown, found = "", None
    for piece in pieces:
        text, stop = matcher.push(piece)
        shown += text
        found = found or stop
    return shown + matcher.finish(), found


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(text=TEXT, stops=STOPS, include_stop=st.booleans(), data=st.data())
def test_every_split_shows_what_brute_force_says(
    text: str, stops: tuple[str, ...], include_stop: bool, data: st.DataObject
):
    pieces = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    matcher = StopMatcher(stops, include_stop=include_stop)
    assert feed(matcher, pieces) == expected(text, stops, include_stop)


@given(text=TEXT, stops=STOPS)
def test_exactly_what_may_become_a_stop_string_is_held_back(text: str, stops: tuple[str, ...]):
    matcher = StopMatcher(stops, include_stop=False)
    shown, seen = "", ""
    for character in text:
        piece, stop = matcher.push(character)
        shown += piece
        seen += character
        if stop is not None:
            break
        longest = max(
            length
            for length in range(len(seen) + 1)
            if not length or any(candidate.startswith(seen[-length:]) for candidate in stops)
        )
        assert shown == seen[: len(seen) - longest]


@given(text=TEXT, stops=STOPS)
def test_with_the_stop_included_nothing_is_held_back(text: str, stops: tuple[str, ...]):
    matcher = StopMatcher(stops, include_stop=True)
    for character in text:
        shown, stop = matcher.push(character)
        assert shown == character
        if stop is not None:
            break
    assert matcher.finish() == ""


@given(before=TEXT, after=TEXT, stops=STOPS, include_stop=st.booleans())
def test_what_completes_in_text_passed_over_does_not_count(
    before: str, after: str, stops: tuple[str, ...], include_stop: bool
):
    matcher = StopMatcher(stops, include_stop=include_stop)
    shown = matcher.pass_over(before)
    more, found = feed(matcher, list(after))
    text = before + after
    matches = [
        (end, stop) for end in range(len(before) + 1, len(text) + 1) for stop in stops if text[:end].endswith(stop)
    ]
    if not matches:
        assert (shown + more, found) == (text, None)
        return
    end, stop = matches[0]
    assert found == stop
    begin = end if include_stop else end - len(stop)
    assert shown + more == text[:begin]


def test_of_two_that_complete_together_the_first_of_the_list_counts():
    assert feed(StopMatcher(("bc", "abc"), include_stop=False), ["xabcd"]) == ("xa", "bc")
    assert feed(StopMatcher(("abc", "bc"), include_stop=False), ["xabcd"]) == ("x", "abc")


def test_the_earliest_to_complete_counts_even_if_another_began_before():
    assert feed(StopMatcher(("abcd", "c"), include_stop=False), ["abcd"]) == ("ab", "c")


def test_a_stop_string_across_pieces_never_leaks():
    matcher = StopMatcher(("\n\nUser:",), include_stop=False)
    assert matcher.push("Hi\n") == ("Hi", None)
    assert matcher.push("\nUs") == ("", None)
    assert matcher.push("er: me") == ("", "\n\nUser:")
    assert matcher.push("more") == ("", None)
    assert matcher.finish() == ""


def test_text_held_in_vain_is_given_back():
    matcher = StopMatcher(("END",), include_stop=False)
    assert matcher.push("EN") == ("", None)
    assert matcher.push("EMY") == ("ENEMY", None)
    assert matcher.push("the E") == ("the ", None)
    assert matcher.finish() == "E"


def test_without_stop_strings_all_text_passes():
    matcher = StopMatcher((), include_stop=False)
    assert matcher.push("abc") == ("abc", None)
    assert matcher.pass_over("def") == "def"
    assert matcher.finish() == ""


@pytest.mark.parametrize("include_stop", [False, True])
def test_a_stop_string_longer_than_the_text_shows_all_of_it(include_stop: bool):
    assert feed(StopMatcher(("abcdef",), include_stop=include_stop), ["ab", "cde"]) == ("abcde", None)
