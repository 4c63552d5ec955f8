"""Text to ids and back, for callers that want nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import BadRequest
from headrace.service.workers import Workers
from headrace.text import Tokenizer


class Tokenization:
    """Runs a tokenizer in the worker threads."""

    def __init__(self, tokenizer: Tokenizer, workers: Workers) -> None:
        self._tokenizer = tokenizer
        self._workers = workers

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return await self._workers.run(self._tokenizer.encode, text, add_special_tokens=add_special_tokens)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Special tokens are kept. Ids beyond the vocabulary have no text. Raises `BadRequest` for negative ids."""
        if (lowest := min(ids, default=0)) < 0:
            raise BadRequest(f"tokens must not be negative, got {lowest}.", parameter="tokens", value=lowest)
        return await self._workers.run(self._tokenizer.decode, ids, skip_special_tokens=False)
