"""Tiny random models that pool, as transformers saves them, and what an engine makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.config.engine import EngineConfig
from headrace.core.pooling import PoolingOutput, PoolingParams, PoolingRequest, PoolingTask
from headrace.engine import PoolingEngine, load_engine

VOCAB = 97
ENCODER = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DECODER = {**ENCODER, "num_key_value_heads": 2, "max_position_embeddings": 128}
LENGTHS = (7, 1, 40, 7, 2, 23, 1, 100)


def write_model(folder: Path, model_type: str, kind: str = "Model", **config: Any) -> Any:
    """A random model of `kind` ("Model", "ModelForSequenceClassification", …) with weights large enough to make every
    part matter, saved to `folder`.
    """
    import transformers  # seconds, and most tests need it not

    torch.manual_seed(0)
    model_config = transformers.AutoConfig.for_model(model_type, **config)
    auto = getattr(transformers, f"Auto{kind}")
    model = auto.from_config(model_config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    return model


def load(path: Path, **config: Any) -> PoolingEngine:
    engine = load_engine(str(path), EngineConfig(**{"dtype": "float32", **config}))
    assert isinstance(engine, PoolingEngine)
    return engine


def random_inputs(lengths: Iterable[int] = LENGTHS, highest: int = VOCAB - 1) -> list[list[int]]:
    """Token ids from 4 on: those below stand for no text."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(4, highest, (length,), generator=generator).tolist() for length in lengths]


def pool(
    engine: PoolingEngine,
    inputs: Sequence[list[int]],
    task: PoolingTask,
    *,
    types: Sequence[list[int] | None] | None = None,
    **params: Any,
) -> list[np.ndarray]:
    """What the engine makes of each input, all of them queued at once."""
    ends = run(engine, inputs, PoolingParams(task=task, **params), types)
    assert [end.error for end in ends] == [None] * len(inputs)
    return [array(end) for end in ends]


def run(
    engine: PoolingEngine,
    inputs: Sequence[list[int]],
    params: PoolingParams,
    types: Sequence[list[int] | None] | None = None,
) -> list[PoolingOutput]:
    for number, ids in enumerate(inputs):
        token_types = types[number] if types is not None else None
        engine.add(PoolingRequest(request_id=str(number), prompt_ids=ids, params=params, token_type_ids=token_types))
    ends: dict[str, PoolingOutput] = {}
    while engine.has_work:
        output = engine.step()
        assert output is not None
        ends |= {end.request_id: end for end in output.pooled}
    return [ends[str(number)] for number in range(len(inputs))]


def array(end: PoolingOutput) -> np.ndarray:
    return np.frombuffer(end.data, "<f4").reshape(end.shape)


def close(ours: np.ndarray, theirs: torch.Tensor, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), atol=atol, rtol=0)
