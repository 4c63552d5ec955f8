"""Every change of the store, on SQLite and on PostgreSQL, at times that the test decides."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

import pytest
from job_tools import MINUTE, RETENTION, SCOPE, attempt_of, finish, open_store, put, take
from sqlalchemy import event, select, text

from headrace.jobs import (
    IdempotencyConflict,
    JobCounts,
    JobNotFound,
    JobPolicy,
    JobStatus,
    QueueFull,
    Scope,
    StoreInUse,
    StoreUnusable,
    WrongState,
    moves,
    outbox,
    records,
    sweeping,
)
from headrace.jobs.sqlite import SqliteDatabase
from headrace.jobs.store import Store
from headrace.jobs.tables import chunks, inputs, jobs, schema

T = 1_800_000_000_000


def counts(**fields: int) -> JobCounts:
    return JobCounts(**fields)


async def look(store: Store, job_id: str, now: int = T, scope: Scope = SCOPE):
    return await store.read(records.find_with_output, scope, job_id, now)


def in_store(config_of, test, **fields):
    async def main():
        async with open_store(config_of(**fields)) as store:
            await test(store)

    asyncio.run(main())


def test_a_job_from_submission_to_its_result(config_of):
    async def test(store: Store):
        job = await put(store, T, input={"prompt": "x"}, webhook="http://example.test/")
        assert (job.status, job.delay_time, job.execution_time) == (JobStatus.IN_QUEUE, None, None)
        assert await look(store, job.id) == job
        await store.write(sweeping.renew_lease, "w-7", T + MINUTE)
        ((started, job_input),) = await store.write(moves.start_next, "default", "w-7", 5, T + 40)
        assert job_input == {"prompt": "x"}
        assert (started.status, started.delay_time, started.worker_id) == (JobStatus.IN_PROGRESS, 40, "w-7")
        assert await store.write(moves.add_chunks, attempt_of(started), 0, [b"1", b"2"])
        assert (await look(store, job.id)).output is None
        assert await finish(store, started, T + 1000, first=2, bodies=(b"3",))
        done = await look(store, job.id)
        assert (done.status, done.output, done.chunk_count) == (JobStatus.COMPLETED, (b"1", b"2", b"3"), 3)
        assert (done.delay_time, done.execution_time, done.attempt, done.retries) == (40, 960, 1, 0)
        assert await store.read(records.count, "default") == counts(completed=1)

    in_store(config_of, test)


def test_jobs_are_taken_in_the_order_of_submission_and_low_priority_ones_last(config_of):
    async def test(store: Store):
        low = [await put(store, T, policy=JobPolicy(low_priority=True)) for _ in range(2)]
        normal = [await put(store, T + later) for later in (0, 0, 5, 1)]  # a clock that is set back changes nothing
        assert [job.id for job in await take(store, T + 10)] == [job.id for job in [*normal, *low]]

    in_store(config_of, test)


def test_a_low_priority_job_gets_its_turn_before_it_expires(config_of):
    async def test(store: Store):
        low = await put(store, T, policy=JobPolicy(low_priority=True, ttl=10 * MINUTE))
        before = await put(store, T + 5 * MINUTE - 1)
        after = await put(store, T + 5 * MINUTE + 1)
        assert [job.id for job in await take(store, T + 6 * MINUTE)] == [before.id, low.id, after.id]

    in_store(config_of, test)


def test_a_job_is_given_to_one_worker_only(config_of):
    async def test(store: Store):
        ids = {(await put(store, T)).id for _ in range(6)}
        taken = await asyncio.gather(*(take(store, T, limit=2, worker=f"w-{number}") for number in range(4)))
        assert sorted(job.id for some in taken for job in some) == sorted(ids)
        assert await take(store, T, endpoint="other") == []

    in_store(config_of, test)


def test_what_an_old_attempt_says_is_dropped(config_of):
    async def test(store: Store):
        await put(store, T)
        (first,) = await take(store, T)
        await store.write(moves.abandon, attempt_of(first), T, lost=True)
        (second,) = await take(store, T)
        assert not await store.write(moves.add_chunks, attempt_of(first), 0, [b"old"])
        assert not await store.write(moves.offer, attempt_of(first))
        assert not await finish(store, first, T, bodies=(b"old",))
        await store.write(moves.abandon, attempt_of(first), T, lost=True)
        assert await finish(store, second, T, bodies=(b"new",))
        assert not await finish(store, second, T, JobStatus.FAILED, error="late")
        assert (await look(store, first.id)).output == (b"new",)

    in_store(config_of, test)


def test_chunks_that_were_stored_by_a_commit_that_seemed_to_fail_are_not_stored_twice(config_of):
    async def test(store: Store):
        await put(store, T)
        (job,) = await take(store, T)
        for _ in range(2):
            assert await store.write(moves.add_chunks, attempt_of(job), 0, [b"1", b"2"])
        await finish(store, job, T, first=2)
        assert (await look(store, job.id)).output == (b"1", b"2")

    in_store(config_of, test)


def test_the_crash_rule_is_one_more_attempt_then_failure(config_of):
    async def test(store: Store):
        first, behind = await put(store, T), await put(store, T)
        (job,) = await take(store, T + 5, limit=1)
        await store.write(moves.add_chunks, attempt_of(job), 0, [b"half"])
        await store.write(moves.abandon, attempt_of(job), T + 9, lost=True)
        waiting = await look(store, first.id)
        assert (waiting.status, waiting.retries, waiting.delay_time) == (JobStatus.IN_QUEUE, 1, None)
        again, _ = await take(store, T + 70)
        assert (again.id, again.delay_time, again.chunk_count) == (
            first.id,
            70,
            0,
        )  # at its old place
        await store.write(moves.abandon, attempt_of(again), T + 99, lost=True)
        failed = await look(store, first.id)
        assert (failed.status, failed.error) == (JobStatus.FAILED, "job timed out after 1 retries")
        assert (failed.retries, failed.execution_time, failed.output) == (1, 29, None)
        assert await store.read(records.count, "default") == counts(in_progress=1, failed=1, retried=1)
        assert (await look(store, behind.id)).status is JobStatus.IN_PROGRESS

    in_store(config_of, test)


def test_a_lost_job_of_whose_stream_something_was_delivered_fails(config_of):
    async def test(store: Store):
        for note in (moves.offer, moves.deliver):
            await put(store, T)
            (job,) = await take(store, T)
            await store.write(moves.add_chunks, attempt_of(job), 0, [b"1"])
            await (
                store.write(note, attempt_of(job)) if note is moves.offer else store.write(note, attempt_of(job), 0, 1)
            )
            await store.write(moves.abandon, attempt_of(job), T, lost=True)
            failed = await look(store, job.id)
            assert (failed.status, failed.retries) == (JobStatus.FAILED, 0)
            assert "part of the stream had been delivered" in failed.error

    in_store(config_of, test)


def test_a_worker_that_stops_in_good_order_costs_no_retry(config_of):
    async def test(store: Store):
        await put(store, T)
        for _ in range(3):
            (job,) = await take(store, T)
            await store.write(moves.abandon, attempt_of(job), T, lost=False)
        waiting = await look(store, job.id)
        assert (waiting.status, waiting.retries, waiting.attempt) == (JobStatus.IN_QUEUE, 0, 3)

    in_store(config_of, test)


def test_cancelling(config_of):
    async def test(store: Store):
        queued, running = await put(store, T), await put(store, T + 1)
        assert (await store.write(moves.cancel, SCOPE, queued.id, T + 2)).status is JobStatus.CANCELLED
        (job,) = await take(store, T + 3)
        await store.write(moves.add_chunks, attempt_of(job), 0, [b"1"])
        cancelled = await store.write(moves.cancel, SCOPE, running.id, T + 9)
        assert (cancelled.status, cancelled.execution_time) == (JobStatus.CANCELLED, 6)
        assert not await finish(store, job, T + 10)
        assert await store.write(moves.cancel, SCOPE, running.id, T + 11) == cancelled
        _, _, left = await store.read(records.find_page, SCOPE, running.id, T + 11, 0)
        assert left == ()
        await put(store, T)
        (done,) = await take(store, T)
        await finish(store, done, T)
        assert (await store.write(moves.cancel, SCOPE, done.id, T)).status is JobStatus.COMPLETED
        assert await store.read(records.count, "default") == counts(completed=1, cancelled=2)

    in_store(config_of, test)


def test_retrying_starts_from_nothing_at_the_end_of_the_queue(config_of):
    async def test(store: Store):
        await put(store, T)
        (job,) = await take(store, T)
        await store.write(moves.add_chunks, attempt_of(job), 0, [b"1"])
        await store.write(moves.deliver, attempt_of(job), 0, 1)
        await finish(store, job, T, JobStatus.FAILED, error="no", first=1)
        ahead = await put(store, T + 1)
        again = await store.write(moves.retry, SCOPE, job.id, T + 50, (10, 1000))
        assert (again.status, again.error, again.retries, again.delivered) == (JobStatus.IN_QUEUE, None, 0, 0)
        assert [taken.id for taken in await take(store, T + 60)] == [ahead.id, job.id]
        (again,) = [taken for taken in [await look(store, job.id)] if taken.attempt == 2]
        assert again.delay_time == 10
        assert await finish(store, again, T + 70, bodies=(b"2",))
        assert (await look(store, job.id)).output == (b"2",)
        for status in (JobStatus.COMPLETED, JobStatus.IN_PROGRESS):
            with pytest.raises(WrongState, match=status):
                await store.write(moves.retry, SCOPE, job.id if status.terminal else ahead.id, T + 80, (10, 1000))
        assert await store.read(records.count, "default") == counts(in_progress=1, completed=1, failed=1)

    in_store(config_of, test)


def test_purging_takes_what_waits_and_nothing_else(config_of):
    async def test(store: Store):
        running = await put(store, T)
        await take(store, T)
        waiting = [await put(store, T) for _ in range(5)]
        elsewhere = await put(store, T, scope=Scope("other"))
        of_another = await put(store, T, scope=Scope("default", "somebody"))
        late = await put(store, T + 10)
        assert [await store.write(moves.purge, SCOPE, T + 5, 3, T + 20) for _ in range(3)] == [3, 2, 0]
        assert [(await look(store, job.id)).status for job in waiting] == [JobStatus.CANCELLED] * 5
        assert (await look(store, running.id)).status is JobStatus.IN_PROGRESS
        for job, scope in ((elsewhere, Scope("other")), (of_another, Scope("default", "somebody")), (late, SCOPE)):
            assert (await look(store, job.id, scope=scope)).status is JobStatus.IN_QUEUE

    in_store(config_of, test)


def test_nobody_sees_or_changes_the_jobs_of_another(config_of):
    async def test(store: Store):
        job = await put(store, T, scope=Scope("default", "me"))
        for stranger in (Scope("default", "you"), Scope("default"), Scope("other", "me")):
            for attempt in (
                store.read(records.find_with_output, stranger, job.id, T),
                store.read(records.find_page, stranger, job.id, T, None),
                store.write(moves.cancel, stranger, job.id, T),
                store.write(moves.retry, stranger, job.id, T, (1, 1)),
                store.write(moves.expire_in, stranger, job.id, 0, T),
            ):
                with pytest.raises(JobNotFound):
                    await attempt
            assert await store.read(records.find_all, stranger, None, 10, T) == []
        assert (await look(store, job.id, scope=Scope("default", "me"))).status is JobStatus.IN_QUEUE

    in_store(config_of, test)


def test_the_ttl_ends_waiting_and_running_jobs(config_of):
    async def test(store: Store):
        policy = JobPolicy(ttl=1000)
        running = await put(store, T, policy=policy)
        (job,) = await take(store, T)
        waiting = await put(store, T, policy=policy)
        assert (await store.write(sweeping.sweep, T + 999)).expired == []
        assert await take(store, T + 1000) == []  # too late, swept or not
        assert (await store.write(sweeping.sweep, T + 1000)).expired == [attempt_of(job)]
        for job_id, started in ((running.id, T), (waiting.id, None)):
            ended = await look(store, job_id)
            assert (ended.status, ended.error) == (JobStatus.TIMED_OUT, "job TTL expired")
            assert (ended.started_at, ended.finished_at) == (started, T + 1000)
        assert not await finish(store, job, T + 1001)

    in_store(config_of, test)


def test_results_are_kept_for_their_time_and_then_forgotten_with_all_that_belongs_to_them(config_of):
    async def test(store: Store):
        await put(store, T)
        (job,) = await take(store, T)
        await finish(store, job, T + 5, bodies=(b"1",))
        end = T + 5 + RETENTION
        await store.write(sweeping.sweep, end - 1)
        assert (await look(store, job.id, end - 1)).output == (b"1",)
        with pytest.raises(JobNotFound):  # before the sweeper comes
            await look(store, job.id, end)
        await store.write(sweeping.sweep, end)
        for table in (jobs, inputs, chunks):
            rows = await store.read(lambda connection, table=table: connection.execute(select(table)).all())
            assert rows == []
        assert await store.read(records.count, "default") == counts(completed=1)

    in_store(config_of, test)


def test_a_result_is_not_forgotten_before_its_webhook_is_settled(config_of):
    async def test(store: Store):
        await put(store, T, webhook="http://example.test/")
        (job,) = await take(store, T)
        await finish(store, job, T)
        end = T + RETENTION
        await store.write(sweeping.sweep, end)
        with pytest.raises(JobNotFound):
            await look(store, job.id, end)
        assert (await store.read(records.find_for_webhook, job.id))[0].status is JobStatus.COMPLETED
        assert await store.write(outbox.take_due, 5, end + 1000, end) == [(job.id, 1)]
        assert await store.write(outbox.take_due, 5, end + 1000, end) == []  # somebody makes that call
        assert await store.write(outbox.take_due, 5, end + 9000, end + 1000) == [(job.id, 2)]  # and was lost
        await store.write(outbox.settle, job.id, 1)  # too late to say so
        await store.write(outbox.settle, job.id, 2)
        await store.write(sweeping.sweep, end)
        assert await store.read(records.find_for_webhook, job.id) is None

    in_store(config_of, test)


def test_the_remaining_life_can_be_replaced(config_of):
    async def test(store: Store):
        live, done = await put(store, T), await put(store, T)
        await take(store, T)
        job = await look(store, done.id)
        await finish(store, job, T)
        for job_id in (live.id, done.id):
            await store.write(moves.expire_in, SCOPE, job_id, 500, T)
        await store.write(sweeping.sweep, T + 500)
        assert (await look(store, live.id)).status is JobStatus.TIMED_OUT
        with pytest.raises(JobNotFound):
            await look(store, done.id)

    in_store(config_of, test)


def test_the_queue_is_bounded_in_jobs_and_in_bytes(config_of):
    async def test(store: Store):
        await asyncio.gather(*(put(store, T, limits=(3, 10_000)) for _ in range(3)))
        with pytest.raises(QueueFull, match="3 jobs are waiting") as caught:
            await put(store, T, limits=(3, 10_000))
        assert (caught.value.status, caught.value.retry_after) == (429, 5)
        with pytest.raises(QueueFull, match="10000 bytes"):
            await put(store, T, limits=(9, 10_000), input={"x": "y" * 10_000})
        (first, *_) = await take(store, T, limit=1)
        await put(store, T, limits=(3, 10_000))
        await finish(store, first, T, JobStatus.FAILED, error="no")
        with pytest.raises(QueueFull):
            await store.write(moves.retry, SCOPE, first.id, T, (3, 10_000))
        assert await store.read(records.count, "default") == counts(in_queue=3, failed=1)

    in_store(config_of, test)


def test_of_many_submissions_at_once_exactly_as_many_get_in_as_there_is_room(config_of):
    async def test(store: Store):
        results = await asyncio.gather(*(put(store, T, limits=(7, 10_000)) for _ in range(30)), return_exceptions=True)
        assert sum(isinstance(result, QueueFull) for result in results) == 23

    in_store(config_of, test)


def test_an_idempotency_key_names_one_job_for_as_long_as_it_is_remembered(config_of):
    async def test(store: Store):
        same = {"idempotency_key": "k", "fingerprint": b"1"}
        first, *others = await asyncio.gather(*(put(store, T, **same) for _ in range(5)))
        assert {job.id for job in others} == {first.id}
        with pytest.raises(IdempotencyConflict) as caught:
            await put(store, T, idempotency_key="k", fingerprint=b"2")
        assert caught.value.status == 409
        assert (await put(store, T, scope=Scope("default", "you"), **same)).id != first.id
        assert (await put(store, T, scope=Scope("other"), **same)).id != first.id
        (job,) = await take(store, T, limit=1)
        await finish(store, job, T)
        assert (await put(store, T + 1, **same)).status is JobStatus.COMPLETED
        again = await put(store, T + RETENTION, idempotency_key="k", fingerprint=b"2")
        assert (again.id != first.id, again.status) == (True, JobStatus.IN_QUEUE)

    in_store(config_of, test)


def test_listing_shows_the_newest_first(config_of):
    async def test(store: Store):
        ids = [(await put(store, T + number)).id for number in range(4)]
        (first,) = await take(store, T + 9, limit=1)
        assert [job.id for job in await store.read(records.find_all, SCOPE, None, 3, T)] == ids[:0:-1]
        running = await store.read(records.find_all, SCOPE, JobStatus.IN_PROGRESS, 3, T)
        assert [job.id for job in running] == [first.id] == ids[:1]
        await finish(store, first, T)
        assert len(await store.read(records.find_all, SCOPE, None, 9, T + RETENTION)) == 3

    in_store(config_of, test)


def test_jobs_of_a_worker_without_a_lease_fall_under_the_crash_rule(config_of):
    async def test(store: Store):
        for worker in ("w-1", "w-2"):
            await put(store, T)
            await take(store, T, worker=worker)
            await store.write(sweeping.renew_lease, worker, T + 1000)
        await store.write(sweeping.renew_lease, "w-2", T + 5000)
        await store.write(sweeping.reap, T + 999)
        assert (await store.read(records.count, "default")).in_progress == 2
        await store.write(sweeping.reap, T + 1000)
        assert await store.read(records.count, "default") == counts(in_queue=1, in_progress=1, retried=1)
        assert await store.write(moves.start_next, "default", "w-1", 9, T + 1001) == []  # it may not go on like this
        assert len(await store.read(records.attempts_of, "w-2")) == 1
        await store.write(sweeping.end_lease, "w-2")
        await store.write(sweeping.reap, T + 1000)
        assert (await store.read(records.count, "default")).in_queue == 2

    in_store(config_of, test)


def test_everything_is_there_after_closing_and_opening_again(config_of):
    async def main():
        config = config_of()
        async with open_store(config) as store:
            order = [(await put(store, T, input={"n": number})).id for number in range(5)]
            (job,) = await take(store, T, limit=1)
            await finish(store, job, T, bodies=(b"1",))
            before = await look(store, job.id)
        async with open_store(config) as store:
            assert await look(store, job.id) == before
            newest = await put(store, T - MINUTE)  # the clock was set back meanwhile
            await store.write(sweeping.renew_lease, "w-2", T + MINUTE)
            taken = await store.write(moves.start_next, "default", "w-2", 9, T)
            assert [job.id for job, _ in taken] == [*order[1:], newest.id]
            assert [job_input["n"] for _, job_input in taken] == [1, 2, 3, 4, 1]

    asyncio.run(main())


def test_a_store_of_another_version_is_refused(config_of):
    async def main():
        config = config_of()
        async with open_store(config) as store:
            await store.write(lambda transaction: transaction.execute(schema.update().values(version=99)))
        with pytest.raises(StoreUnusable, match="schema 99"):
            await Store(config).open(lambda _: None, lambda _: None)

    asyncio.run(main())


def test_the_sqlite_file_is_for_its_owner_and_for_one_server(sqlite_config):
    async def main():
        config = sqlite_config()
        async with open_store(config) as store:
            await put(store, T)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in config.jobs_dir.iterdir()}
            assert modes == dict.fromkeys(["jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "lock"], 0o600)
            assert stat.S_IMODE(config.jobs_dir.stat().st_mode) == 0o700
            with pytest.raises(StoreInUse, match="--jobs-dir"):
                await Store(config).open(lambda _: None, lambda _: None)
            settings = await store.read(
                lambda connection: [
                    connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
                ]
            )
            assert settings == ["wal", 2]
        async with open_store(config):
            pass

    asyncio.run(main())


def test_a_folder_that_cannot_be_made_or_a_file_that_is_no_database_is_reported(sqlite_config):
    async def main():
        config = sqlite_config()
        config.jobs_dir.parent.mkdir(exist_ok=True)
        config.jobs_dir.write_text("a file")
        with pytest.raises(StoreUnusable, match="cannot be opened"):
            await Store(config).open(lambda _: None, lambda _: None)
        config.jobs_dir.unlink()
        config.jobs_dir.mkdir()
        (config.jobs_dir / "jobs.sqlite3").write_text("not a database" * 100)
        with pytest.raises(StoreUnusable, match="not a database"):
            await Store(config).open(lambda _: None, lambda _: None)

    asyncio.run(main())


def test_no_statement_walks_through_the_queue(sqlite_config):
    """What SQLite plans for every statement of a job's life: 100,000 waiting jobs must not be looked at for one."""

    async def main():
        seen: dict[str, tuple] = {}
        async with open_store(sqlite_config()) as store:
            engine = store._parts.database.writer
            event.listen(
                engine, "before_cursor_execute", lambda _c, _cursor, sql, values, *_: seen.update({sql: values})
            )
            made = [await put(store, T, idempotency_key=str(number), webhook="http://h.test/") for number in range(3)]
            first, second = await take(store, T, limit=2)
            await store.write(moves.add_chunks, attempt_of(first), 0, [b"1"])
            await store.write(moves.offer, attempt_of(first))
            await store.write(moves.deliver, attempt_of(first), 0, 1)
            await finish(store, first, T, JobStatus.FAILED, error="no", first=1)
            await store.write(moves.retry, SCOPE, first.id, T, (10, 1000))
            await store.write(moves.cancel, SCOPE, second.id, T)
            await store.write(moves.expire_in, SCOPE, made[2].id, 1, T)
            await store.write(sweeping.sweep, T + 1)
            await store.write(moves.purge, SCOPE, T, 5, T)
            await store.write(sweeping.renew_lease, "w-1", T)
            await store.write(sweeping.reap, T)
            await store.write(outbox.take_due, 5, T + 1, T)
            explained = await store.read(lambda connection: [explain(connection, *item) for item in seen.items()])
        steps = [(sql, step) for sql, plan in explained for step in plan]
        assert len(seen) > 20
        small = ("headrace_job_workers", "headrace_job_counters")
        assert [step for _, step in steps if step.startswith("SCAN headrace") and not step.endswith(small)] == []
        updates = [step for sql, step in steps if sql.startswith("UPDATE headrace_jobs")]
        assert updates
        assert all(step.endswith("(id=?)") for step in updates)

    asyncio.run(main())


def explain(connection, sql: str, values) -> tuple[str, list[str]]:
    if not sql.startswith(("SELECT", "UPDATE", "DELETE")):
        return sql, []
    values = values[0] if isinstance(values, list) else values
    return sql, [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]


def test_the_log_may_be_copied_while_the_store_is_closed(tmp_path: Path) -> None:
    for number in range(20):
        database = SqliteDatabase(tmp_path / str(number))
        copying = threading.Thread(target=lambda opened=database: [opened.keep_up() for _ in range(50)])
        copying.start()
        database.close()
        copying.join()
