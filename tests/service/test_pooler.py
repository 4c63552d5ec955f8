"""The pooler over real engines: MiniLM, and tiny models beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pooling_models import poison, save_bert_classifier, save_decoder_classifier
from scripted_client import Ledger

from headrace.config.engine import EngineConfig
from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, EngineError, Overloaded, Unsupported
from headrace.core.pooling import PoolingParams, PoolingTask
from headrace.core.request import FinishReason
from headrace.hub import open_checkpoint, pull
from headrace.runtime import LocalEngine
from headrace.service import Pooled, Pooling, Scoring
from headrace.service.background import BackgroundLoop
from headrace.service.pooler import Pooler
from headrace.text import ChatTemplate, Tokenizer

T = TypeVar("T")

EMBED = PoolingParams(task=PoolingTask.EMBED)
ZEBRA = 29145


class Bench:
    """Poolers over one engine, in an event loop of their own."""

    def __init__(self, path: Path, **engine_options: Any) -> None:
        self._loop = BackgroundLoop("bench")
        self._engine = LocalEngine(str(path), EngineConfig(**engine_options))
        self._tokenizer = Tokenizer.load(open_checkpoint(str(path)))
        self._loop.run(self._engine.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(asyncio.wait_for(work, timeout=60))

    @contextlib.contextmanager
    def pooler(
        self, limits: LimitsConfig | None = None, observer: Ledger | None = None, score_template: str | None = None
    ) -> Iterator[Pooler]:
        pooler = Pooler(
            self._engine,
            self._tokenizer,
            None,
            score_template=None
            if score_template is None
            else ChatTemplate(score_template, self._tokenizer.special_tokens),
            limits=limits or LimitsConfig(),
            metrics=observer,
            model_name="bench",
        )
        with contextlib.closing(pooler):
            yield pooler

    def close(self) -> None:
        self._loop.run(self._engine.stop())
        self._loop.close()


@pytest.fixture(scope="module")
def minilm() -> Path:
    return pull("minilm", progress=False)


@pytest.fixture(scope="module")
def bench(minilm: Path) -> Iterator[Bench]:
    with contextlib.closing(Bench(minilm)) as bench:
        yield bench


@pytest.fixture
def pooler(bench: Bench) -> Iterator[Pooler]:
    with bench.pooler() as pooler:
        yield pooler


def call(*inputs: str | list[int], params: PoolingParams = EMBED, **options: Any) -> Pooling:
    return Pooling(inputs=inputs, params=params, request_id="r", **options)


def arrays(pooled: list[Pooled]) -> list[np.ndarray]:
    return [np.array(each.values()) for each in pooled]


TEXTS = ["A mill by the river.", "", "wheel", "The channel brings water to the wheel. " * 12, "word " * 400, "mill"]


def test_outputs_are_those_of_each_input_alone_in_their_order(bench: Bench, pooler: Pooler) -> None:
    together = bench.run(pooler.pool(call(*TEXTS)))
    assert [len(each.prompt_ids) for each in together] == [8, 2, 3, 98, 256, 3]
    for text, vector in zip(TEXTS, arrays(together), strict=True):
        (alone,) = arrays(bench.run(pooler.pool(call(text))))
        assert vector @ alone > 0.99999
        assert abs(np.linalg.norm(vector) - 1) < 1e-5


def test_one_vector_for_each_token(bench: Bench, pooler: Pooler) -> None:
    params = PoolingParams(task=PoolingTask.TOKEN_EMBED)
    (short, long) = arrays(bench.run(pooler.pool(call("river", "a mill by the river", params=params))))
    assert short.shape == (3, 384)
    assert long.shape == (7, 384)


def test_no_activation_leaves_vectors_as_they_are(bench: Bench, pooler: Pooler) -> None:
    raw = PoolingParams(task=PoolingTask.EMBED, use_activation=False)
    (plain,) = arrays(bench.run(pooler.pool(call("river", params=raw))))
    (normal,) = arrays(bench.run(pooler.pool(call("river"))))
    assert np.linalg.norm(plain) > 2
    assert np.allclose(plain / np.linalg.norm(plain), normal, atol=1e-6)


def test_progress_counts_every_input(bench: Bench, pooler: Pooler) -> None:
    seen: list[tuple[int, int]] = []
    bench.run(pooler.pool(call(*["river"] * 5), lambda done, total: seen.append((done, total))))
    assert seen == [(count, 5) for count in range(1, 6)]


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        (PoolingParams(task=PoolingTask.CLASSIFY), "cannot do the task classify"),
        (PoolingParams(task=PoolingTask.EMBED, dimensions=5), "does not support Matryoshka"),
    ],
)
def test_what_the_model_cannot_do_is_refused(bench: Bench, pooler: Pooler, params: PoolingParams, refusal: str) -> None:
    with pytest.raises(BadRequest, match=refusal):
        bench.run(pooler.pool(call("river", params=params)))


def test_a_full_queue_turns_the_whole_request_away(bench: Bench) -> None:
    ledger = Ledger()
    with bench.pooler(LimitsConfig(max_num_queued_reqs=3), ledger) as pooler:
        with pytest.raises(Overloaded, match="max_num_queued_reqs=3"):
            bench.run(pooler.pool(call(*["river"] * 4)))
        assert len(bench.run(pooler.pool(call(*["river"] * 3)))) == 3
    with bench.pooler(LimitsConfig(max_num_queued_tokens=10), ledger) as pooler:
        with pytest.raises(Overloaded, match="max_num_queued_tokens=10"):
            bench.run(pooler.pool(call("a mill by the river", "a mill by the river")))
        bench.run(pooler.pool(call("a mill by the river")))
    assert ledger.rejected == ["max_num_queued_reqs", "max_num_queued_tokens"]


def test_the_observer_hears_of_every_request_once(bench: Bench) -> None:
    ledger = Ledger()
    with bench.pooler(observer=ledger) as pooler:
        bench.run(pooler.pool(call("river", "a mill")))
    (report,) = ledger.pooled
    assert report.prompt_tokens == (3, 4)
    assert report.finish_reason is FinishReason.STOP
    assert report.queue is not None
    assert report.inference is not None
    assert 0 < report.inference <= report.e2e


def test_a_caller_that_goes_away_ends_its_inputs(bench: Bench) -> None:
    ledger = Ledger()

    async def leave(pooler: Pooler) -> int:
        started = asyncio.Event()
        big = asyncio.create_task(pooler.pool(call(*["a mill by the river " * 8] * 2000), lambda *_: started.set()))
        await started.wait()
        big.cancel()
        await asyncio.gather(big, return_exceptions=True)
        return len(await pooler.pool(call("river")))

    with bench.pooler(LimitsConfig(max_num_queued_reqs=2000), ledger) as pooler:
        assert bench.run(leave(pooler)) == 1
        # The places of those that never ran are free again.
        assert len(bench.run(pooler.pool(call(*[[101, 102]] * 300)))) == 300
    assert [report.finish_reason for report in ledger.pooled] == [FinishReason.ABORT, *[FinishReason.STOP] * 2]


def test_a_small_request_need_not_wait_for_all_of_a_big_one(bench: Bench, pooler: Pooler) -> None:
    async def overtake() -> tuple[int, int]:
        done: list[int] = []
        started = asyncio.Event()

        def progress(count: int, _: int) -> None:
            done.append(count)
            started.set()

        big = asyncio.create_task(pooler.pool(call(*["a mill by the river"] * 1024), progress))
        await started.wait()
        await pooler.pool(call("river"))
        meanwhile = done[-1]
        return meanwhile, len(await big)

    meanwhile, whole = bench.run(overtake())
    assert whole == 1024
    assert meanwhile < 768


def test_an_input_that_fails_names_itself_and_disturbs_nobody(minilm: Path, tmp_path: Path) -> None:
    poison(tmp_path / "model", minilm, ZEBRA)
    ledger = Ledger()
    with contextlib.closing(Bench(tmp_path / "model")) as bench, bench.pooler(observer=ledger) as pooler:
        assert ZEBRA in bench.run(pooler.tokenize("zebra", add_special_tokens=False))

        async def both() -> tuple[Any, list[Pooled]]:
            bad = pooler.pool(call("river", "a zebra", "mill"))
            good = pooler.pool(call("river", "a horse", "mill"))
            failure, fine = await asyncio.gather(bad, good, return_exceptions=True)
            return failure, fine

        failure, fine = bench.run(both())
        assert isinstance(failure, EngineError)
        assert "Input 1 " in failure.message
        assert len(fine) == 3
        assert all(np.isfinite(vector).all() for vector in arrays(fine))
    assert {report.finish_reason for report in ledger.pooled} == {FinishReason.ERROR, FinishReason.STOP}


QUERY = "What brings water to the mill?"
DOCUMENTS = ["A headrace is a channel that brings water to a mill wheel.", "Paris is in France.", "mill"]


def scoring(**options: Any) -> Scoring:
    return Scoring(**{"queries": [QUERY], "documents": DOCUMENTS, "request_id": "r", **options})


def test_an_embedder_scores_by_cosine(bench: Bench, pooler: Pooler) -> None:
    found = bench.run(pooler.score(scoring()))
    query, *documents = arrays(bench.run(pooler.pool(call(QUERY, *DOCUMENTS))))
    assert found.scores == pytest.approx([query @ document for document in documents], abs=1e-5)
    assert found.scores[0] > 0.4 > found.scores[1]
    lengths = [len(each.prompt_ids) for each in bench.run(pooler.pool(call(QUERY, *DOCUMENTS)))]
    assert found.prompt_tokens == sum(lengths)
    assert [len(ids) for ids in found.prompt_ids] == [lengths[0] + length for length in lengths[1:]]


def test_no_cosine_is_beyond_1(bench: Bench, pooler: Pooler) -> None:
    texts = [f"text {number}" for number in range(64)]  # among so many, some are rounded up
    found = bench.run(pooler.score(scoring(queries=texts, documents=texts)))
    assert max(found.scores) <= 1
    assert found.scores == pytest.approx([1] * len(texts))


def test_texts_that_are_the_same_are_read_once_and_count_each_time(bench: Bench) -> None:
    ledger = Ledger()
    with bench.pooler(observer=ledger) as pooler:
        found = bench.run(pooler.score(scoring(queries=["mill"] * 3, documents=["mill", "river", "river"])))
    assert found.scores[0] == pytest.approx(1)
    assert found.scores[1] == found.scores[2]
    assert found.prompt_tokens == 18
    assert ledger.pooled[0].prompt_tokens == (3, 3)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"queries": ["a", "b"]}, "must be either 1:1, 1:N or N:N"),
        ({"documents": []}, "At least one"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc must be at least 0"),
    ],
)
def test_pairs_that_make_no_sense(bench: Bench, pooler: Pooler, changes: dict[str, Any], refusal: str) -> None:
    with pytest.raises(BadRequest, match=refusal):
        bench.run(pooler.score(scoring(**changes)))


def test_variables_of_a_template_that_is_not_there_are_refused(bench: Bench, pooler: Pooler) -> None:
    with pytest.raises(Unsupported, match="instruction is for decoders"):
        bench.run(pooler.score(scoring(template_kwargs={"instruction": "Judge."})))


@pytest.fixture(scope="module")
def reference_score(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[..., list[float]]]:
    """A cross-encoder's folder, and what transformers makes of pairs with it."""
    import torch
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("cross")
    model = save_bert_classifier(folder, minilm, labels=("relevance",))
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def score(queries: list[str], documents: list[str]) -> list[float]:
        scores = []
        for query, document in zip(queries, documents, strict=True):
            inputs = tokenizer([[query, document]], truncation="longest_first", max_length=64, return_tensors="pt")
            with torch.no_grad():
                scores.append(torch.sigmoid(model(**inputs).logits)[0, 0].item())
        return scores

    return folder, score


