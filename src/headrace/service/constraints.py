"""The form that answers must have, compiled before anything is generated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.config.structured import StructuredOutputsConfig
from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.runtime.client import EngineClient
from headrace.service.tokenization import required_tokenizer
from headrace.service.workers import Workers
from headrace.text import Tokenizer

if TYPE_CHECKING:
    from headrace.service.grammar_processes import GrammarProcesses

log = logging.getLogger(__name__)

LONGEST_SECONDS = 10.0
"""What compiling one constraint may take."""


class Constraints:
    """Compiles constraints for one model. What that needs is made for the first of them, here and in the engine.

    `eos_token_ids` are all ids that end an answer. Lives on the event loop; the work is done in processes, so that a
    constraint which cannot be read in any time holds up nothing.
    """

    def __init__(
        self,
        engine: EngineClient,
        tokenizer: Tokenizer | None,
        workers: Workers,
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        config: StructuredOutputsConfig,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._workers = workers
        self._vocab_size = vocab_size
        self._eos_token_ids = [token_id for token_id in eos_token_ids if token_id < vocab_size]
        self._config = config
        self._starting: asyncio.Task[None] | None = None
        self._processes: GrammarProcesses | None = None

    async def compile(self, params: StructuredOutputsParams) -> str:
        """The grammar for the engine. Raises `BadRequest`, saying why the constraint cannot be met or costs too much,
        and `NotPermitted` on a server that speaks only token ids.
        """
        tokenizer = required_tokenizer(self._tokenizer, parameter=params.parameter)
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = asyncio.create_task(self._start(tokenizer), name="headrace-grammar")
        await asyncio.shield(self._starting)  # who stops waiting does not stop the others
        assert self._processes is not None
        config = self._config
        asked = replace(
            params,
            disable_any_whitespace=params.disable_any_whitespace or config.disable_any_whitespace,
            disable_additional_properties=params.disable_additional_properties or config.disable_additional_properties,
        )
        return await self._processes.compile(asked)

    def close(self) -> None:
        """End the processes."""
        if self._processes is not None:
            self._processes.close()

    async def _start(self, tokenizer: Tokenizer) -> None:
        if self._config.asks_for_another:
            log.info("Structured outputs are served by llguidance; backend=%s is taken for that.", self._config.backend)
        vocabulary = await self._workers.run(self._vocabulary, tokenizer)
        self._engine.learn(vocabulary)
        self._processes = await self._workers.run(_new_processes, vocabulary, self._vocab_size)

    def _vocabulary(self, tokenizer: Tokenizer) -> Vocabulary:
        if not self._eos_token_ids:
            raise BadRequest("Structured outputs need a model with an end-of-sequence token, and this one has none.")
        if (vocabulary := tokenizer.vocabulary(self._eos_token_ids)) is None:
            raise BadRequest(
                "Structured outputs need to know the bytes of each token, and this model's tokenizer does not say them."
            )
        return vocabulary


def _new_processes(vocabulary: Vocabulary, vocab_size: int) -> GrammarProcesses:
    # llguidance, which most servers never need
    from headrace.grammar.helper import Setting
    from headrace.service.grammar_processes import GrammarProcesses, setting_message

    setting = Setting(vocabulary, vocab_size, cpu_seconds=2 * LONGEST_SECONDS)
    return GrammarProcesses(setting_message(setting), LONGEST_SECONDS)
