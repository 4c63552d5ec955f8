"""Write a GGUF model as a float32 safetensors folder, for servers that read no GGUF.

    python benchmarks/gguf_to_folder.py smollm2 FOLDER

Needs the [test] extra: transformers does the reading.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from headrace.hub import open_checkpoint


def main(model: str, folder: Path) -> None:
    path = open_checkpoint(model).path
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = AutoConfig.for_model(loaded.config.model_type, **_without_gguf(loaded.config.to_dict()))
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def _without_gguf(config: dict) -> dict:
    """A folder saved from the loaded model itself would still claim to be quantised."""
    return {key: value for key, value in config.items() if key not in ("quantization_config", "model_type")}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
