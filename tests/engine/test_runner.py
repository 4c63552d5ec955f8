"""The runner around a model that is made up: what it owes each row, however the prompt is cut into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from headrace.core.request import FinishReason, Request, SequenceOutput, TokenLogprobs
from headrace.core.sampling import TokenSampling
from headrace.engine import runner as runner_module
from headrace.engine.kv_cache import KvCache
from headrace.engine.runner import Runner
from headrace.engine.sampler import Sampler
from headrace.kernels.ops import AttentionBatch
from headrace.models import KvLayout
from headrace.schedule import Scheduler

CPU = torch.device("cpu")
VOCAB = 50
BROKEN = 49
"""A token after which the made-up model's logits are NaN."""


class MadeUpModel:
    """The logits after a token depend on the token and its position. Notes how many logits it was asked for at once."""

    spec = SimpleNamespace(vocab_size=VOCAB, num_layers=2)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._by_token = torch.randn(VOCAB, VOCAB, generator=generator)
        self._by_token[BROKEN] = float("nan")
        self._by_position = torch.randn(256, VOCAB, generator=generator)
        self._logits = torch.empty(64, VOCAB)
        self.most_rows = 0

    def kv_view(self, memory: torch.Tensor, layout: KvLayout) -> torch.Tensor:
        """[blocks, 4 tokens, 2 layers, keys and values]: a token leaves a number in each."""
        return memory.view(torch.float32).permute(0, 3, 1, 2)

    def forward(
        self, token_ids: torch.Tensor, batch: AttentionBatch, kv: torch.Tensor, output_start: Sequence[int]
    ) -> torch.Tensor:
        kv[batch.slot_mapping // 4, batch.slot_mapping % 4] = self._by_token[token_ids, :1, None]
        hidden = self._by_token[token_ids] + self._by_position[batch.positions]
        counts = [end - start for start, end in pairwise(output_start)]
        return torch.cat([hidden[end - count : end] for end, count in zip(batch.query_start[1:], counts, strict=True)])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """In memory that the next call uses again, as a decoder may."""
        self.most_rows = max(self.most_rows, len(hidden))
        self._logits[: len(hidden)] = hidden
        return self._logits[: len(hidden)]


class Steps:
    """A scheduler and a runner."""

    def __init__(self, *, budget: int, num_blocks: int = 64) -> None:
        self.model = MadeUpModel()
        layout = KvLayout(dtype="float32", block_size=4, block_bytes=16, float_dtype=torch.float32)
        self.kv_cache = KvCache(layout, num_layers=2, num_blocks=num_blocks, device=CPU)
        self.runner = Runner(self.model, self.kv_cache, Sampler(VOCAB, CPU), device=CPU)
        self.scheduler = Scheduler(
            num_blocks=num_blocks,
            block_size=4,
            max_num_seqs=8,
            max_num_batched_tokens=budget,
            max_model_len=min(200, num_blocks * 4),
            enable_prefix_caching=True,
            policy="fcfs",
        )

    def run(self, *requests: Request) -> dict[tuple[str, int], list[SequenceOutput]]:
        for request in requests:
            self.scheduler.add(request)
        outputs: dict[tuple[str, int], list[SequenceOutput]] = {}
        while (plan := self.scheduler.plan()) is not None:
            for output in self.scheduler.commit(plan, self.runner.run(plan)).sequences:
                outputs.setdefault((output.request_id, output.choice), []).append(output)
            self.scheduler.check()
        assert self.scheduler.stats.kv_usage == 0
        return outputs


def request(name: str, prompt: list[int], *, n: int = 1, prompt_logprobs: int | None = None) -> Request:
    sampling = TokenSampling(temperature=1.0, seed=7, max_tokens=6, prompt_logprobs=prompt_logprobs, logprobs=2)
    return Request(request_id=name, prompt_ids=prompt, sampling=sampling, n=n)


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, BROKEN, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def owed(outputs: list[SequenceOutput]) -> list[TokenLogprobs]:
    return [entry for output in outputs for entry in output.prompt_logprobs]


def test_prompt_logprobs_are_those_of_the_model() -> None:
    ids = prompt(30)
    steps = Steps(budget=1000)
    entries = owed(steps.run(request("a", ids, prompt_logprobs=1))["a", 0])
    batch = SimpleNamespace(positions=torch.arange(30), slot_mapping=torch.arange(30), query_start=[0, 30])
    expected = steps.model.forward(torch.tensor(ids), batch, torch.empty(8, 4, 2, 2), [0, 30]).log_softmax(-1)
    assert [entry.token_id for entry in entries] == ids[1:]
    for position, entry in enumerate(entries):
        assert entry.logprob == pytest.approx(expected[position, ids[position + 1]].item(), abs=1e-5)
        assert entry.top_ids == [expected[position].argmax().item()]


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 29, 30, 31])
@pytest.mark.parametrize("most_logits", [VOCAB, 3 * VOCAB])
def test_they_are_the_same_however_the_prompt_is_cut(
    budget: int, most_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request("a", prompt(30), prompt_logprobs=2, n=2), request("b", prompt(17, 1), prompt_logprobs=0)]
    requests.append(request("one", [5], prompt_logprobs=1))
    whole = Steps(budget=1000).run(*requests)
    monkeypatch.setattr(runner_module, "PROMPT_LOGITS", most_logits)
    steps = Steps(budget=budget)
    cut = steps.run(*requests)
    assert steps.model.most_rows <= max(most_logits // VOCAB, 4)
    assert cut.keys() == whole.keys()
    for key in whole:
        assert owed(cut[key]) == owed(whole[key])
        assert [o.token_ids for o in cut[key] if o.token_ids] == [o.token_ids for o in whole[key] if o.token_ids]
    assert len(owed(cut["a", 0])) == 29
    assert owed(cut["a", 1]) == owed(cut["one", 0]) == []


def test_they_are_told_once_under_preemption() -> None:
    """Two that do not fit together: one gives way and computes its prompt again."""
    requests = [request(name, prompt(30, seed), prompt_logprobs=1) for seed, name in enumerate("ab")]
    roomy = Steps(budget=8).run(*requests)
    tight = Steps(budget=8, num_blocks=10).run(*requests)
    for key in roomy:
        assert len(owed(tight[key])) == 29
        assert owed(tight[key]) == owed(roomy[key])


def test_a_row_that_fails_ends_alone_and_leaves_nothing_behind() -> None:
    steps = Steps(budget=1000)
    together = steps.run(
        request("good", prompt(9)),
        request("bad", [*prompt(6), BROKEN]),
        request("bad-prompt", [BROKEN, *prompt(6)], prompt_logprobs=1),
    )
    alone = Steps(budget=1000).run(request("good", prompt(9)))
    assert [output.token_ids for output in together["good", 0]] == [output.token_ids for output in alone["good", 0]]
    for name in ("bad", "bad-prompt"):
        (output,) = together[name, 0]
        assert output.finish_reason is FinishReason.ERROR
        assert "NaN" in output.error
    assert steps.kv_cache.memory.any()
    assert steps.kv_cache.memory.view(torch.float32).isfinite().all()


def test_results_are_in_the_order_of_the_plan() -> None:
    """Single tokens stand first in a batch, wherever they stand in the plan."""
    steps = Steps(budget=1000)
    for index, length in enumerate([5, 1, 3, 1]):
        steps.scheduler.add(request(str(index), prompt(length, index)))
    plan = steps.scheduler.plan()
    result = steps.runner.run(plan)
    for row, row_result in zip(plan.rows, result.rows, strict=True):
        alone = Steps(budget=1000).run(request(row.request_id, row.token_ids))
        assert [row_result.token_id] == alone[row.request_id, 0][0].token_ids
