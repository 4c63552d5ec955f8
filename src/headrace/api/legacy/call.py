"""POST /generate: from its body to the service's call."""

from __future__ import annotations

from typing import Any

from headrace.api.call import check_streamed_best_of
from headrace.api.legacy.schema import LegacyRequest
from headrace.core.errors import BadRequest, Unsupported
from headrace.core.sampling import GREEDY_BELOW, SamplingParams
from headrace.service import Generation

_NOT_TEXT = ("logprobs", "prompt_logprobs", "logprob_token_ids")


def generation(body: LegacyRequest, *, request_id: str) -> Generation:
    """Raises `BadRequest`, naming the key, if a key is unknown or a value makes no sense.

    What is left open has the defaults of `SamplingParams`: this family never knew a model's generation config.
    """
    for key in body.model_extra or {}:
        raise BadRequest(f"Unknown sampling parameter {key!r}.", parameter=key)
    if not body.prompt:
        raise BadRequest("prompt must not be empty.", parameter="prompt", value="")
    sampling = _sampling(body.given())
    if body.stream:
        check_streamed_best_of(sampling)
    return Generation(
        prompt=body.prompt,
        sampling=sampling,
        request_id=request_id,
        show_beams=body.stream,
    )


def _sampling(given: dict[str, Any]) -> SamplingParams:
    """Several answers at temperature 0 are the best ones that there are: a beam search, unless that is refused."""
    for name in _NOT_TEXT:
        if name in given:
            raise Unsupported(f"{name}: the answers of /generate are text only.", parameter=name, value=given[name])
    if given.get("detokenize") is False:
        raise BadRequest("detokenize must be true: the answers of /generate are text.", parameter="detokenize")
    several = given.get("n", 1) > 1 or (given.get("best_of") or 1) > 1
    if several and given.get("temperature", 1.0) < GREEDY_BELOW:
        given = {"use_beam_search": True, **given}
    return SamplingParams(**given)
