"""Servers for a folder of safetensors and for a model with a score-ranked vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "the quick brown fox jumps over the lazy dog and the dog does not mind at all "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level vocabulary of its own and no chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT] * 10, trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def test_a_folder_of_safetensors(folder: Path, start_server: Callable) -> None:
    with start_server(str(folder), "--served-model-name", "tiny") as server, server.client() as client:
        completion = client.completions.create(
            model="tiny",
            prompt=TEXT,
            max_tokens=20,
            temperature=0,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )
        choice = completion.choices[0]
        ids = torch.tensor([choice.prompt_token_ids])
        reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        reference.generation_config.eos_token_id = None
        expected = reference.generate(ids, max_new_tokens=20, do_sample=False)
        assert choice.token_ids == expected[0, ids.shape[1] :].tolist()
        with pytest.raises(openai.BadRequestError, match="chat template"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])


def test_gemma3(start_server: Callable) -> None:
    with start_server("gemma3-270m", "--max-model-len", "1024") as server, server.client() as client:
        completion = client.completions.create(
            model="gemma3-270m", prompt="Once upon a time, there was a little girl who", max_tokens=6, temperature=0
        )
        assert completion.choices[0].text.startswith(" loved to play with")
        chunks = list(
            client.chat.completions.create(
                model="gemma3-270m",
                messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi 🙂"}],
                max_tokens=24,
                temperature=1,
                seed=1,
                stream=True,
            )
        )
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
