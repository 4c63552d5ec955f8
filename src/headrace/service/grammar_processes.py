"""Helper processes that compile constraints, and die if one takes too long."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.grammar.helper import Setting, decode_compiled, encode
from headrace.service.helper_pool import HelperPool

_MODULE = "headrace.grammar.helper"
_KEPT_BYTES = 1 << 24
"""Of constraints whose grammars are remembered, with these."""


class GrammarProcesses:
    """`seconds` is what one constraint may take. Lives on one event loop."""

    def __init__(self, setting: bytes, seconds: float) -> None:
        self._seconds = seconds
        self._helpers = HelperPool(_MODULE, greeting=setting, seconds=seconds, name="headrace-grammar")
        self._running: dict[bytes, asyncio.Task[str]] = {}
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._kept_bytes = 0

    async def compile(self, params: StructuredOutputsParams) -> str:
        """The grammar of the answers that meet the constraint. Raises `BadRequest`, saying why there can be none."""
        try:
            message = encode(params)
        except (TypeError, OverflowError, RecursionError) as error:
            raise params.refusal(f"it cannot be written down: {error}.") from None
        if (grammar := self._kept.get(message)) is not None:
            self._kept.move_to_end(message)
            return grammar
        if (running := self._running.get(message)) is None:
            running = asyncio.create_task(self._compile(message, params), name="headrace-constraint")
            self._running[message] = running
            running.add_done_callback(lambda task: self._ended(message, task))
        return await asyncio.shield(running)  # others may wait for the same

    def close(self) -> None:
        """End the processes."""
        self._helpers.close()

    def _ended(self, message: bytes, task: asyncio.Task[str]) -> None:
        del self._running[message]
        if not task.cancelled():
            task.exception()  # heard, even if everybody who waited for it has gone

    async def _compile(self, message: bytes, params: StructuredOutputsParams) -> str:
        try:
            compiled = decode_compiled(await self._helpers.ask(message))
        except TimeoutError:
            raise params.refusal(f"too costly: it takes more than {self._seconds:g} s to compile.") from None
        except EOFError:
            raise params.refusal("too costly: it takes more memory than a constraint may have.") from None
        if compiled.grammar is None:
            raise BadRequest(compiled.refusal, parameter=params.parameter)
        self._keep(message, compiled.grammar)
        return compiled.grammar

    def _keep(self, message: bytes, grammar: str) -> None:
        self._kept[message] = grammar
        self._kept_bytes += len(message) + len(grammar)
        while self._kept_bytes > _KEPT_BYTES:
            forgotten, its_grammar = self._kept.popitem(last=False)
            self._kept_bytes -= len(forgotten) + len(its_grammar)


def setting_message(setting: Setting) -> bytes:
    """What each process is told first."""
    return encode(setting)
