"""The queue as routes and the executor see it: waiting, streaming, limits, restarts, a store that cannot be written."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from job_tools import SCOPE, Gate, count_up, serving, until

from headrace.core.errors import BadRequest, EngineDead
from headrace.jobs import (
    Job,
    JobNotFound,
    JobPolicy,
    JobQueue,
    JobService,
    JobStatus,
    QueueStopping,
    StoreInUse,
    StoreUnavailable,
    StreamPage,
    Submission,
)


def submission(n: int = 0, **fields) -> Submission:
    return Submission(input={"n": n}, **fields)


async def submit(queue: JobQueue, n: int = 0, **fields) -> Job:
    return await queue.submit(SCOPE, submission(n, **fields))


async def ended(queue: JobQueue, job: Job) -> Job:
    job = await queue.wait(SCOPE, job.id, 10)
    assert job.status.terminal, job
    return job


async def read(queue: JobQueue, job: Job, **options) -> StreamPage:
    async with queue.stream(SCOPE, job.id, **options) as page:
        return page


def in_queue(config_of, execute, test, *, grace: float = 0.0, **fields):
    async def main():
        async with serving(config_of(**fields), execute, grace=grace) as queue:
            await test(queue)

    asyncio.run(main())


def test_a_submitted_job_runs_and_its_output_is_every_chunk(config_of):
    async def test(queue: JobQueue):
        job = await submit(queue, 3)
        assert (job.status, job.id.endswith("-u1")) == (JobStatus.IN_QUEUE, True)
        done = await ended(queue, job)
        assert (done.status, done.output) == (JobStatus.COMPLETED, (b"0", b"1", b"2"))
        nothing = await ended(queue, await submit(queue, 0, sync=True))
        assert (nothing.id[:5], nothing.output) == ("sync-", ())
        assert (await queue.counts("default")).completed == 2

    in_queue(config_of, count_up, test)


def test_waiting_ends_in_time_with_the_job_as_it_is(config_of):
    gate = Gate()

    async def test(queue: JobQueue):
        job = await submit(queue)
        await gate.started.wait()
        waiting = asyncio.create_task(queue.wait(SCOPE, job.id, 10))
        assert (await queue.wait(SCOPE, job.id, 0.05)).status is JobStatus.IN_PROGRESS
        gate.open.set()
        assert (await waiting).status is JobStatus.COMPLETED
        with pytest.raises(JobNotFound):
            await queue.wait(SCOPE, "unknown", 10)

    in_queue(config_of, gate, test)


def test_a_job_that_is_cancelled_while_it_runs_is_aborted_and_stays_cancelled(config_of):
    gate = Gate()

    async def test(queue: JobQueue):
        job = await submit(queue)
        await gate.started.wait()
        assert (await queue.cancel(SCOPE, job.id)).status is JobStatus.CANCELLED
        await until(lambda: gate.cancelled == [job.id])
        gate.open.set()
        assert (await queue.cancel(SCOPE, job.id)).status is JobStatus.CANCELLED
        assert (await ended(queue, await submit(queue))).status is JobStatus.COMPLETED

    in_queue(config_of, gate, test)


def test_jobs_that_are_cancelled_at_any_moment_leave_their_place_to_others(config_of):
    gate = Gate()

    async def test(queue: JobQueue):
        for turns in range(40):
            job = await submit(queue)
            for _ in range(turns):
                await asyncio.sleep(0)
            await queue.cancel(SCOPE, job.id)
        gate.open.set()
        assert (await ended(queue, await submit(queue))).status is JobStatus.COMPLETED
        assert gate.running == 0

    in_queue(config_of, gate, test, max_running_jobs=1)


def test_no_more_jobs_run_than_allowed_and_each_place_is_used_again(config_of):
    running, most = 0, 0

    async def execute(*_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    async def test(queue: JobQueue):
        await asyncio.gather(*[ended(queue, job) for job in await asyncio.gather(*(submit(queue) for _ in range(12)))])
        assert most == 3

    in_queue(config_of, execute, test, max_running_jobs=3)


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (BadRequest("top_p must be in (0, 1]."), "top_p must be in (0, 1]."),
        (BadRequest("no model 'x\0'"), "no model 'x\N{REPLACEMENT CHARACTER}'"),  # PostgreSQL refuses NUL
        (BadRequest("no model '\ud800'"), "no model '?'"),  # and everybody this
        (ValueError("secret"), "Internal server error."),
        (asyncio.CancelledError(), "Internal server error."),  # a future of its own, not the job
        (TimeoutError(), "Internal server error."),
    ],
)
def test_an_executor_that_raises_fails_its_job(config_of, problem, error):
    async def execute(job, job_input, emit):
        await emit("half")
        raise problem

    async def test(queue: JobQueue):
        failed = await ended(queue, await submit(queue))
        assert (failed.status, failed.error, failed.output) == (JobStatus.FAILED, error, None)
        page = await read(queue, failed)  # what was not delivered still is
        assert (page.chunks, page.status) == ((b'"half"',), JobStatus.FAILED)

    in_queue(config_of, execute, test)


def test_an_engine_that_dies_costs_one_retry_and_then_the_job(config_of):
    attempts = []

    async def execute(job, job_input, emit):
        attempts.append((job.id, job.attempt))
        if job.attempt <= job_input["n"]:
            raise EngineDead("gone")
        await emit(job.attempt)

    async def test(queue: JobQueue):
        once, twice = await submit(queue, 1), await submit(queue, 2)
        done, failed = await ended(queue, once), await ended(queue, twice)
        assert (done.status, done.retries, done.output) == (JobStatus.COMPLETED, 1, (b"2",))
        assert (failed.status, failed.retries) == (JobStatus.FAILED, 1)
        assert failed.error == "job timed out after 1 retries"
        assert sorted(attempts) == sorted((job.id, number) for job in (once, twice) for number in (1, 2))
        assert (await queue.counts("default")).retried == 2

    in_queue(config_of, execute, test)


def test_execution_timeout_and_ttl_abort_the_job(config_of, short_policies):
    gate = Gate()

    async def test(queue: JobQueue):
        short = await submit(queue, policy=JobPolicy(execution_timeout=200))
        expiring = await submit(queue, policy=JobPolicy(ttl=300))
        timed_out, expired = await ended(queue, short), await ended(queue, expiring)
        assert (timed_out.status, timed_out.error) == (JobStatus.TIMED_OUT, "executionTimeout exceeded")
        assert (expired.status, expired.error) == (JobStatus.TIMED_OUT, "job TTL expired")
        assert 200 <= timed_out.execution_time < 2000
        await until(lambda: sorted(gate.cancelled) == sorted([short.id, expiring.id]))

    in_queue(config_of, gate, test)


def test_results_are_swept_away_by_themselves(config_of):
    async def test(queue: JobQueue):
        job = await submit(queue, retention=1)
        async with asyncio.timeout(10):
            while await queue.list(SCOPE):
                await asyncio.sleep(0.05)
        with pytest.raises(JobNotFound):
            await queue.get(SCOPE, job.id)

    in_queue(config_of, count_up, test)


def test_a_long_queue_is_purged_whole_and_the_running_jobs_go_on(config_of):
    gate = Gate()

    async def test(queue: JobQueue):
        made = await asyncio.gather(*(submit(queue, number) for number in range(600)))
        await until(lambda: gate.running == 2)
        counts = await queue.counts("default")
        assert (counts.in_queue, counts.in_progress) == (598, 2)
        assert [await queue.purge(SCOPE) for _ in range(2)] == [598, 0]
        gate.open.set()
        states = [(await ended(queue, job)).status for job in made]
        assert (states.count(JobStatus.CANCELLED), states.count(JobStatus.COMPLETED)) == (598, 2)

    in_queue(config_of, gate, test, max_running_jobs=2)


def test_output_over_a_limit_fails_the_job_by_name(sqlite_config):
    async def execute(job, job_input, emit):
        for _ in range(job_input["n"]):
            await emit("x" * 98)

    async def test(queue: JobQueue):
        assert (await ended(queue, await submit(queue, 5))).status is JobStatus.COMPLETED
        failed = await ended(queue, await submit(queue, 6))
        assert failed.error == "The job's output has more than 500 bytes (--max-job-output-bytes)."

    in_queue(sqlite_config, execute, test, max_job_output_bytes=500)
    in_queue(sqlite_config, execute, _fails_by_chunk, max_job_chunk_bytes=99)


async def _fails_by_chunk(queue: JobQueue):
    failed = await ended(queue, await submit(queue, 1))
    assert failed.error == "The job's chunk has more than 99 bytes (--max-job-chunk-bytes)."


def test_webhooks_and_policies_that_make_no_sense_are_refused_at_once(sqlite_config):
    async def test(queue: JobQueue):
        for fields, parameter in (
            ({"webhook": "ftp://example.test/"}, "webhook"),
            ({"webhook": "http:///nowhere"}, "webhook"),
            ({"webhook": "http://127.0.0.1:9/"}, "webhook"),
            ({"policy": JobPolicy(ttl=1)}, "policy.ttl"),
        ):
            with pytest.raises(BadRequest) as caught:
                await submit(queue, **fields)
            assert caught.value.parameter == parameter
        assert await queue.list(SCOPE) == []

    in_queue(sqlite_config, None, test)


def test_a_stream_hands_every_chunk_out_once_and_the_result_stays_whole(config_of):
    step = asyncio.Event()

    async def execute(job, job_input, emit):
        await emit("a")
        await step.wait()
        await emit("b")
        await emit("c")

    async def test(queue: JobQueue):
        job = await submit(queue)
        first = await read(queue, job, hold=10)
        assert (first.chunks, first.status, first.first) == ((b'"a"',), JobStatus.IN_PROGRESS, 0)
        idle = await read(queue, job, hold=0.05)
        assert (idle.chunks, idle.status) == ((), JobStatus.IN_PROGRESS)
        step.set()
        done = await ended(queue, job)
        rest = await read(queue, job, hold=10)
        assert (rest.chunks, rest.status, rest.last, rest.first) == ((b'"b"', b'"c"'), JobStatus.COMPLETED, True, 1)
        assert (await read(queue, job, hold=10)).chunks == ()
        again = await read(queue, job, offset=1)
        assert (again.chunks, again.first) == (rest.chunks, 1)
        assert (await queue.get(SCOPE, job.id)).output == done.output == (b'"a"', b'"b"', b'"c"')

    in_queue(config_of, execute, test)


def test_chunks_whose_reply_failed_are_handed_out_again(config_of):
    async def test(queue: JobQueue):
        job = await ended(queue, await submit(queue, 2))
        with contextlib.suppress(ConnectionError):
            async with queue.stream(SCOPE, job.id) as page:
                assert len(page.chunks) == 2
                raise ConnectionError
        assert (await read(queue, job)).chunks == (b"0", b"1")

    in_queue(config_of, count_up, test)


def test_readers_at_the_same_time_share_the_chunks(config_of):
    async def execute(job, job_input, emit):
        for number in range(job_input["n"]):
            await emit(number)
            await asyncio.sleep(0.001)

    async def read_to_the_end(queue: JobQueue, job: Job, found: list[bytes]):
        last = False
        while not last:
            async with queue.stream(SCOPE, job.id, hold=10) as page:
                await asyncio.sleep(0.003)  # a reply takes its time
                found += page.chunks
                last = page.last

    async def test(queue: JobQueue):
        job, found = await submit(queue, 40), []
        await asyncio.gather(*(read_to_the_end(queue, job, found) for _ in range(3)))
        assert [int(chunk) for chunk in sorted(found, key=int)] == list(range(40))

    in_queue(config_of, execute, test)


def test_a_second_reader_is_not_told_the_end_while_the_first_has_the_chunks(sqlite_config):
    async def test(queue: JobQueue):
        job = await ended(queue, await submit(queue, 1))
        async with queue.stream(SCOPE, job.id) as first:
            assert first.last
            second = await read(queue, job, hold=0.05)
            assert (second.chunks, second.status) == ((), JobStatus.IN_PROGRESS)
            waiting = asyncio.create_task(read(queue, job, hold=10))
            await asyncio.sleep(0.05)
        assert (await waiting).last

    in_queue(sqlite_config, count_up, test)


def test_a_page_that_cannot_hold_the_rest_is_not_the_last(sqlite_config):
    async def test(queue: JobQueue):
        job = await ended(queue, await submit(queue, 1001))
        pages = [await read(queue, job) for _ in range(2)]
        assert [(len(page.chunks), page.status) for page in pages] == [
            (1000, JobStatus.IN_PROGRESS),
            (1, JobStatus.COMPLETED),
        ]

    in_queue(sqlite_config, count_up, test)


def test_a_restart_gives_running_jobs_back_and_keeps_everything_else(config_of):
    gate = Gate()

    async def main():
        config = config_of(max_running_jobs=1, job_lease=30)
        async with serving(config, gate) as queue:
            running = await submit(queue, 7)
            await gate.started.wait()
            waiting = [await submit(queue, number) for number in range(3)]
            poll = asyncio.create_task(queue.wait(SCOPE, running.id, 60))
            await asyncio.sleep(0)
        assert (await poll).status is JobStatus.IN_PROGRESS  # sent home when the server stopped
        order = []

        async def execute(job, job_input, emit):
            order.append(job_input["n"])

        async with serving(config, execute) as queue:
            done = [await ended(queue, job) for job in [running, *waiting]]
        assert order == [7, 0, 1, 2]
        assert [(job.status, job.retries) for job in done] == [(JobStatus.COMPLETED, 0)] * 4

    asyncio.run(main())


def test_jobs_that_end_within_the_grace_period_are_not_disturbed(config_of):
    gate = Gate()

    async def main():
        config = config_of()
        async with serving(config, gate, grace=10) as queue:
            job = await submit(queue, 1)
            await gate.started.wait()
            asyncio.get_running_loop().call_later(0.1, gate.open.set)
        with pytest.raises(QueueStopping):
            await submit(queue)
        async with serving(config) as queue:
            assert (await queue.get(SCOPE, job.id)).status is JobStatus.COMPLETED

    asyncio.run(main())


def test_a_queue_whose_store_did_not_open_says_why(sqlite_config):
    async def main():
        config = sqlite_config()
        async with serving(config):
            second = JobService(config, endpoints=["default"], render_webhook=lambda *_: b"")
            with pytest.raises(StoreUnavailable, match="being opened"):
                await second.queue.counts("default")
            with pytest.raises(StoreInUse):
                await second.start()
            with pytest.raises(StoreUnavailable, match="belong to a server that runs already") as caught:
                await submit(second.queue)
            assert caught.value.status == 503

    asyncio.run(main())


def on_the_writers_connection(service: JobService, statement: str) -> None:
    connection = service._store._parts.database.writer.raw_connection()  # there is only one
    connection.cursor().execute(statement)
    connection.close()


def test_nothing_is_lost_while_the_file_cannot_be_written(sqlite_config):
    """A full disk and a file turned read-only, as SQLite reports them; a real file system cannot be filled here."""
    gate = Gate()

    async def main():
        service = JobService(sqlite_config(), endpoints=["default"], render_webhook=lambda *_: b"")
        await service.start()
        service.open(gate)
        queue = service.queue
        try:
            for spoil, mend in (
                ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
                ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1073741823"),
            ):
                gate.open.clear()
                gate.started.clear()
                accepted = await submit(queue, 1)
                await gate.started.wait()
                await asyncio.to_thread(on_the_writers_connection, service, spoil)
                with pytest.raises(StoreUnavailable) as caught:
                    await queue.submit(SCOPE, Submission(input={"x": "y" * 1_000_000}))
                assert (caught.value.status, caught.value.retry_after) == (503, 5)
                assert (await queue.get(SCOPE, accepted.id)).status is JobStatus.IN_PROGRESS  # reading goes on
                gate.payload = "z" * 1_000_000
                gate.open.set()
                waiting = asyncio.create_task(queue.wait(SCOPE, accepted.id, 30))
                await asyncio.sleep(0.3)
                assert not waiting.done()
                await asyncio.to_thread(on_the_writers_connection, service, mend)
                done = await waiting
                assert (done.status, len(done.output[0])) == (JobStatus.COMPLETED, 1_000_002)
            assert (await ended(queue, await submit(queue, 1))).status is JobStatus.COMPLETED
        finally:
            await service.stop(0)

    asyncio.run(main())


def test_space_is_given_back_to_the_file_system(sqlite_config):
    async def main():
        config = sqlite_config()
        service = JobService(config, endpoints=["default"], render_webhook=lambda *_: b"")
        await service.start()
        try:
            for _ in range(3):
                job = await service.queue.submit(SCOPE, Submission(input={"x": "y" * 10_000_000}, retention=0))
                await service.queue.cancel(SCOPE, job.id)
            await service._sweep()
            await service._store.tidy()
        finally:
            await service.stop(0)
        assert (config.jobs_dir / "jobs.sqlite3").stat().st_size < 11_000_000

    asyncio.run(main())
