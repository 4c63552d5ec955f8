"""How log lines look and which are shown. Everything goes to standard error."""

from __future__ import annotations

import logging
import sys

from headrace.config.sections import LoggingConfig

FORMAT = "%(levelname)s %(asctime)s %(name)s: %(message)s"

_TRACE = 5
"""uvicorn's level below DEBUG."""


def set_up_logging(config: LoggingConfig) -> None:
    """Set the levels and the format of this process, for our own loggers and for uvicorn's."""
    logging.addLevelName(_TRACE, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(_name_plainly)
    logging.basicConfig(level=config.log_level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(config.uvicorn_log_level.upper())
    access = logging.getLogger("uvicorn.access")
    access.disabled = config.disable_uvicorn_access_log
    if config.disable_access_log_for_endpoints:
        access.addFilter(SkipPaths(frozenset(config.disable_access_log_for_endpoints)))


def _name_plainly(record: logging.LogRecord) -> bool:
    """uvicorn reports everything through a logger called `uvicorn.error`, which reads like an error."""
    if record.name == "uvicorn.error":
        record.name = "uvicorn"
    return True


class SkipPaths(logging.Filter):
    """Drops uvicorn's access lines of some paths; a query string does not matter."""

    def __init__(self, paths: frozenset[str]) -> None:
        super().__init__()
        self._paths = paths

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (_, _, str(path), _, _):
                return path.partition("?")[0] not in self._paths
        return True
