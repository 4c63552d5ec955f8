"""Prompts from a file, from the first to the last and then from the first again.

What may be in it: a line of text each; or JSON, as lines or as one list, of

    {"prompt": text or ids}            {"messages": [...]}            "text"
    {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}]}      (ShareGPT)
    {"body": {...}}                    one of the above in a line of an OpenAI batch file

Beside a prompt, `output_tokens` or `max_tokens` says how long the answer is to be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.bench.errors import BenchError
from headrace.bench.prompts import Message, Prompt
from headrace.bench.words import Tokenizer

_ASKING = frozenset({"human", "user"})


def file_prompts(
    path: Path, *, output_tokens: int | None, default: int, tokenizer: Tokenizer | None
) -> Iterator[Prompt]:
    """The prompts of the file, for ever. Raises `BenchError` for a file that makes no sense, naming the line.

    `output_tokens` is for every answer. None leaves it to the file, for ShareGPT to the length of the answer in it
    (which needs a `tokenizer`), else to `default`.
    """

    def prompt_of(record: Any, where: str) -> Prompt:
        content, asked, answer = _content(record, where)
        if asked is None and answer is not None and tokenizer is not None:
            asked = max(1, len(tokenizer.encode(answer, add_special_tokens=False)))
        tokens = len(content) if isinstance(content, list) else None
        return Prompt(content=content, tokens=tokens, output_tokens=output_tokens or asked or default)

    prompts = [prompt_of(record, where) for where, record in _records(path)]
    if not prompts:
        raise BenchError(f"{path}: there is no prompt in it.")
    return itertools.cycle(prompts)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """What the file holds, and where each stands in it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}.") from None
    if text.lstrip().startswith("[") and path.suffix == ".json":
        for number, record in enumerate(_json(text, str(path)), 1):
            yield f"{path}, record {number}", record
        return
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {number}"
        if line.strip():
            yield where, _json(line, where) if path.suffix in (".json", ".jsonl") else line


def _json(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BenchError(f"{where}: {error}.") from None


def _content(record: Any, where: str) -> tuple[str | list[int] | tuple[Message, ...], int | None, str | None]:
    """What is asked, for how many tokens, and what the file has as the answer."""
    match record:
        case str(text) if text:
            return text, None, None
        case {"body": Mapping() as body}:
            return _content(body, where)
        case {"prompt": str(text)} if text:
            return text, _asked(record, where), None
        case {"prompt": [int(), *_] as ids} if all(type(token) is int for token in ids):
            return ids, _asked(record, where), None
        case {"messages": [{"role": str()}, *_] as messages}:
            return tuple(messages), _asked(record, where), None
        case {"conversations": [{"from": str(who), "value": str(question)}, {"value": str(answer)}, *_]} if question:
            if who in _ASKING:
                return question, None, answer
    raise BenchError(f"{where}: there is no prompt in it that could be sent.")


def _asked(record: Mapping[str, Any], where: str) -> int | None:
    asked = record.get("output_tokens", record.get("max_tokens"))
    if asked is not None and (type(asked) is not int or asked < 1):
        raise BenchError(f"{where}: its output_tokens must be a whole number of at least 1, got {asked!r}.")
    return asked
