"""Chat templates that nobody vouches for, rendered by helper processes."""

from __future__ import annotations

from headrace.core.errors import BadRequest
from headrace.service.helper_pool import HelperPool
from headrace.service.template_helper import RenderOutcome, RenderTask

_MODULE = "headrace.service.template_helper"


class TemplateProcesses:
    """`timeout`: the seconds that one template may take. Lives on one event loop."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._helpers = HelperPool(_MODULE, greeting=b"", seconds=timeout, name="headrace-request-template")

    async def render(self, task: RenderTask) -> str:
        """Raises `BadRequest` if the template refuses, fails, or takes too much time or memory."""
        try:
            outcome = RenderOutcome.from_bytes(await self._helpers.ask(task.to_bytes()))
        except TimeoutError:
            reason = f"The chat template did not finish within {self._timeout:g} s."
            raise BadRequest(reason, parameter="chat_template") from None
        except EOFError:
            reason = "The chat template took more memory or time than it may have."
            raise BadRequest(reason, parameter="chat_template") from None
        if outcome.prompt is None:
            raise BadRequest(outcome.refusal, parameter=outcome.parameter)
        return outcome.prompt

    def close(self) -> None:
        """End the processes."""
        self._helpers.close()