def test_a_cross_encoder_reads_both_texts_at_once(reference_score: tuple[Path, Callable[..., list[float]]]) -> None:
    folder, reference = reference_score
    queries = [QUERY, "mill", "river " * 50]
    documents = [DOCUMENTS[0], "", "The channel brings water to the wheel. " * 20]
    with contextlib.closing(Bench(folder)) as bench, bench.pooler() as pooler:
        found = bench.run(pooler.score(scoring(queries=queries, documents=documents)))
        assert found.scores == pytest.approx(reference(queries, documents), abs=1e-5)
        assert found.prompt_tokens == sum(map(len, found.prompt_ids))
        assert [len(ids) for ids in found.prompt_ids][2] == 64
        raw = bench.run(pooler.score(scoring(queries=queries, documents=documents, use_activation=False)))
        assert [1 / (1 + np.exp(-score)) for score in raw.scores] == pytest.approx(found.scores, abs=1e-5)


def test_a_classifier_of_several_classes_scores_no_pairs(minilm: Path, tmp_path: Path) -> None:
    save_bert_classifier(tmp_path, minilm, labels=("good", "bad", "ugly"))
    with contextlib.closing(Bench(tmp_path)) as bench, bench.pooler() as pooler:
        assert not pooler.can_score
        assert pooler.labels == ("good", "bad", "ugly")
        with pytest.raises(BadRequest, match="it has 3 classes"):
            bench.run(pooler.score(scoring()))
        (probabilities,) = arrays(
            bench.run(pooler.pool(call("river", params=PoolingParams(task=PoolingTask.CLASSIFY))))
        )
        assert probabilities.sum() == pytest.approx(1)


