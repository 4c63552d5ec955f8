"""`headrace complete`: a text continued by a running server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.cli.candidates import draw_side_by_side, print_one_by_one
from headrace.cli.remote import EXIT_BROKEN_PIPE, Remote, drop_output, shown, text_from_stdin
from headrace.client import Client, Completion


def complete(
    remote: Remote, prompt: str | None, parameters: Mapping[str, Any], *, stream: bool | None, as_json: bool
) -> int:
    """Print how `prompt` goes on; None is standard input. `stream` None: streamed, unless it is JSON.

    Raises `ConfigError` and `RemoteFailed`.
    """
    text = text_from_stdin("PROMPT") if prompt is None else prompt
    streamed = stream if stream is not None else not as_json
    with remote.client() as client:
        try:
            if as_json:
                _print_json(client, text, parameters, stream=streamed)
            else:
                _print_text(client, text, parameters, stream=streamed)
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
            return EXIT_BROKEN_PIPE
    return 0


def _print_json(client: Client, prompt: str, parameters: Mapping[str, Any], *, stream: bool) -> None:
    """One object, or one a line for each chunk."""
    if not stream:
        _print_line(client.complete(prompt, **parameters))
        return
    with client.complete(prompt, stream=True, **parameters) as chunks:
        for chunk in chunks:
            _print_line(chunk)


def _print_line(completion: Completion) -> None:
    print(msgspec.json.encode(completion).decode(), flush=True)


def _print_text(client: Client, prompt: str, parameters: Mapping[str, Any], *, stream: bool) -> None:
    """Several texts are drawn as they grow on a terminal, and come one after the other elsewhere."""
    count = parameters.get("n") or 1
    terminal = sys.stdout.isatty()
    if not stream or (count > 1 and not terminal):
        print_one_by_one([choice.text for choice in client.complete(prompt, **parameters).choices], terminal=terminal)
        return
    with client.complete(prompt, stream=True, **parameters) as chunks:
        if count > 1:
            draw_side_by_side(
                ((choice.index, choice.text) for chunk in chunks for choice in chunk.choices), [""] * count
            )
            return
        last = ""
        for chunk in chunks:
            last = chunk.text or last
            print(shown(chunk.text) if terminal else chunk.text, end="", flush=True)
        if not last.endswith("\n"):
            print()
