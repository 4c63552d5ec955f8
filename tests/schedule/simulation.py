"""A model and a KV cache made of plain Python, to run the scheduler against.

The "model" draws each token as a pure function of everything before it, so a token that is lost, doubled or reordered
changes all that follow. The "cache" remembers for every slot which context was written there, so a row that reads
through its block table what is not its own history is caught in the step in which it happens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import count

import beam_reference

from headrace.core.request import BeamSearch, FinishReason, Request, SequenceOutput, StepOutput, TokenLogprobs
from headrace.core.sampling import TokenSampling
from headrace.schedule.plan import PlanRow, RowResult, StepPlan, StepResult
from headrace.schedule.scheduler import Scheduler

VOCAB_SIZE = 23
Key = tuple[str, int]


def sampling(max_tokens: int = 8, **changes) -> TokenSampling:
    return TokenSampling(**{"temperature": 1.0, "seed": 0, "max_tokens": max_tokens, **changes})


def request(request_id: str, prompt: list[int] | int, max_tokens: int = 8, *, sample: dict | None = None, **changes):
    """A request; an int for `prompt` means that many different tokens."""
    prompt_ids = list(range(prompt)) if isinstance(prompt, int) else prompt
    return Request(
        request_id=request_id,
        prompt_ids=prompt_ids,
        sampling=sampling(**{"max_tokens": max_tokens, **(sample or {})}),
        **changes,
    )


def scheduler(**changes) -> Scheduler:
    """A roomy scheduler with blocks of 4 tokens."""
    return Scheduler(
        **{
            "num_blocks": 64,
            "block_size": 4,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 64,
            "max_model_len": 64,
            "enable_prefix_caching": True,
            "policy": "fcfs",
            **changes,
        }
    )


def next_token(context: list[int], draw: int) -> int:
    """The model: what follows `context`, for a choice that draws with seed `draw`."""
    return hash((tuple(context), draw)) % VOCAB_SIZE


def distribution(context: list[int]) -> list[float]:
    """The model for beam searches: the log-probability of every token after `context`. Some are equal, some nothing."""
    weights = [hash((tuple(context), token)) % 7 for token in range(VOCAB_SIZE)]
    return [math.log(weight / sum(weights)) if weight else -math.inf for weight in weights]


def best_tokens(context: list[int], wanted: int) -> TokenLogprobs:
    logprobs = distribution(context)
    best = sorted(range(VOCAB_SIZE), key=lambda token: (-logprobs[token], token))
    top = best[:wanted]
    return TokenLogprobs(best[0], logprobs[best[0]], 1, top, [logprobs[token] for token in top])


def beam_answers(wanted: Request, max_model_len: int) -> list[beam_reference.Found]:
    """What a beam search must come to."""
    rules = wanted.sampling
    return beam_reference.search(
        distribution,
        wanted.prompt_ids,
        width=wanted.beam.width,
        max_tokens=min(rules.max_tokens, max_model_len - len(wanted.prompt_ids)),
        length_penalty=wanted.beam.length_penalty,
        early_stopping=wanted.beam.early_stopping,
        eos=None if rules.ignore_eos else rules.eos_token_id,
    )


def logprobs_of(token_id: int, position: int) -> TokenLogprobs:
    return TokenLogprobs(token_id, -float(position), 1, [], [])


def answer(wanted: Request, choice: int, max_model_len: int) -> tuple[list[int], FinishReason, int | None]:
    """What a choice must come to, whatever else the scheduler has to do: generated alone, token by token."""
    rules = wanted.sampling
    context = list(wanted.prompt_ids)
    for length in count(1):
        token_id = next_token(context, rules.seed + choice)
        context.append(token_id)
        output = context[len(wanted.prompt_ids) :]
        if length >= rules.min_tokens and token_id == rules.eos_token_id and not rules.ignore_eos:
            return output, FinishReason.STOP, None
        if length >= rules.min_tokens and token_id in rules.stop_token_ids:
            return output, FinishReason.STOP, token_id
        if length == rules.max_tokens or len(context) == max_model_len:
            return output, FinishReason.LENGTH, None
    raise AssertionError


@dataclass
class Choice:
    """What a caller has heard of one choice so far."""

    request: Request
    number: int
    token_ids: list[int] = field(default_factory=list)
    outputs: list[SequenceOutput] = field(default_factory=list)

    @property
    def context(self) -> list[int]:
        return self.request.prompt_ids + self.token_ids

    @property
    def end(self) -> SequenceOutput | None:
        return self.outputs[-1] if self.outputs and self.outputs[-1].finish_reason is not None else None


def beam_request(request_id: str, prompt: list[int] | int, max_tokens: int = 8, *, width: int = 3, **changes):
    """A request for all beams of a search; `changes` of the request by name, of the search by `beam`."""
    sample = {"temperature": 0.0, "eos_token_id": 2, **changes.pop("sample", {})}
    beam = BeamSearch(**{"width": width, **changes.pop("beam", {})})
    return request(request_id, prompt, max_tokens, sample=sample, **{"n": width, "beam": beam, **changes})


class Simulation:
    """Drives a scheduler as an engine would and checks, after every call, all that must always hold."""

    def __init__(self, subject: Scheduler, *, block_size: int = 4, max_model_len: int = 64, budget: int = 64) -> None:
        self.scheduler = subject
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.budget = budget
        self.choices: dict[Key, Choice] = {}
        self.prompt_logprobs: dict[str, list[TokenLogprobs]] = {}
        self.shown: dict[str, list[list[list[int]]]] = {}
        self.plans: list[StepPlan] = []
        self.steps: list[StepOutput] = []
        self._slots: dict[tuple[int, int], tuple] = {}

    # ---- what an engine does

    def add(self, *requests: Request) -> None:
        for wanted in requests:
            self.scheduler.add(wanted)
            self.prompt_logprobs[wanted.request_id] = []
            for number in range(wanted.n):
                self.choices[wanted.request_id, number] = Choice(wanted, number)
        self.scheduler.check()

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        outputs = self.scheduler.abort(request_id, choice)
        self.scheduler.check()
        assert all(output.finish_reason is FinishReason.ABORT and not output.token_ids for output in outputs)
        self._hear(outputs)
        return outputs

    def step(self, errors: dict[Key, str] | None = None) -> StepOutput | None:
        plan = self.plan()
        return None if plan is None else self.commit(plan, errors)

    def plan(self) -> StepPlan | None:
        plan = self.scheduler.plan()
        assert (plan is not None) == self.scheduler.has_work
        self.scheduler.check()
        if plan is not None:
            self.plans.append(plan)
            self._check_plan(plan)
        return plan

    def commit(self, plan: StepPlan, errors: dict[Key, str] | None = None) -> StepOutput:
        return self._record(self.scheduler.commit(plan, self.run(plan, errors or {})))

    def fail(self, plan: StepPlan, error: str) -> StepOutput:
        for row in plan.rows:  # a step that raised may have written anything where it was going to write
            for position in range(row.start, row.start + len(row.token_ids)):
                self._slots[self._slot(row, position)] = ("garbage",)
        for _, target in plan.block_copies:
            self._slots.update({(target, offset): ("garbage",) for offset in range(self.block_size)})
        return self._record(self.scheduler.fail(plan, error))

    def drain(self) -> None:
        """Run to the end, which must come: in every step the sequence of lowest rank gains at least one token."""
        most = sum(self._most_steps(choice.request) for choice in self.choices.values())
        for _ in range(most):
            if self.step() is None:
                break
        assert not self.scheduler.has_work, f"still at work after {most} steps"
        assert self.scheduler.stats.kv_usage == 0

    def _most_steps(self, wanted: Request) -> int:
        length = len(wanted.prompt_ids) + self.max_model_len + 1
        if wanted.beam is None:
            return length
        # At worst its beams take turns on one place, and each computes everything anew for each of its tokens.
        return length * wanted.beam.width * self.max_model_len

    # ---- the model and its cache

    def run(self, plan: StepPlan, errors: dict[Key, str]) -> StepResult:
        # Copies read first and write afterwards, but in no order, as on a GPU.
        contents = [
            (target, offset, self._slots.get((source, offset)))
            for source, target in plan.block_copies
            for offset in range(self.block_size)
        ]
        self._slots.update({(target, offset): content for target, offset, content in contents if content is not None})
        for row in plan.rows:
            context = self._context(row)
            for position in range(row.start, row.start + len(row.token_ids)):
                self._slots[self._slot(row, position)] = (self._salt(row), *context[: position + 1])
        return StepResult([self._result(row, errors.get((row.request_id, row.choice))) for row in plan.rows])

    def _result(self, row: PlanRow, error: str | None) -> RowResult:
        stop = row.start + len(row.token_ids)
        context = self._context(row)[:stop]
        for position in range(stop):
            read = self._slots.get(self._slot(row, position))
            assert read == (self._salt(row), *context[: position + 1]), f"{row} reads foreign keys at {position}"
        if error is not None:
            return RowResult(error=error)
        prompt_logprobs = []
        if row.prompt_logprobs_from is not None:
            prompt = self._request(row).prompt_ids
            owed = range(max(row.prompt_logprobs_from, row.start + 1), min(stop, len(prompt) - 1) + 1)
            prompt_logprobs = [logprobs_of(prompt[position], position) for position in owed]
        if not row.samples:
            return RowResult(prompt_logprobs=prompt_logprobs)
        if self._request(row).beam is not None:
            follows = best_tokens(context, row.sampling.logprobs)
            return RowResult(follows.token_id, follows, prompt_logprobs)
        token_id = next_token(context, row.sampling.seed + row.choice)
        return RowResult(token_id, logprobs_of(token_id, stop), prompt_logprobs)

    def _slot(self, row: PlanRow, position: int) -> tuple[int, int]:
        return row.block_table[position // self.block_size], position % self.block_size

    def _context(self, row: PlanRow) -> list[int]:
        """A beam's tokens are known to the scheduler alone: what the cache holds before the row is believed; if it was
        not the beam's own, the answer will be wrong.
        """
        if self._request(row).beam is None:
            return self.choices[row.request_id, row.choice].context
        before = self._slots[self._slot(row, row.start - 1)][1:] if row.start else ()
        return [*before, *row.token_ids]

    def _request(self, row: PlanRow) -> Request:
        """Beams have numbers too, but every request has a choice 0."""
        return self.choices[row.request_id, 0].request

    def _salt(self, row: PlanRow) -> str | None:
        return self._request(row).cache_salt

    # ---- what must always hold

    def _check_plan(self, plan: StepPlan) -> None:
        assert 1 <= plan.num_tokens <= self.budget
        assert len({(row.request_id, row.choice) for row in plan.rows}) == len(plan.rows)
        read_by = [set(row.block_table) for row in plan.rows]
        for row, blocks in zip(plan.rows, read_by, strict=True):
            stop = row.start + len(row.token_ids)
            assert row.token_ids
            wanted = self._request(row)
            if wanted.beam is None:
                context = self._context(row)
                assert self.choices[row.request_id, row.choice].end is None
                assert row.token_ids == context[row.start : stop]
                assert row.samples == (stop == len(context))
                assert row.output_index == len(context) - len(wanted.prompt_ids)
            else:
                assert row.choice < wanted.beam.width
                assert row.samples == (stop == len(wanted.prompt_ids) + row.output_index)
            assert len(row.block_table) == -(-stop // self.block_size)
            assert len(blocks) == len(row.block_table)
            assert 0 not in blocks, "the null block belongs to nobody"
            written = set(row.block_table[row.start // self.block_size :])
            assert sum(bool(written & other) for other in read_by) == 1, "a row writes what another one reads"
            assert not written & {source for source, _ in plan.block_copies}
        targets = [target for _, target in plan.block_copies]
        assert len(set(targets)) == len(targets)
        assert not set(targets) & {source for source, _ in plan.block_copies}

    def _record(self, output: StepOutput) -> StepOutput:
        self.scheduler.check()
        self.steps.append(output)
        self._hear(output.sequences)
        told = [len(heard.token_ids) for heard in output.sequences if not self.searches(heard.request_id)]
        searched = sum(row.samples and self.searches(row.request_id) for row in self.plans[-1].rows)
        assert sum(told) <= output.stats.generation_tokens <= sum(told) + searched
        assert 0 <= output.stats.kv_usage <= 1
        return output

    def searches(self, request_id: str) -> bool:
        return self.choices[request_id, 0].request.beam is not None

    def _hear(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            choice = self.choices[output.request_id, output.choice]
            assert choice.end is None, "something came after the end"
            assert not choice.outputs or (output.cached_tokens is None and output.scheduled_time is None)
            if choice.request.beam is not None:
                assert not output.token_ids or output.finish_reason, "an answer of a search comes whole"
                self.shown.setdefault(output.request_id, []).extend([output.beams] if output.beams else [])
            else:
                assert output.token_ids or output.prompt_logprobs or output.finish_reason, "it has nothing to tell"
            if choice.request.beam is None or choice.request.sampling.logprobs is not None:
                assert [logprobs.token_id for logprobs in output.logprobs] == output.token_ids
            choice.outputs.append(output)
            choice.token_ids += output.token_ids
            self.prompt_logprobs[output.request_id] += output.prompt_logprobs

    def check_answers(self) -> None:
        """Every choice has ended once, and said what it would have said alone, or a part of it if it was stopped."""
        for choice in self.choices.values():
            assert choice.end is not None
            if choice.request.beam is not None:
                self._check_beam(choice)
                continue
            expected, reason, stop_reason = answer(choice.request, choice.number, self.max_model_len)
            if choice.end.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
                assert choice.token_ids == expected[: len(choice.token_ids)]
                assert len(choice.token_ids) < len(expected)
            else:
                assert choice.token_ids == expected
                assert (choice.end.finish_reason, choice.end.stop_reason) == (reason, stop_reason)
        for request_id, found in self.prompt_logprobs.items():
            wanted = self.choices[request_id, 0].request
            owed = wanted.prompt_ids[1:] if wanted.sampling.prompt_logprobs is not None else []
            everything = [logprobs_of(token_id, position) for position, token_id in enumerate(owed, 1)]
            assert found == everything[: len(found)], "each prompt position once, in order"
            if any(self.choices[request_id, number].token_ids for number in range(wanted.n)):
                assert found == everything

    def _check_beam(self, choice: Choice) -> None:
        end = choice.end
        if end.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
            assert not choice.token_ids
            return
        expected = beam_answers(choice.request, self.max_model_len)[choice.number]
        eos = choice.request.sampling.eos_token_id
        assert choice.token_ids == expected.token_ids
        assert end.cumulative_logprob == expected.cumulative_logprob
        assert end.finish_reason is (FinishReason.STOP if expected.finished else FinishReason.LENGTH)
        assert end.stop_reason == (eos if expected.finished else None)
        if end.logprobs:
            assert sum(entry.logprob for entry in end.logprobs) == expected.cumulative_logprob
