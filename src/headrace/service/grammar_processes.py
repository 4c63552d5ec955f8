"""Helper processes that compile constraints, and die if one takes too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict

from headrace.core.errors import BadRequest, EngineError
from headrace.core.helper_process import HelperProcess
from headrace.core.structured import StructuredOutputsParams
from headrace.grammar.helper import Setting, decode_compiled, encode
from headrace.service.workers import Workers

_MODULE = "headrace.grammar.helper"
_MOST = 2
_START_SECONDS = 60.0
_KEPT_BYTES = 1 << 24
"""Of constraints whose grammars are remembered, with these."""


class GrammarProcesses:
    """Started when the first constraint comes; idle ones are kept. Constraints beyond their number wait in order.

    `seconds` is what one constraint may take. Lives on one event loop.
    """

    def __init__(self, setting: bytes, seconds: float) -> None:
        self._setting = setting
        self._seconds = seconds
        self._places = asyncio.Semaphore(_MOST)
        self._threads = Workers("headrace-grammar")
        self._idle: list[HelperProcess] = []
        self._busy: set[HelperProcess] = set()
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
        for helper in (*self._idle, *self._busy):
            helper.kill()
        self._idle.clear()
        self._threads.close()

    def _ended(self, message: bytes, task: asyncio.Task[str]) -> None:
        del self._running[message]
        if not task.cancelled():
            task.exception()  # heard, even if everybody who waited for it has gone

    async def _compile(self, message: bytes, params: StructuredOutputsParams) -> str:
        async with self._places:
            compiled = decode_compiled(await self._ask(message, params))
        if compiled.grammar is None:
            raise BadRequest(compiled.refusal, parameter=params.parameter)
        self._keep(message, compiled.grammar)
        return compiled.grammar

    async def _ask(self, message: bytes, params: StructuredOutputsParams) -> bytes:
        try:
            if (helper := self._idle_one()) is not None:
                # One that was kept may have died before it was asked: only a new one's death tells of the constraint.
                with contextlib.suppress(EOFError):
                    return await self._compiled_by(helper, message)
            return await self._compiled_by(await self._start(), message)
        except TimeoutError:
            raise params.refusal(f"too costly: it takes more than {self._seconds:g} s to compile.") from None
        except EOFError:
            raise params.refusal("too costly: it takes more memory than a constraint may have.") from None

    async def _compiled_by(self, helper: HelperProcess, message: bytes) -> bytes:
        compiled = await self._answer(helper, message, self._seconds)
        self._idle.append(helper)
        return compiled

    def _idle_one(self) -> HelperProcess | None:
        while self._idle:
            if (helper := self._idle.pop()).is_alive:
                return helper
        return None

    async def _start(self) -> HelperProcess:
        """Raises `EngineError` if it does not come up, which is no fault of a constraint."""
        helper = HelperProcess(_MODULE)
        try:
            await self._answer(helper, self._setting, _START_SECONDS)
        except (TimeoutError, EOFError):
            raise EngineError("The process that compiles constraints cannot be started.") from None
        return helper

    async def _answer(self, helper: HelperProcess, message: bytes, seconds: float) -> bytes:
        """What a process makes of a task. One that has not answered, for whatever reason, is killed."""
        self._busy.add(helper)
        try:
            return await asyncio.wait_for(self._threads.run(helper.ask, message), seconds)
        except BaseException:
            helper.kill()
            raise
        finally:
            self._busy.discard(helper)

    def _keep(self, message: bytes, grammar: str) -> None:
        self._kept[message] = grammar
        self._kept_bytes += len(message) + len(grammar)
        while self._kept_bytes > _KEPT_BYTES:
            forgotten, its_grammar = self._kept.popitem(last=False)
            self._kept_bytes -= len(forgotten) + len(its_grammar)


def setting_message(setting: Setting) -> bytes:
    """What each process is told first."""
    return encode(setting)
