"""`headrace embed`: texts turned into vectors by a running server."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.cli.remote import EXIT_BROKEN_PIPE, Remote, drop_output, shown, text_from_stdin
from headrace.core.errors import ConfigError

_SHOWN_VALUES = 4
_SHOWN_CHARS = 40
_MOST_COMPARED = 10
"""Texts whose likeness fits on a terminal."""


def embed(remote: Remote, texts: Sequence[str] | None, parameters: Mapping[str, Any], *, as_json: bool) -> int:
    """Print the vectors of `texts`; None is the lines of standard input. Raises `ConfigError` and `RemoteFailed`."""
    given = text_from_stdin("TEXT").splitlines() if texts is None else list(texts)
    if not given:
        raise ConfigError("TEXT needs a value: standard input is empty.")
    with remote.client() as client:
        answer = client.embed(given, **parameters)
    try:
        if as_json:
            print(msgspec.json.encode(answer).decode())
        elif sys.stdout.isatty():
            _show(given, answer.vectors)
        else:
            for vector in answer.vectors:
                print(msgspec.json.encode(vector).decode())
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        return EXIT_BROKEN_PIPE
    return 0


def _show(texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
    """What a person wants to know: how long the vectors are, how they begin, and which texts are alike."""
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), 1):
        values = ", ".join(f"{value:.4f}" for value in vector[:_SHOWN_VALUES])
        label = shown(text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…").replace("\n", " ")
        print(f"{number:>3}  {len(vector)} dimensions, length {math.hypot(*vector):.3f}  [{values}, …]  {label}")
    if not 1 < len(vectors) <= _MOST_COMPARED:
        return
    print("\nCosine similarity")
    print("   " + "".join(f"{number:>7}" for number in range(1, len(vectors) + 1)))
    for number, one in enumerate(vectors, 1):
        print(f"{number:>3}" + "".join(f"{_cosine(one, other):>7.3f}" for other in vectors))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
