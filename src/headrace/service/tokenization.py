"""Text to ids and back, for callers that want nothing else; and what a server says that has no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import BadRequest, NotPermitted
from headrace.service.workers import Workers
from headrace.text import Tokenizer


def required_tokenizer(tokenizer: Tokenizer | None, *, parameter: str | None) -> Tokenizer:
    """`tokenizer` itself. Raises `NotPermitted`, naming the parameter that asks for text, where there is none."""
    if tokenizer is None:
        raise NotPermitted(
            "This server was started with --tokens-only: it has no tokenizer and speaks only token ids.",
            parameter=parameter,
        )
    return tokenizer


class Tokenization:
    """Runs a tokenizer in the worker threads. Raises `NotPermitted` if there is none."""

    def __init__(self, tokenizer: Tokenizer | None, workers: Workers) -> None:
        self._tokenizer = tokenizer
        self._workers = workers

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        tokenizer = required_tokenizer(self._tokenizer, parameter="prompt")
        return await self._workers.run(tokenizer.encode, text, add_special_tokens=add_special_tokens)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Special tokens are kept. Ids beyond the vocabulary have no text. Raises `BadRequest` for negative ids."""
        tokenizer = required_tokenizer(self._tokenizer, parameter="tokens")
        if (lowest := min(ids, default=0)) < 0:
            raise BadRequest(f"tokens must not be negative, got {lowest}.", parameter="tokens", value=lowest)
        return await self._workers.run(tokenizer.decode, ids, skip_special_tokens=False)
