"""Batches: files of requests in OpenAI's batch format, answered by a server into a file that is also the record.

`lines.py` reads and writes the format, `record.py` keeps the output file, `run.py` has the requests answered.
"""

from headrace.batch.lines import ROUTES
from headrace.batch.record import BatchRecord
from headrace.batch.run import BatchRun, Tally

__all__ = ["ROUTES", "BatchRecord", "BatchRun", "Tally"]
