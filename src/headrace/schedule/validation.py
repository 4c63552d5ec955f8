"""What a scheduler refuses: sizes that it cannot work with, requests of which nothing can ever come."""

from __future__ import annotations

from headrace.core.errors import BadRequest, ConfigError, ContextOverflow
from headrace.core.request import Request


def check_sizes(
    *, num_blocks: int, block_size: int, max_num_seqs: int, max_num_batched_tokens: int, max_model_len: int
) -> None:
    """Raises `ConfigError`."""
    for name, value, least in (
        ("num_blocks", num_blocks, 1),
        ("block_size", block_size, 1),
        ("max_num_seqs", max_num_seqs, 1),
        ("max_num_batched_tokens", max_num_batched_tokens, 1),
        ("max_model_len", max_model_len, 2),
    ):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")
    if num_blocks * block_size < max_model_len:
        raise ConfigError(
            f"The KV cache holds {num_blocks * block_size} tokens ({num_blocks} blocks of {block_size}), which is "
            f"less than max_model_len={max_model_len}: give it more memory or lower max_model_len."
        )


def check_request(request: Request, max_model_len: int) -> None:
    """Raises `BadRequest`."""
    prompt_len = len(request.prompt_ids)
    if request.n < 1:
        raise BadRequest(f"n must be at least 1, got {request.n}.", parameter="n", value=request.n)
    if request.beam is not None and request.beam.width < request.n:
        raise BadRequest(
            f"A beam search for {request.n} answers needs at least as many beams, got {request.beam.width}.",
            parameter="n",
            value=request.n,
        )
    if prompt_len == 0:
        raise BadRequest("The prompt must have at least 1 token.", parameter="prompt")
    if prompt_len >= max_model_len:
        raise ContextOverflow(
            f"The prompt has {prompt_len} tokens; the context of {max_model_len} tokens leaves room for "
            f"at most {max_model_len - 1} and one of output.",
            parameter="prompt",
        )
