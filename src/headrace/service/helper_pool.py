"""A few helper processes of one kind, each asked one thing at a time, and killed if it takes too long."""

from __future__ import annotations

import asyncio
import contextlib

from headrace.core.errors import EngineError
from headrace.core.helper_process import HelperProcess
from headrace.service.workers import Workers

_MOST = 2
_START_SECONDS = 60.0


class HelperPool:
    """Processes that run `module`. Each is told `greeting` first, and answers once it is ready.

    Started when the first question comes; idle ones are kept. Questions beyond their number wait in order. `seconds` is
    what one may take. `name` is that of the threads that wait for answers. Lives on one event loop.
    """

    def __init__(self, module: str, *, greeting: bytes, seconds: float, name: str) -> None:
        self._module = module
        self._greeting = greeting
        self._seconds = seconds
        self._places = asyncio.Semaphore(_MOST)
        self._threads = Workers(name)
        self._idle: list[HelperProcess] = []
        self._busy: set[HelperProcess] = set()

    async def ask(self, message: bytes) -> bytes:
        """What a process answers. Raises `TimeoutError` if it takes more than its time, `EOFError` if it dies of the
        question, `EngineError` if none can be started.
        """
        async with self._places:
            if (helper := self._idle_one()) is not None:
                # One that was kept may have died before it was asked: only a new one's death tells of the question.
                with contextlib.suppress(EOFError):
                    return await self._asked(helper, message)
            return await self._asked(await self._start(), message)

    def close(self) -> None:
        """End the processes."""
        for helper in (*self._idle, *self._busy):
            helper.kill()
        self._idle.clear()
        self._threads.close()

    def _idle_one(self) -> HelperProcess | None:
        while self._idle:
            if (helper := self._idle.pop()).is_alive:
                return helper
        return None

    async def _start(self) -> HelperProcess:
        helper = HelperProcess(self._module)
        try:
            await self._answer(helper, self._greeting, _START_SECONDS)
        except (TimeoutError, EOFError):
            raise EngineError(f"{self._module} cannot be started.") from None
        return helper

    async def _asked(self, helper: HelperProcess, message: bytes) -> bytes:
        answer = await self._answer(helper, message, self._seconds)
        self._idle.append(helper)
        return answer

    async def _answer(self, helper: HelperProcess, message: bytes, seconds: float) -> bytes:
        """One that has not answered, for whatever reason, is killed."""
        self._busy.add(helper)
        try:
            return await asyncio.wait_for(self._threads.run(helper.ask, message), seconds)
        except BaseException:
            helper.kill()
            raise
        finally:
            self._busy.discard(helper)
