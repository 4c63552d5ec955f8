"""Beam searches on models: what transformers finds, what the definition says, and what they cost in KV memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import beam_reference
import pytest
import torch
from stepping import greedy, run_all, tokens_of

from headrace.core.request import BeamSearch, FinishReason, Request
from headrace.core.sampling import TokenSampling
from headrace.engine import Engine
from headrace.hub import open_checkpoint
from headrace.text import Tokenizer

CHAT = "<|im_start|>user\nSay yes or no.<|im_end|>\n<|im_start|>assistant\n"
SCORES = 2e-3
"""How far cumulative log-probabilities may differ between two ways to compute a model in float32."""


@dataclass(frozen=True)
class Answer:
    token_ids: list[int]
    cumulative_logprob: float


class Searcher:
    """Runs searches on an engine, one after another."""

    def __init__(self, engine: Engine, eos: int | None) -> None:
        self.engine = engine
        self.eos = eos
        self._numbers = itertools.count()

    def request(self, prompt: list[int], max_tokens: int, *, ignore_eos: bool = False, **beam: Any) -> Request:
        return Request(
            request_id=f"search-{next(self._numbers)}",
            prompt_ids=prompt,
            n=beam["width"],
            sampling=TokenSampling(
                temperature=0.0, seed=0, max_tokens=max_tokens, eos_token_id=self.eos, ignore_eos=ignore_eos
            ),
            beam=BeamSearch(**beam),
        )

    def search(self, prompt: list[int], max_tokens: int, **options: Any) -> list[Answer]:
        wanted = self.request(prompt, max_tokens, **options)
        return answers(run_all(self.engine, [wanted]), wanted)


def answers(outputs: Any, wanted: Request) -> list[Answer]:
    """The answers to one request among `outputs`, best first."""
    found = []
    for choice in range(wanted.n):
        end = outputs[wanted.request_id, choice][-1]
        assert end.finish_reason in (FinishReason.STOP, FinishReason.LENGTH), end.error
        assert (end.finish_reason is FinishReason.STOP) == (end.token_ids[-1] == wanted.sampling.eos_token_id)
        found.append(Answer(end.token_ids, end.cumulative_logprob))
    return found


def transformers_search(
    model: Any, prompt: list[int], width: int, max_tokens: int, early_stopping: Any, eos: int | None
) -> list[Answer]:
    ids = torch.tensor([prompt])
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=max_tokens,
        do_sample=False,
        length_penalty=0.0,  # it divides by the length of the output alone, we by that of prompt and output
        early_stopping=early_stopping,
        eos_token_id=eos,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    results = []
    for sequence, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        output = sequence[len(prompt) :]
        results.append(Answer(output[: output.index(eos) + 1] if eos in output else output, score))
    return results


def assert_same(ours: list[Answer], theirs: list[Answer]) -> None:
    assert [answer.token_ids for answer in ours] == [answer.token_ids for answer in theirs]
    assert [answer.cumulative_logprob for answer in ours] == pytest.approx(
        [answer.cumulative_logprob for answer in theirs], abs=SCORES
    )


# ---- SmolLM2


@pytest.fixture(scope="module")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.load(open_checkpoint(str(smollm2_path)))


@pytest.fixture(scope="module", params=["native", "reference"])
def smollm2(
    request: pytest.FixtureRequest, smollm2_path: Path, tokenizer: Tokenizer, make_engine: Callable[..., Engine]
) -> Searcher:
    if request.param == "native":
        pytest.importorskip("headrace.kernels.cpu._native")
    return Searcher(make_engine(smollm2_path, kernels=request.param, max_model_len=256), tokenizer.eos_token_id)


@pytest.fixture(scope="module")
def theirs(smollm2_reference: Any, tokenizer: Tokenizer) -> Callable[..., list[Answer]]:
    """What transformers finds, searched once for both kinds of kernels."""
    known: dict[Any, list[Answer]] = {}

    def search(text: str, *options: Any) -> list[Answer]:
        if (text, options) not in known:
            known[text, options] = transformers_search(smollm2_reference, tokenizer.encode(text), *options)
        return known[text, options]

    return search


@pytest.mark.parametrize(
    ("text", "width", "early_stopping"),
    [
        ("The capital of France is", 2, "never"),
        ("SELECT name, age FROM users WHERE", 4, "never"),
        (CHAT, 4, "never"),
        (CHAT, 3, False),
        (CHAT, 3, True),
    ],
)
def test_answers_are_those_of_transformers(
    smollm2: Searcher, theirs: Any, tokenizer: Tokenizer, text: str, width: int, early_stopping: Any
) -> None:
    ours = smollm2.search(tokenizer.encode(text), 12, width=width, length_penalty=0.0, early_stopping=early_stopping)
    assert_same(ours, theirs(text, width, 12, early_stopping, smollm2.eos))


def test_an_exhaustive_search_finds_endings_that_transformers_passes_over(
    smollm2: Searcher, theirs: Any, tokenizer: Tokenizer
) -> None:
    """The contract counts every ending; the answers can only be better for it."""
    text = "The capital of France is"
    ours = smollm2.search(tokenizer.encode(text), 12, width=2, length_penalty=0.0)
    assert ours[0].token_ids[-1] == smollm2.eos
    assert ours[0].cumulative_logprob > theirs(text, 2, 12, "never", smollm2.eos)[0].cumulative_logprob + 1


def test_a_long_prompt_is_held_once(smollm2: Searcher, tokenizer: Tokenizer) -> None:
    prompt = [(7 * place) % 40000 + 100 for place in range(200)]
    width, output = 6, 20
    engine = smollm2.engine
    block_size = engine.info.block_size
    engine.add(smollm2.request(prompt, output, width=width, ignore_eos=True))
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, round(engine.stats.kv_usage * engine.info.num_blocks))
    of_one = -(-(len(prompt) + output) // block_size)
    # Each beam has the block that it writes to, and perhaps one or two with output that only some of them share.
    assert of_one <= most <= of_one + width * (1 + -(-output // block_size))


def test_the_second_search_finds_the_prompt_in_the_cache(smollm2: Searcher) -> None:
    prompt = [(11 * place) % 40000 + 100 for place in range(100)]
    first = smollm2.search(prompt, 6, width=3)
    again = smollm2.request(prompt, 6, width=3)
    outputs = run_all(smollm2.engine, [again])
    assert outputs[again.request_id, 0][0].cached_tokens == 96
    assert_same(answers(outputs, again), first)


@pytest.fixture(scope="module")
def crowded(smollm2_path: Path, make_engine: Callable[..., Engine]) -> Engine:
    """Room for two beams at a time, and blocks for little more than one sequence."""
    pytest.importorskip("headrace.kernels.cpu._native")
    engine = make_engine(
        smollm2_path,
        kernels="native",
        max_model_len=64,
        max_num_seqs=2,
        max_num_batched_tokens=16,
        kv_cache_memory_bytes=5_200_000,
    )
    assert 4 <= engine.info.num_blocks <= 8
    return engine


def test_searches_and_neighbours_are_bit_identical_alone_and_crowded(
    smollm2_path: Path, make_engine: Callable[..., Engine], crowded: Engine, tokenizer: Tokenizer
) -> None:
    roomy = Searcher(make_engine(smollm2_path, kernels="native", max_model_len=64), tokenizer.eos_token_id)
    searches = [
        roomy.request(tokenizer.encode(text), 10, width=4) for text in ("Water boils at", "Once upon a time,", CHAT)
    ]
    plain = [
        Request(request_id=f"plain-{number}", prompt_ids=tokenizer.encode(text), sampling=greedy(20))
        for number, text in enumerate(("1, 1, 2, 3, 5, 8, 13,", "Dear Sir or Madam,"))
    ]
    requests = [searches[0], plain[0], searches[1], plain[1], searches[2]]
    together = run_all(crowded, requests, steps_between=1)
    for wanted in searches:
        assert answers(together, wanted) == answers(run_all(roomy.engine, [wanted]), wanted)
    for wanted in plain:
        alone = run_all(roomy.engine, [wanted])
        assert tokens_of(together[wanted.request_id, 0]) == tokens_of(alone[wanted.request_id, 0])


# ---- a tiny random model, whose end-of-sequence token is as likely as any other


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=2,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    path = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(path)
    return model, path


@pytest.fixture(scope="module")
def tiny_searcher(tiny: tuple[Any, Path], make_engine: Callable[..., Engine]) -> Searcher:
    return Searcher(make_engine(tiny[1], max_model_len=64), 2)


PROMPTS = [[5, 9, 11, 3], [7], list(range(10, 33))]


@pytest.mark.parametrize("early_stopping", ["never", False, True])
@pytest.mark.parametrize("width", [2, 5])
def test_tiny_answers_are_those_of_transformers(
    tiny: tuple[Any, Path], tiny_searcher: Searcher, width: int, early_stopping: Any
) -> None:
    for prompt in PROMPTS:
        ours = tiny_searcher.search(prompt, 12, width=width, length_penalty=0.0, early_stopping=early_stopping)
        assert_same(ours, transformers_search(tiny[0], prompt, width, 12, early_stopping, 2))


@pytest.fixture(scope="module")
def tiny_logprobs(tiny: tuple[Any, Path]) -> beam_reference.Logprobs:
    """What transformers' model says of every context that is asked for, each computed once."""
    known: dict[tuple[int, ...], list[float]] = {}

    def logprobs(context: list[int]) -> list[float]:
        key = tuple(context)
        if key not in known:
            with torch.inference_mode():
                known[key] = tiny[0](torch.tensor([context])).logits[0, -1].log_softmax(-1).tolist()
        return known[key]

    return logprobs


@pytest.mark.parametrize("early_stopping", [None, "never", False, True])
@pytest.mark.parametrize("length_penalty", [1.0, 0.3, -1.5, 6.0])
def test_tiny_answers_are_those_of_the_definition(
    tiny_searcher: Searcher, tiny_logprobs: beam_reference.Logprobs, length_penalty: float, early_stopping: Any
) -> None:
    for prompt in PROMPTS:
        rules = {"width": 3, "length_penalty": length_penalty, "early_stopping": early_stopping}
        ours = tiny_searcher.search(prompt, 10, **rules)
        assert_same(ours, beam_reference.search(tiny_logprobs, prompt, max_tokens=10, eos=2, **rules))
