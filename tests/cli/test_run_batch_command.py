"""`headrace run-batch` against real servers: what comes of each line, and of a batch that is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_server import serving
from safetensors.numpy import save_file
from terminal import on_terminal

COMMAND = [sys.executable, "-m", "headrace", "run-batch"]

INTERRUPTED = 10_000
"""Lines of the batch that is interrupted."""

WEIGHTS = "model.safetensors"


def completion(custom_id: str, prompt: Any = "Once", url: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    given = {"prompt": prompt, "max_tokens": 1, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": given}


def write(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path) -> dict[str, Any]:
    """Outcomes by custom id, or by their own where they have none. Each may be there once only."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    by_name = {outcome["custom_id"] or outcome["id"]: outcome for outcome in found}
    assert len(by_name) == len(found), "a line stands twice in the output"
    return by_name


def run(
    given: Path, out: Path, *arguments: str, remote: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "-i", str(given), "-o", str(out), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(remote or {})},
        check=False,
    )


@pytest.fixture(scope="module")
def quick(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server whose model is so small that ten thousand requests take half a minute."""
    folder = tmp_path_factory.mktemp("model")
    hidden, inner, vocabulary = 64, 128, 49152
    shape = {"q": (64, hidden), "k": (64, hidden), "v": (64, hidden), "o": (hidden, 64)}
    layer = {f"self_attn.{name}_proj.weight": size for name, size in shape.items()}
    layer |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden)}
    layer |= {"mlp.down_proj.weight": (hidden, inner)}
    layer |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    sizes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    sizes |= {f"model.layers.0.{name}": size for name, size in layer.items()}
    random = np.random.default_rng(0)
    save_file({name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}, folder / WEIGHTS)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with serving(str(folder), "--tokenizer", str(smollm2_path), "--disable-uvicorn-access-log") as running:
        yield {"HEADRACE_BASE_URL": running.url}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_every_line_has_its_outcome(remote: dict[str, str], tmp_path: Path, out: Path):
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "temperature": 0}
    given = write(
        tmp_path / "in.jsonl",
        [
            completion("text", model="smol"),
            {"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", "body": chat},
            completion("ids", prompt=[504, 3575]),
            "{broken",
            completion("lost", url="/v1/nothing"),
            completion("text", prompt="Another"),
            completion("unknown", model="another"),
            completion("wrong", top_p=7),
            "",
        ],
    )
    done = run(given, out, "--json", remote=remote)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["succeeded"], summary["failed"], summary["skipped"]) == (3, 5, 0)
    found = read(out)
    assert found["text"]["response"]["status_code"] == 200
    assert found["text"]["response"]["body"]["choices"][0]["text"]
    assert found["chat"]["response"]["body"]["object"] == "chat.completion"
    assert found["ids"]["response"]["request_id"].startswith("cmpl-")
    codes = {name: outcome["error"]["code"] for name, outcome in found.items() if outcome["error"]}
    assert codes == {
        "batch_req_4": "invalid_line",
        "lost": "invalid_url",
        "batch_req_6": "duplicate_custom_id",
        "unknown": "http_404",
        "wrong": "http_400",
    }
    assert "top_p" in found["wrong"]["response"]["body"]["error"]["message"]

    again = run(given, out, "--json", remote=remote)
    assert again.returncode == 1, "there are still errors in the output"
    assert json.loads(again.stdout)["skipped"] == 8
    assert read(out) == found

    write(given, [completion("wrong", top_p=0.5), completion("text"), completion("unknown"), completion("lost")])
    mended = run(given, out, "--retry-failed", remote=remote)
    assert (mended.returncode, mended.stdout) == (0, "")
    assert mended.stderr.startswith("3 requests answered, 0 failed, 1 were before in ")
    assert read(out).keys() == {"text", "chat", "ids", "wrong", "unknown", "lost"}


def test_ten_thousand_lines_interrupted_three_times(quick: dict[str, str], tmp_path: Path, out: Path):
    names = [f"request-{number}" for number in range(INTERRUPTED)]
    lines = (completion(name, prompt=[504, 100 + number % 5000]) for number, name in enumerate(names))
    given = write(tmp_path / "in.jsonl", lines)
    arguments = [*COMMAND, "-i", str(given), "-o", str(out)]
    for share, how in ((0.2, signal.SIGKILL), (0.4, signal.SIGINT), (0.6, signal.SIGKILL)):
        with subprocess.Popen(arguments, env={**os.environ, **quick}, stderr=subprocess.PIPE, text=True) as process:
            while not out.exists() or out.read_bytes().count(b"\n") < share * INTERRUPTED:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.1)
            process.send_signal(how)
            _, said = process.communicate(timeout=30)
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert "The same command goes on from there." in said
            assert "Traceback" not in said
        else:
            assert process.returncode == -signal.SIGKILL
    with out.open("ab") as file:
        file.write(b'{"id": "batch_req_1", "custom')  # as if it had been torn, too
    done = run(given, out, "--json", remote=quick)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["skipped"] >= 0.6 * INTERRUPTED
    assert summary["succeeded"] + summary["skipped"] == INTERRUPTED
    found = read(out)
    assert found.keys() == set(names)
    assert all(outcome["response"]["status_code"] == 200 for outcome in found.values())


def test_a_model_is_served_for_the_batch(smollm2_path: Path, tmp_path: Path, out: Path):
    given = write(
        tmp_path / "in.jsonl", [completion("a"), completion("b", model="smol"), completion("c", n=2, temperature=1)]
    )
    flags = ("--served-model-name", "smol", "--max-model-len", "512")
    done = run(given, out, "--model", str(smollm2_path), *flags, "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("3 requests answered, 0 failed in ")
    assert {outcome["response"]["body"]["model"] for outcome in read(out).values()} == {"smol"}


def test_vectors_and_scores(minilm_path: Path, tmp_path: Path, out: Path):
    texts = ["A kitten naps.", "Interest rates rise."]
    bodies = {
        "/v1/embeddings": {"input": texts},
        "/score": {"text_1": "A cat sleeps.", "text_2": texts},
        "/v1/rerank": {"query": "A cat sleeps.", "documents": texts},
    }
    lines = [{"custom_id": url, "method": "POST", "url": url, "body": body} for url, body in bodies.items()]
    done = run(write(tmp_path / "in.jsonl", lines), out, "--model", str(minilm_path))
    assert done.returncode == 0, done.stderr
    found = {name: outcome["response"]["body"] for name, outcome in read(out).items()}
    assert [len(item["embedding"]) for item in found["/v1/embeddings"]["data"]] == [384, 384]
    assert found["/score"]["data"][0]["score"] > found["/score"]["data"][1]["score"]
    assert [result["index"] for result in found["/v1/rerank"]["results"]] == [0, 1]


def test_progress_is_drawn_on_a_terminal(remote: dict[str, str], tmp_path: Path, out: Path):
    given = write(tmp_path / "in.jsonl", [completion(f"r{number}") for number in range(90)])
    arguments = ("run-batch", "-i", str(given), "-o", str(out), "--concurrency", "2")
    with on_terminal(*arguments, columns=100, environment=remote) as terminal:
        terminal.expect("100%")
        terminal.expect("90 requests answered, 0 failed in ")
        assert terminal.exit_code() == 0
    assert re.search(r" [1-9]\d?%", terminal.screen), "nothing was drawn in between"
    assert len(read(out)) == 90


def test_ctrl_c_on_a_terminal(remote: dict[str, str], tmp_path: Path, out: Path):
    slow = [completion(f"r{number}", max_tokens=40, ignore_eos=True) for number in range(400)]
    given = write(tmp_path / "in.jsonl", slow)
    with on_terminal(
        "run-batch", "-i", str(given), "-o", str(out), "--concurrency", "2", environment=remote
    ) as terminal:
        terminal.expect("requests answered, 0 failed")
        terminal.type("\x03")
        terminal.expect("The same command goes on from there.")
        assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.screen
    assert 1 <= len(read(out)) < 400


def test_a_server_that_is_not_there_fails_no_line(tmp_path: Path, out: Path):
    given = write(tmp_path / "in.jsonl", [completion("a")])
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        done = run(given, out, "--url", url, "--retries", "0")
    assert done.returncode == 1
    assert f"Nobody answers at {url}" in done.stderr
    assert out.read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--url", "nowhere"), 2, "must begin with http://"),
        (("--api-key", "wrong"), 1, "Set HEADRACE_API_KEY"),
        (("--concurrency", "0"), 2, "--concurrency must be at least 1"),
        (("--retries", "-1"), 2, "--retries must be at least 0"),
        (("--max-model-len", "512"), 2, "unexpected argument '--max-model-len'"),
        (("--model", "smollm2", "--url", "http://localhost"), 2, "--model starts a server"),
        (("--model", "smollm2", "--max-num-seq", "1"), 2, "did you mean --max-num-seqs?"),
        (("--model", "/no/such/model.gguf"), 1, "/no/such/model.gguf"),
    ],
)
def test_misuse_has_a_hint_and_no_traceback(
    remote: dict[str, str], tmp_path: Path, out: Path, arguments: tuple[str, ...], code: int, message: str
):
    given = write(tmp_path / "in.jsonl", [completion("a")])
    done = run(given, out, *arguments, remote=remote)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_is_full(remote: dict[str, str], tmp_path: Path, out: Path):
    given = write(tmp_path / "in.jsonl", [completion(f"r{number}") for number in range(20)])
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *COMMAND, "-i", str(given), "-o", str(out)],  # 4 KiB a file
        capture_output=True,
        text=True,
        env={**os.environ, **remote},
        check=False,
    )
    assert done.returncode == 1
    assert "headrace: the batch cannot go on: File too large." in done.stderr
    assert "Traceback" not in done.stderr
    before = len(read(out))
    assert 0 < before < 20
    assert run(given, out, remote=remote).returncode == 0
    assert len(read(out)) == 20


def test_files_that_do_not_serve(tmp_path: Path):
    given = write(tmp_path / "in.jsonl", [completion("a")])
    missing = tmp_path / "no" / "file"
    assert f"cannot read {missing}: No such file or directory" in run(missing, tmp_path / "out.jsonl").stderr
    assert f"cannot open {missing}: No such file or directory" in run(given, missing).stderr
    assert "Is a directory" in run(tmp_path, tmp_path / "out.jsonl").stderr
    done = run(given, given)
    assert done.returncode == 2
    assert "must not be the same file" in done.stderr
    assert json.loads(given.read_text()) == completion("a")
