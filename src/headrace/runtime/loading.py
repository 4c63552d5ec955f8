"""Loads models in a thread of its own, so that the engines which are there go on meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.errors import StartupError
from headrace.runtime.messages import Load, LoadFailed, Loading

if TYPE_CHECKING:
    from headrace.engine import AnyEngine, Progress

log = logging.getLogger(__name__)


class Loader:
    """Loads one model after the other, in the order they were asked for: the first is there soonest that way.

    `load_engine` runs in the loader's thread. `wake` is called there whenever there is news for `take`.
    """

    def __init__(self, load_engine: Callable[[Load, Progress], AnyEngine], wake: Callable[[], None]) -> None:
        self._load_engine = load_engine
        self._wake = wake
        self._orders: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._news: deque[Loading | LoadFailed | tuple[int, AnyEngine]] = deque()
        self._thread: threading.Thread | None = None

    def load(self, order: Load) -> None:
        self._orders.put(order)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="headrace-loader", daemon=True)
            self._thread.start()

    def take(self) -> Loading | LoadFailed | tuple[int, AnyEngine] | None:
        """What has happened, oldest first: how far a model is, that one cannot be loaded, or the number of an engine
        and the engine. None if there is no more.
        """
        return self._news.popleft() if self._news else None

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            self._tell(self._outcome(order))

    def _outcome(self, order: Load) -> LoadFailed | tuple[int, AnyEngine]:
        def progress(done: int, total: int) -> None:
            self._tell(Loading(order.engine, done, total))

        try:
            return order.engine, self._load_engine(order, progress)
        except StartupError as error:
            return LoadFailed(order.engine, error.message)
        except Exception as error:  # the other engines of this process have no part in it
            log.exception("%s cannot be loaded.", order.model_path)
            return LoadFailed(order.engine, f"{order.model_path} cannot be loaded: {type(error).__name__}: {error}")

    def _tell(self, news: Loading | LoadFailed | tuple[int, AnyEngine]) -> None:
        self._news.append(news)
        self._wake()
