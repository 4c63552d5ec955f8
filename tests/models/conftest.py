"""Tiny random checkpoints, written by transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class TinyModel:
    """A transformers model and the folder it was saved to."""

    reference: Any
    path: Path

    def logits(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.reference(torch.tensor([ids])).logits[0]

    def continues_greedily(self, prompt: list[int], tokens: list[int]) -> bool:
        """Whether `tokens` are what greedy decoding continues `prompt` with."""
        return self.logits(prompt + tokens)[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyModel]:
    """`tiny_model(model_type, **config)`: a random model with weights large enough to make every part matter."""
    import transformers

    made: dict[str, TinyModel] = {}

    def make(model_type: str, *, save: dict[str, Any] | None = None, **config: Any) -> TinyModel:
        key = repr((model_type, save, sorted(config.items())))
        if key not in made:
            torch.manual_seed(0)
            model_config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **config})
            model = transformers.AutoModelForCausalLM.from_config(model_config, attn_implementation="eager").eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.15)
            path = tmp_path_factory.mktemp(model_type)
            model.save_pretrained(path, **(save or {}))
            made[key] = TinyModel(model, path)
        return made[key]

    return make