def test_vectors_of_tokens_are_compared_one_by_one(minilm: Path) -> None:
    """MaxSim, where the server is told that vectors of tokens are what the model is for."""
    by_token = PoolingParams(task=PoolingTask.TOKEN_EMBED)
    with contextlib.closing(Bench(minilm, pooler_config={"task": "token_embed"})) as bench, bench.pooler() as pooler:
        found = bench.run(pooler.score(scoring()))
        query, *documents = arrays(bench.run(pooler.pool(call(QUERY, *DOCUMENTS, params=by_token))))
    expected = [(query @ document.T).max(axis=1).sum() for document in documents]
    assert found.scores == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def decoder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[str], float]]:
    """A decoder with one class, and what transformers makes of a text with it."""
    import torch
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("decoder")
    model = save_decoder_classifier(folder, minilm)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def score(text: str) -> float:
        with torch.no_grad():
            return torch.sigmoid(
                model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits
            ).item()

    return folder, score


def test_a_decoder_reads_a_pair_as_one_text(decoder: tuple[Path, Callable[[str], float]]) -> None:
    folder, reference = decoder
    with contextlib.closing(Bench(folder)) as bench:
        with bench.pooler() as pooler:
            found = bench.run(pooler.score(scoring()))
            assert found.scores == pytest.approx([reference(QUERY + text) for text in DOCUMENTS], abs=2e-3)
            cut = bench.run(pooler.score(scoring(max_tokens_per_query=1, max_tokens_per_doc=2)))
            assert cut.scores[0] == pytest.approx(reference("whata head"), abs=2e-3)
        with bench.pooler(score_template="{{ messages[0].content }} : {{ messages[1].content }} {{ mood }}") as pooler:
            judged = bench.run(pooler.score(scoring(template_kwargs={"mood": "calm"})))
            expected = [reference(f"{QUERY} : {text} calm") for text in DOCUMENTS]
            assert judged.scores == pytest.approx(expected, abs=2e-3)
