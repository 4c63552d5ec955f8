"""A generator, an embedder and a cross-encoder in one server: in one process, and each in its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pooling_models import save_bert_classifier
from prometheus_client.parser import text_string_to_metric_families
from running_server import Server, serving

from headrace.bench.endpoints import Endpoint
from headrace.bench.target import served_model
from headrace.client.settings import Settings

EMBED = {"input": "A headrace brings water to the wheel."}
RANK = {"query": "What turns the wheel?", "documents": ["Water.", "A fish.", "The wind."]}
COMPLETE = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
MODELS = """
max-num-seqs: 32
log-stats-interval: 1
disable-uvicorn-access-log: true
models:
  - name: [chat, gpt]
    path: {smollm2}
    max-model-len: 512
    max-num-queued-reqs: 4
  - name: minilm
    path: {minilm}
  - name: rank
    path: {rank}
  - name: later
    path: {minilm}
    lazy: true
"""


@pytest.fixture(scope="session")
def models_file(smollm2_path: Path, minilm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_bert_classifier(folder / "rank", minilm_path, labels=("LABEL_0",))
    path = folder / "models.yaml"
    path.write_text(MODELS.format(smollm2=smollm2_path, minilm=minilm_path, rank=folder / "rank"))
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["together", "isolated"])
def several(request: pytest.FixtureRequest, models_file: Path) -> Iterator[Server]:
    with serving("--config", str(models_file), *(["--isolate"] if request.param else [])) as running:
        yield running


@pytest.fixture
def post(several: Server) -> Iterator[Callable[..., Any]]:
    """The body of an answer that must be a success; the error of one that must have this `status`."""
    with httpx.Client(base_url=several.url, timeout=60) as client:

        def post(path: str, body: dict[str, Any], status: int = 200) -> Any:
            response = client.post(path, json=body)
            assert response.status_code == status, response.text
            return response.json() if status == 200 else response.json()["error"]

        yield post


def engine_processes(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "headrace.runtime.child" in Path(f"/proc/{pid}/cmdline").read_text()]


def vector_of(answer: Any) -> list[float]:
    return answer["data"][0]["embedding"]


def scores_of(answer: Any) -> list[float]:
    """By document."""
    return [item["relevance_score"] for item in sorted(answer["results"], key=lambda item: item["index"])]


def announcement(server: Server) -> str:
    """All that it has printed, up to the last line of what it says when it is ready."""
    deadline = time.monotonic() + 10
    while "\ncurl " not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.01)
    return server.log


def until_healthy(server: Server) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{server.url}/health").status_code != 200:  # a probe is all that a client has
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def test_all_are_listed_and_announced(several: Server) -> None:
    cards = {card["id"]: card for card in httpx.get(f"{several.url}/v1/models").json()["data"]}
    assert list(cards) == ["chat", "gpt", "minilm", "rank", "later"]
    assert cards["gpt"]["max_model_len"] == cards["chat"]["max_model_len"] == 512
    assert cards["rank"]["max_model_len"] == 64
    told = announcement(several)
    assert "serves chat (LlamaForCausalLM" in told
    assert "and minilm (BertModel" in told
    assert "and later, loaded on first use" in told
    page = httpx.get(several.url).text
    assert "<strong>chat</strong>: ready, <strong>minilm</strong>: ready" in page


def test_the_name_picks_and_without_one_the_first_that_can(post) -> None:
    for name, shown in ((None, "chat"), ("chat", "chat"), ("gpt", "chat")):
        answer = post("/v1/completions", {**COMPLETE, "model": name})
        assert (answer["model"], answer["choices"][0]["text"].split()[0]) == (shown, "Paris.")
    named, unnamed = (post("/v1/embeddings", {**EMBED, **model}) for model in ({"model": "minilm"}, {}))
    assert named["data"] == unnamed["data"]
    assert (unnamed["model"], len(unnamed["data"][0]["embedding"])) == ("minilm", 384)
    ranked = post("/rerank", RANK)
    assert (ranked["model"], len(ranked["results"])) == ("rank", 3)
    assert post("/rerank", {**RANK, "model": "minilm"})["model"] == "minilm"
    assert post("/tokenize", {"prompt": "water", "model": "minilm"})["count"] == 3
    assert post("/detokenize", {"tokens": [504, 3575], "model": "chat"})["prompt"] == "The capital"


def test_a_benchmark_without_a_name_measures_the_model_that_has_the_endpoint(several: Server) -> None:
    settings = Settings.of(several.url, None, None, None)
    measured = {endpoint: served_model(settings, endpoint) for endpoint in Endpoint}
    assert measured == {Endpoint.COMPLETIONS: "chat", Endpoint.CHAT: "chat", Endpoint.EMBEDDINGS: "minilm"}


def test_the_official_client_talks_to_both(several: Server) -> None:
    with several.client() as client:
        assert client.embeddings.create(model="minilm", input=["a", "b"]).data[1].index == 1
        message = client.chat.completions.create(
            model="gpt", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert message.model == "chat"
        with pytest.raises(openai.NotFoundError, match="Valid aliases: chat, gpt, minilm, rank, later"):
            client.embeddings.create(model="text-embedding-3-small", input="a")


def test_a_model_for_something_else_is_refused_by_name(post) -> None:
    assert post("/v1/embeddings", {**EMBED, "model": "chat"}, 400)["message"] == (
        "The model `chat` cannot embed; `minilm` and `later` can."
    )
    error = post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": "rank"}, 400)
    assert error["message"] == "The model `rank` cannot generate text; `chat` can."
    assert error["param"] == "model"
    assert "cannot classify; `rank` can" in post("/classify", {"input": "x", "model": "minilm"}, 400)["message"]


def test_limits_are_each_models_own(post) -> None:
    assert "512" in post("/v1/completions", {**COMPLETE, "prompt": [5] * 600}, 400)["message"]
    assert "max_num_queued_reqs=4" in post("/v1/completions", {**COMPLETE, "temperature": 1, "n": 5}, 503)["message"]
    inputs = [f"text {number}" for number in range(50)]
    assert len(post("/v1/embeddings", {"input": inputs})["data"]) == 50


def test_metrics_tell_the_models_apart(several: Server, post) -> None:
    for path, body in (("/v1/completions", COMPLETE), ("/v1/embeddings", EMBED), ("/rerank", RANK)):
        post(path, body)
    ended: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{several.url}/metrics").text):
        for sample in family.samples:
            if sample.name == "vllm:request_success_total":
                name = sample.labels["model_name"]
                ended[name] = ended.get(name, 0.0) + sample.value
    assert ended.keys() >= {"chat", "minilm", "rank"}
    assert all(ended[name] > 0 for name in ("chat", "minilm", "rank"))


def test_jobs_of_an_endpoint_are_for_its_model(post) -> None:
    given = {"input": {"prompt": "The capital of France is", "sampling_params": {"temperature": 0, "max_tokens": 4}}}
    for endpoint in ("default", "chat", "gpt"):
        assert "Paris" in post(f"/v2/{endpoint}/runsync", given)["output"][0]["choices"][0]["tokens"][0]
    routed = {"input": {"openai_route": "/v1/embeddings", "openai_input": EMBED}}
    for endpoint, model in (("default", "minilm"), ("minilm", "minilm"), ("later", "later")):
        job = post(f"/v2/{endpoint}/runsync", routed)
        assert job["status"] == "COMPLETED", job
        assert (job["output"][0]["model"], len(job["output"][0]["data"][0]["embedding"])) == (model, 384)
    job = post("/v2/minilm/runsync", given)
    assert (job["status"], "cannot generate text" in str(job["error"])) == ("FAILED", True)
    assert post("/v2/minilm/openai/v1/embeddings", EMBED)["model"] == "minilm"


def test_streams_and_embeddings_at_the_same_time(several: Server, post) -> None:
    vector, scores = vector_of(post("/v1/embeddings", EMBED)), scores_of(post("/rerank", RANK))
    with several.client() as client, ThreadPoolExecutor(4) as pool:
        stream = client.completions.create(
            model="chat", prompt="Once", max_tokens=300, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        embedded = [pool.submit(post, "/v1/embeddings", EMBED) for _ in range(20)]
        ranked = [pool.submit(post, "/rerank", RANK) for _ in range(20)]
        assert all(vector_of(each.result()) == pytest.approx(vector, abs=1e-5) for each in embedded)
        assert all(scores_of(each.result()) == pytest.approx(scores, abs=1e-5) for each in ranked)
        assert list(stream)[-1].choices[0].finish_reason == "length"


def test_a_lazy_model_is_loaded_by_its_first_request(several: Server, post) -> None:
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(post, "/v1/embeddings", {**EMBED, "model": "later"}) for _ in range(4)]
        vectors = [each.result()["data"][0]["embedding"] for each in asking]
    assert all(vector == vectors[0] for vector in vectors)
    assert several.log.count("Loading later: a request wants it") == 1
    cards = {card["id"]: card for card in httpx.get(f"{several.url}/v1/models").json()["data"]}
    assert cards["later"]["max_model_len"] == cards["minilm"]["max_model_len"]


def test_a_dead_process_comes_back_with_all_its_models(several: Server, post) -> None:
    processes = engine_processes(several)
    isolated = len(processes) > 1
    before = post("/v1/embeddings", EMBED)["data"]
    with several.client() as client:
        stream = client.completions.create(
            model="chat", prompt="x", max_tokens=500, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        os.kill(processes[0], signal.SIGKILL)  # the generator's, which was started first
        with pytest.raises(openai.APIError, match="engine process died"):
            list(stream)
        assert httpx.get(f"{several.url}/health").status_code == 503
        if isolated:
            assert post("/v1/embeddings", EMBED)["data"] == before
        else:
            assert "started again" in post("/v1/embeddings", EMBED, 503)["message"]
        until_healthy(several)
        assert client.completions.create(model="chat", prompt="x", max_tokens=2).choices
    assert post("/v1/embeddings", EMBED)["data"] == before
    assert post("/rerank", RANK)["results"]
    assert len(engine_processes(several)) == len(processes)
    assert (set(engine_processes(several)) & set(processes)) == (set(processes[1:]) if isolated else set())


def test_nothing_said_serves_an_embedder_on_first_use(smollm2_path: Path, minilm_path: Path) -> None:
    with serving() as server:
        told = announcement(server)
        assert "serves smollm2 (" in told
        assert "and minilm, loaded on first use" in told
        cards = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert [(card["id"], card["max_model_len"] is None) for card in cards] == [("smollm2", False), ("minilm", True)]
        answer = httpx.post(f"{server.url}/v1/embeddings", json=EMBED, timeout=60).json()
        assert (answer["model"], len(answer["data"][0]["embedding"])) == ("minilm", 384)
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_an_embedder_alone_and_a_lazy_model_that_cannot_be_loaded(minilm_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    models = tmp_path / "models.yaml"
    models.write_text(f"models: [{minilm_path}, {{name: broken, path: {broken}, lazy: true, task: embed}}]")
    with serving("--config", str(models)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert "vectors of 384" in announcement(server)
        refused = client.post("/v1/embeddings", json={**EMBED, "model": "broken"})
        assert refused.status_code == 503
        assert "`broken` cannot be loaded" in refused.json()["error"]["message"]
        assert str(tmp_path) not in refused.text
        assert client.get("/health").status_code == 200
        assert client.post("/v1/embeddings", json=EMBED).json()["model"] == str(minilm_path)
        refused = client.post("/v1/completions", json=COMPLETE)
        assert refused.status_code == 400
        assert "No model of this server can generate text; `headrace serve smollm2`" in refused.text
        assert server.stop() == 0
        assert "/v1/embeddings -H" in server.log
