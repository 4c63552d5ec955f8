"""`LLM` over models that pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pooling_models import save_bert_classifier

from headrace import LLM
from headrace.core.errors import BadRequest, EngineDead
from headrace.hub import pull


@pytest.fixture(scope="module")
def minilm() -> Path:
    return pull("minilm", progress=False)


@pytest.fixture(scope="module")
def llm(minilm: Path) -> Iterator[LLM]:
    with LLM(str(minilm)) as llm:
        yield llm


def test_embed(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["A mill by the river.", "Paris is in France.", ""]
    outputs = llm.embed(texts)
    assert "Processed prompts: 100%" in capsys.readouterr().err
    assert [len(output.prompt_token_ids) for output in outputs] == [8, 7, 2]
    assert [output.outputs.hidden_size for output in outputs] == [384] * 3
    assert len({output.request_id for output in outputs}) == 3
    assert all(output.finished for output in outputs)
    mill, paris, _ = (np.array(output.outputs.embedding) for output in outputs)
    (ids,) = llm.embed(outputs[0].prompt_token_ids, use_tqdm=False)
    assert np.allclose(ids.outputs.embedding, mill, atol=1e-6)
    (water,) = llm.embed({"prompt": "water mill"}, use_tqdm=False)
    assert np.dot(water.outputs.embedding, mill) > np.dot(water.outputs.embedding, paris)
    assert llm.embed([], use_tqdm=False) == []
    (raw,) = llm.embed(texts[0], use_tqdm=False, use_activation=False)
    assert np.linalg.norm(raw.outputs.embedding) > 2
    (cut,) = llm.embed(texts[0], use_tqdm=False, truncate_prompt_tokens=4)
    assert len(cut.prompt_token_ids) == 4


def test_score(llm: LLM) -> None:
    outputs = llm.score("What is the capital of France?", ["Paris is the capital of France.", "Bread."], use_tqdm=False)
    assert outputs[0].outputs.score > 0.5 > outputs[1].outputs.score
    (one,) = llm.score("mill", "mill")
    assert one.outputs.score == pytest.approx(1)
    with pytest.raises(BadRequest, match="1:1, 1:N or N:N"):
        llm.score(["a", "b"], ["c"], use_tqdm=False)


def test_encode(llm: LLM) -> None:
    (vector,) = llm.encode("a mill", use_tqdm=False)
    (tokens,) = llm.encode("a mill", pooling_task="token_embed", use_tqdm=False)
    assert np.array(vector.outputs.data).shape == (384,)
    assert np.array(tokens.outputs.data).shape == (4, 384)
    with pytest.raises(BadRequest, match="must be one of embed, token_embed"):
        llm.encode("a mill", pooling_task="classify", use_tqdm=False)


def test_what_the_model_is_not_for(llm: LLM, smollm2_path: Path) -> None:
    with pytest.raises(BadRequest, match="makes no text; it can do: embed, token_embed"):
        llm.generate("a mill")
    with pytest.raises(BadRequest, match="cannot do the task classify"):
        llm.classify("a mill", use_tqdm=False)
    with pytest.raises(BadRequest, match="Matryoshka"):
        llm.embed("a mill", dimensions=5, use_tqdm=False)
    with LLM(str(smollm2_path), max_model_len=64) as generator, pytest.raises(BadRequest, match="runner='pooling'"):
        generator.embed("a mill")


def test_classify(minilm: Path, tmp_path: Path) -> None:
    save_bert_classifier(tmp_path, minilm, labels=("good", "bad"))
    with LLM(str(tmp_path)) as llm:
        (output,) = llm.classify("a good day", use_tqdm=False)
        assert output.outputs.num_classes == 2
        assert sum(output.outputs.probs) == pytest.approx(1, abs=1e-6)
    with pytest.raises(EngineDead, match="closed"):
        llm.classify("a good day", use_tqdm=False)
