"""Several servers on one PostgreSQL database."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from job_tools import SCOPE, Gate, render, serving, until

from headrace.core.errors import ConfigError
from headrace.jobs import JobService, JobStatus, StoreUnusable, Submission
from headrace.jobs.store import Store


def submission(n: int = 0) -> Submission:
    return Submission(input={"n": n})


def test_servers_share_the_jobs_and_hear_of_each_others_changes(postgresql_config):
    ran: dict[str, list[str]] = {"a": [], "b": []}

    def executor(name: str):
        async def execute(job, job_input, emit):
            ran[name].append(job.id)
            await asyncio.sleep(0.01)
            await emit(name)

        return execute

    async def main():
        config = postgresql_config(max_running_jobs=4, job_lease=30)
        async with serving(config, executor("a")) as first, serving(config, executor("b")) as second:
            made = await asyncio.gather(*(first.submit(SCOPE, submission(n)) for n in range(60)))
            done = await asyncio.gather(*(second.wait(SCOPE, job.id, 20) for job in made))
            counts = await first.counts("default")
        assert [job.status for job in done] == [JobStatus.COMPLETED] * 60
        assert sorted(ran["a"] + ran["b"]) == sorted(job.id for job in made)
        assert all(ran.values())
        assert (counts.completed, counts.in_queue, counts.in_progress) == (60, 0, 0)

    asyncio.run(main())


def test_one_server_streams_and_cancels_what_another_runs(postgresql_config):
    step = asyncio.Event()
    gate = Gate()

    async def execute(job, job_input, emit):
        await emit("a")
        await step.wait()
        await emit("b")
        await gate(job, job_input, emit)

    async def main():
        config = postgresql_config(job_lease=30)
        async with serving(config, execute), serving(config) as other:
            job = await other.submit(SCOPE, submission())
            async with other.stream(SCOPE, job.id, hold=10) as page:
                assert page.chunks == (b'"a"',)
            step.set()
            async with other.stream(SCOPE, job.id, hold=10) as page:
                assert page.chunks == (b'"b"',)
            await gate.started.wait()
            await other.cancel(SCOPE, job.id)
            await until(lambda: gate.cancelled == [job.id])

    asyncio.run(main())


def test_the_jobs_of_a_server_that_falls_silent_are_run_by_another(postgresql_config):
    gate = Gate()

    async def execute(job, job_input, emit):
        await emit("rescued")

    async def main():
        config = postgresql_config(job_lease=1)
        silent = JobService(config, endpoints=["default"], render_webhook=render)
        await silent.start()
        silent.open(gate)
        job = await silent.queue.submit(SCOPE, submission())
        await gate.started.wait()
        for task in silent._background:
            task.cancel()
        async with serving(config, execute) as other:
            done = await other.wait(SCOPE, job.id, 20)
            assert (done.status, done.retries, done.output) == (JobStatus.COMPLETED, 1, (b'"rescued"',))
            gate.open.set()  # the silent one wakes up and has something to say
            await until(lambda: not gate.running)
            await silent.stop(5)
            assert await other.get(SCOPE, job.id) == done

    asyncio.run(main())


def test_a_database_connection_that_is_cut_heals(postgresql_config):
    async def execute(job, job_input, emit):
        await emit(1)

    def cut(config):
        with psycopg.connect(config.jobs_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    async def main():
        config = postgresql_config(job_lease=30)
        async with serving(config, execute) as queue:
            for _ in range(3):
                job = await queue.submit(SCOPE, submission())
                assert (await queue.wait(SCOPE, job.id, 20)).status is JobStatus.COMPLETED
                await asyncio.to_thread(cut, config)

    asyncio.run(main())


def test_a_database_that_is_not_there_is_reported_without_the_password(postgresql_config):
    async def main():
        config = postgresql_config()
        url = config.jobs_url.replace("jobs@", "jobs:secret@").replace("/jobs_", "/none_")
        with pytest.raises(StoreUnusable, match="cannot be opened") as caught:
            await Store(postgresql_config().__class__(jobs_url=url)).open(lambda _: None, lambda _: None)
        assert "secret" not in caught.value.message

    asyncio.run(main())


def test_the_driver_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("headrace.jobs.postgresql.psycopg", None)
    from headrace.jobs.postgresql import PostgresqlDatabase

    with pytest.raises(ConfigError, match=r"headrace\[postgres\]"):
        PostgresqlDatabase("postgresql://nowhere/")
