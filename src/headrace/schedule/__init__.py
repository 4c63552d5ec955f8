"""Who runs, and in which blocks: sequences, the block pool, the prefix cache and the scheduler. No torch here."""

from headrace.schedule.scheduler import Scheduler

__all__ = ["Scheduler"]
