"""What llama.cpp calls the tensors of a Hugging Face checkpoint.

The tables of `gguf-py/gguf/constants.py` and `tensor_mapping.py` in github.com/ggml-org/llama.cpp, read backwards.
"""

from __future__ import annotations

import re

_GLOBAL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_LAYER_BY_ARCHITECTURE = {
    "gemma3": {"ffn_norm": "pre_feedforward_layernorm"},
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
}

_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>\w+)\.(?P<kind>weight|bias)")


def hugging_face_name(name: str, architecture: str) -> str:
    """The Hugging Face name of GGUF tensor `name`, or `name` itself if it has none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    layer, module, kind = match["layer"], match["module"], match["kind"]
    if layer is None:
        known = _GLOBAL.get(module)
        return f"{known}.{kind}" if known else name
    known = (_LAYER | _LAYER_BY_ARCHITECTURE.get(architecture, {})).get(module)
    return f"model.layers.{layer}.{known}.{kind}" if known else name
