"""Has the lines of a batch answered, a window of them at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.batch.lines import (
    BatchRequest,
    InputLine,
    LineRefused,
    answered,
    read_request,
    refused,
    unanswered,
)
from headrace.batch.record import BatchRecord, Claim
from headrace.client import (
    AsyncClient,
    AuthenticationError,
    ClientError,
    ConnectFailed,
    PermissionDeniedError,
    StatusError,
)

SYNC_SECONDS = 1.0
"""How often what was answered is made safe against a crash of the machine. Against one of the process it always is."""


@dataclass(slots=True)
class Tally:
    """Lines by what became of them; `read_bytes` of the input. `skipped`: answered by an earlier run."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    read_bytes: int = 0


class BatchRun:
    """One pass over the input. Memory holds `concurrency` lines and their answers, whatever the size of the files.

    `on_progress` is called with the tally after each line.
    """

    def __init__(
        self,
        client: AsyncClient,
        lines: Iterator[InputLine],
        record: BatchRecord,
        *,
        concurrency: int,
        on_progress: Callable[[Tally], None],
    ) -> None:
        self._client = client
        self._lines = lines
        self._record = record
        self._concurrency = concurrency
        self._on_progress = on_progress
        self.tally = Tally()

    async def run(self) -> None:
        """Until every line is recorded.

        A request that fails is recorded with its error. Raises what would fail all of them: `ConnectFailed` if the
        server is gone, `AuthenticationError` and `PermissionDeniedError`, `OSError` if the output cannot be written;
        then, and if it is cancelled, the lines that were not recorded are as if they had never been asked.
        """
        syncing = asyncio.create_task(self._sync_now_and_then())
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._concurrency):
                    workers.create_task(self._work())
        except BaseExceptionGroup as problems:
            raise _first(problems) from None
        finally:
            syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await syncing  # it may have ended by itself, with an `OSError`

    async def _work(self) -> None:
        while (request := self._next_request()) is not None:
            line, succeeded = await self._answer(request)
            self._record.append(line)
            self._count(request.line, succeeded=succeeded)

    def _next_request(self) -> BatchRequest | None:
        """The next one that is to be sent. Lines that cannot be sent are recorded on the way."""
        for line in self._lines:
            try:
                request = read_request(line)
            except LineRefused as refusal:
                self._refuse(line, refusal)
                continue
            match self._record.claim(request.custom_id, line.id):
                case Claim.NEW:
                    return request
                case Claim.ANSWERED:
                    self._skip(line)
                case Claim.DUPLICATE:
                    message = f"Line {line.number}: an earlier line has the custom_id {request.custom_id!r} already."
                    self._write_failure(line, None, "duplicate_custom_id", message)
        return None

    def _refuse(self, line: InputLine, refusal: LineRefused) -> None:
        match self._record.claim(refusal.custom_id, line.id):
            case Claim.NEW:
                self._write_failure(line, refusal.custom_id, refusal.code, refusal.message)
            case Claim.ANSWERED:
                self._skip(line)
            case Claim.DUPLICATE:  # the name belongs to an earlier line, and so does its place in the output
                self._write_failure(line, None, refusal.code, refusal.message)

    async def _answer(self, request: BatchRequest) -> tuple[bytes, bool]:
        """The output line, and whether it is that of a success."""
        try:
            answer = await self._client.post(request.path, request.body)
        except (ConnectFailed, AuthenticationError, PermissionDeniedError):
            raise
        except StatusError as error:
            return refused(request, error.status, error.body, error.request_id, error.message), False
        except ClientError as error:
            return unanswered(request.line, request.custom_id, "no_answer", error.message), False
        return answered(request, answer.body, answer.request_id), True

    def _write_failure(self, line: InputLine, custom_id: str | None, code: str, message: str) -> None:
        self._record.append(unanswered(line, custom_id, code, message))
        self._count(line, succeeded=False)

    def _skip(self, line: InputLine) -> None:
        self.tally.skipped += 1
        self.tally.read_bytes += line.size
        self._on_progress(self.tally)

    def _count(self, line: InputLine, *, succeeded: bool) -> None:
        if succeeded:
            self.tally.succeeded += 1
        else:
            self.tally.failed += 1
        self.tally.read_bytes += line.size
        self._on_progress(self.tally)

    async def _sync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self._record.sync)


def _first(problems: BaseExceptionGroup[BaseException]) -> BaseException:
    """Many workers may fail of the same cause."""
    problem: BaseException = problems
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem
