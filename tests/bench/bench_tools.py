"""A sweep over a `ClockServer`, with the defaults that most tests want."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clock_server import MODEL, ClockServer

from headrace.bench.endpoints import Asking, Endpoint
from headrace.bench.prompts import Lengths, random_prompts
from headrace.bench.sweep import Level, Sweep
from headrace.bench.target import server_tokenizer
from headrace.bench.words import all_words, one_token_words
from headrace.client.settings import Settings

PROMPT_TOKENS = 12
OUTPUT_TOKENS = 8


def settings_of(server: ClockServer, key: str = "") -> Settings:
    return Settings.of(server.url, key, None, None)


def sweep_of(
    server: ClockServer,
    *levels: Level,
    endpoint: Endpoint = Endpoint.COMPLETIONS,
    output_tokens: int = OUTPUT_TOKENS,
    as_ids: bool = True,
    extra: Mapping[str, Any] | None = None,
    key: str = "",
    **options: Any,
) -> Sweep:
    settings = settings_of(server, key)
    tokenizer = server_tokenizer(settings, MODEL) if server.behaviour.tokenizes else None
    words = all_words() if tokenizer is None else one_token_words(tokenizer)
    lengths = Lengths(prompt_tokens=PROMPT_TOKENS, output_tokens=output_tokens)
    return Sweep(
        settings=settings,
        asking=Asking(endpoint=endpoint, model=MODEL, ignore_eos=True, extra=extra or {}),
        prompts=random_prompts(words, lengths, as_ids=as_ids and tokenizer is not None, seed=options.get("seed", 0)),
        dataset={"name": "random"},
        levels=levels,
        tokenizer=tokenizer,
        **{"warmup_requests": 0, **options},
    )
