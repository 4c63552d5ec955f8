"""Any sequence of operations, with crashes in between, against a model of what the store promises."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from job_tools import NO_LIMITS, SCOPE
from sqlalchemy import func, select

from headrace.core.errors import HeadraceError
from headrace.jobs import Job, JobPolicy, JobStatus, Submission, moves, records, submitting, sweeping
from headrace.jobs.moves import Attempt
from headrace.jobs.sqlite import SqliteDatabase
from headrace.jobs.tables import chunks, inputs, jobs
from headrace.jobs.transaction import Transaction, Turns
from headrace.jobs.types import TRANSITIONS

TTL = 10_000
RETENTION = 5_000
WORKERS = ("w-1", "w-2")
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMED_OUT)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-jobs-"))
        self.database = SqliteDatabase(self.folder)
        self.turns = Turns(0)
        self.now = 1_800_000_000_000
        self.accepted: list[str] = []
        self.attempts: list[Attempt] = []  # every one that was ever handed out
        self.seen: dict[str, Job] = {}
        self.totals = dict.fromkeys(("completed", "failed", "cancelled", "timed_out"), 0)

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    def write(self, operation: Any, *arguments: Any, **options: Any) -> Any:
        with self.database.writer.begin() as connection:
            transaction = Transaction(connection, self.turns)
            try:
                result = operation(transaction, *arguments, **options)
            except HeadraceError as problem:
                result = problem
            transaction.finish(self.database.announce)
        return result

    @rule(low=st.booleans())
    def submit(self, low: bool) -> None:
        policy = JobPolicy(ttl=TTL, low_priority=low)
        new = submitting.NewJob(SCOPE, Submission(input={}, policy=policy), RETENTION, NO_LIMITS)
        self.accepted.append(self.write(new.insert, self.now).id)

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def take(self, worker: str, limit: int) -> None:
        self.write(sweeping.renew_lease, worker, self.now + 3000)
        started = self.write(moves.start_next, "default", worker, limit, self.now)
        self.attempts += [Attempt(job.id, job.attempt) for job, _ in started]
        assert len(set(self.attempts)) == len(self.attempts), "an attempt was handed out twice"

    @rule(data=st.data(), status=st.sampled_from(ENDED))
    def end(self, data: st.DataObject, status: JobStatus) -> None:
        if self.attempts:
            attempt = data.draw(st.sampled_from(self.attempts))
            before = self.job(attempt.job_id)
            won = self.write(moves.end, attempt, status, self.now, error=None, first=0, bodies=[b"1"])
            current = before is not None and before.attempt == attempt.number
            assert won == (current and before.status is JobStatus.IN_PROGRESS)

    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        if self.attempts:
            self.write(moves.offer, data.draw(st.sampled_from(self.attempts)))

    @rule(data=st.data(), lost=st.booleans())
    def abandon(self, data: st.DataObject, lost: bool) -> None:
        if self.attempts:
            self.write(moves.abandon, data.draw(st.sampled_from(self.attempts)), self.now, lost=lost)

    @rule(data=st.data(), operation=st.sampled_from([moves.cancel, moves.retry]))
    def change(self, data: st.DataObject, operation: Any) -> None:
        if self.accepted:
            more = [NO_LIMITS] if operation is moves.retry else []
            self.write(operation, SCOPE, data.draw(st.sampled_from(self.accepted)), self.now, *more)

    @rule()
    def purge(self) -> None:
        self.write(moves.purge, SCOPE, self.now, 2, self.now)

    @rule(milliseconds=st.sampled_from([1, 1000, 4000, 11_000]))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule()
    def sweep(self) -> None:
        self.write(sweeping.sweep, self.now)
        self.write(sweeping.reap, self.now)

    @rule()
    def crash_and_restart(self) -> None:
        self.database.close()
        self.database = SqliteDatabase(self.folder)
        self.write(sweeping.take_over)
        self.write(sweeping.reap, self.now)
        assert not any(job.status is JobStatus.IN_PROGRESS for job in self.all_jobs().values())

    def job(self, job_id: str) -> Job | None:
        return self.all_jobs().get(job_id)

    def all_jobs(self) -> dict[str, Job]:
        with self.database.reader.connect() as connection:
            rows = connection.execute(select(*records.JOB_COLUMNS)).all()
        return {row.id: records.job_of(row) for row in rows}

    @invariant()
    def every_change_was_a_move_of_the_table(self) -> None:
        found = self.all_jobs()
        for job_id in self.accepted:
            before, after = self.seen.get(job_id), found.get(job_id)
            if after is None:
                assert before is None or before.status.terminal, "a live job has vanished"
            elif before is not None and before.status is not after.status:
                assert reachable(before.status, after.status), (before.status, after.status)
        for job_id, job in found.items():
            before = self.seen.get(job_id)
            if before is not None and before.status in (JobStatus.COMPLETED, JobStatus.CANCELLED):
                assert (job.status, job.finished_at, job.attempt) == (before.status, before.finished_at, before.attempt)
        self.seen = found

    @invariant()
    def the_counters_are_those_of_the_rows(self) -> None:
        found = [job.status for job in self.all_jobs().values()]
        with self.database.reader.connect() as connection:
            counts = records.count(connection, "default")
            left = connection.execute(select(func.count()).select_from(inputs)).scalar_one()
            orphans = select(func.count()).where(chunks.c.job_id.not_in(select(jobs.c.id)))
            assert connection.execute(orphans).scalar_one() == 0
        assert left == len(found)
        assert counts.in_queue == found.count(JobStatus.IN_QUEUE)
        assert counts.in_progress == found.count(JobStatus.IN_PROGRESS)
        for name in self.totals:
            total = getattr(counts, name)
            assert total >= max(self.totals[name], found.count(JobStatus(name.upper())))
            self.totals[name] = total


def reachable(start: JobStatus, end: JobStatus) -> bool:
    """In one operation: at most what a single transaction can do to a job."""
    return end in TRANSITIONS[start]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
