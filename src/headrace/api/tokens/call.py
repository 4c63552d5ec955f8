"""POST /inference/v1/generate: from its body to the service's call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from headrace.api.call import check_streamable, checked_salt, priority_of
from headrace.api.sampling import with_defaults
from headrace.api.tokens.schema import GenerateRequest
from headrace.core.errors import BadRequest, CallerError
from headrace.core.sampling import SamplingParams
from headrace.service import Generation


def generation(
    body: GenerateRequest,
    defaults: Mapping[str, Any],
    *,
    request_id: str,
    max_num_seqs: int,
    priority_header: str | None,
) -> Generation:
    """Raises `BadRequest` if a value makes no sense. `max_num_seqs`: more choices than run together are not allowed."""
    if not body.token_ids:
        raise BadRequest("token_ids must not be empty.", parameter="token_ids", value=[])
    sampling = _sampling(body, defaults)
    if sampling.num_candidates > max_num_seqs:
        name = "n" if sampling.best_of is None else "best_of"
        raise BadRequest(
            f"{name} must be at most max_num_seqs={max_num_seqs}, got {sampling.num_candidates}.",
            parameter=name,
            value=sampling.num_candidates,
        )
    check_streamable(sampling, stream=body.stream, prompt_logprobs=sampling.prompt_logprobs)
    return Generation(
        prompt=body.token_ids,
        sampling=sampling,
        request_id=request_id,
        priority=priority_of(body.priority, priority_header),
        cache_salt=checked_salt(body.cache_salt),
    )


def _sampling(body: GenerateRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """Ids become text only where text is shown or searched: `detokenize` true allows that, and does not order it."""
    given = body.sampling_params.given()
    needs_text = body.output_mode == "text" or bool(given.get("stop"))
    if body.output_mode == "text" and given.get("detokenize") is False:
        raise BadRequest('output_mode "text" needs detokenize to be true.', parameter="detokenize", value=False)
    detokenize = given.pop("detokenize", True) and needs_text
    silent = {"max_tokens": None, "early_stopping": None}
    return SamplingParams(**with_defaults(silent | given, defaults), detokenize=detokenize)


@contextmanager
def naming_fields_of(body: GenerateRequest) -> Iterator[None]:
    """Errors of the service name the field of `body` that they are about."""
    names = {"prompt": "token_ids", "detokenize": "output_mode" if body.output_mode == "text" else "stop"}
    try:
        yield
    except CallerError as error:
        if error.parameter not in names:
            raise
        raise type(error)(error.message, parameter=names[error.parameter], value=error.value) from None
