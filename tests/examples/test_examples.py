"""Every example does what its first lines promise."""

from __future__ import annotations

import ast
import re
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running_server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("name.py", "--flag", …)` runs an example and returns what it has printed."""

    def runner(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return runner


def openai_arguments(server: Server) -> tuple[str, ...]:
    return ("--base-url", f"{server.url}/v1")


def legacy_arguments(server: Server) -> tuple[str, ...]:
    return ("--host", "127.0.0.1", "--port", str(server.port))


def test_openai_sync(run: Run, example_server: Server) -> None:
    out = run("openai_sync.py", "What is the capital of France?", *openai_arguments(example_server))
    answer, text = out.split("Text: ")
    assert answer.startswith("Answer: ")
    assert len(answer.split()) > 3
    assert text.startswith("The capital of France is")
    assert len(text.split()) > 6


def test_openai_async(run: Run, example_server: Server) -> None:
    questions = ["What is a river?", "What is a mill?", "What is a wheel?"]
    lines = run("openai_async.py", *questions, *openai_arguments(example_server)).splitlines()
    assert [line for line in lines if line in questions] == questions
    assert sum(line.startswith("  ") for line in lines) == 3


def test_structured_outputs(run: Run, example_server: Server) -> None:
    out = run("structured_outputs.py", *openai_arguments(example_server))
    assert re.fullmatch(
        r"Pet: kind='(cat|dog|fish)' name='.{0,16}' age=\d+\n"
        r"Mood: (positive|negative)\n"
        r"Number: \+1-\d{3}-\d{4}\n",
        out,
    )


def test_openai_streaming(run: Run, example_server: Server) -> None:
    out = run("openai_streaming.py", "--max-tokens", "12", *openai_arguments(example_server))
    assert re.search(r"\[ended by (length|stop)\]\n\[\d+ tokens in, \d+ tokens out\]\n$", out)
    assert len(out.split("[ended")[0].split()) > 3


def test_openai_without_a_server(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SystemExit, match="headrace serve"):
        run("openai_sync.py", "--base-url", f"http://127.0.0.1:{port}/v1")


@pytest.fixture(scope="session")
def tokenizer_folder(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's tokenizer as transformers keeps it; it reads this in no time, and a GGUF file in five seconds."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name).save_pretrained(folder)
    return folder


def test_token_ids(run: Run, example_server: Server, tokenizer_folder: Path) -> None:
    arguments = ("--url", example_server.url, "--temperature", "0", "--max-tokens", "16")
    arguments += ("--tokenizer", str(tokenizer_folder))
    question = "How many countries are in the EU?"
    with example_server.client() as client:
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": question},
        ]
        spoken = client.chat.completions.create(model="smol", messages=messages, max_tokens=16, temperature=0)
    ids, text = run("token_ids_client.py", question, *arguments).split("\ntext: ")
    assert 1 <= len(re.findall(r"\d+", ids)) <= 16
    assert text.removesuffix("\n") == spoken.choices[0].message.content
    pieces, streamed = run("token_ids_client.py", question, "--stream", *arguments).split("\ntext: ")
    assert streamed == text
    assert len(pieces.splitlines()) > 3


def test_token_ids_refused(run: Run, example_server: Server) -> None:
    """The tokenizer is taken from where the server says that its model is."""
    with pytest.raises(SystemExit, match="temperature must be in"):
        run("token_ids_client.py", "--url", example_server.url, "--temperature", "3")


def test_legacy(run: Run, example_server: Server) -> None:
    out = run("legacy_client.py", "--prompt", "The capital of France is", *legacy_arguments(example_server))
    assert "Beam candidate 0: 'The capital of France is Paris" in out


def test_legacy_candidates(run: Run, example_server: Server) -> None:
    out = run("legacy_client.py", "--prompt", "Once upon a time", "--n", "3", *legacy_arguments(example_server))
    candidates = [ast.literal_eval(shown) for shown in re.findall(r"Beam candidate \d: (.*)", out)]
    assert len(candidates) == len(set(candidates)) == 3
    assert all(text.startswith("Once upon a time") for text in candidates)


@pytest.mark.parametrize("n", [1, 3])
def test_legacy_streaming_draws_over_what_it_has_shown(run: Run, example_server: Server, n: int) -> None:
    prompt = "The future of AI is"
    arguments = ("--prompt", prompt, "--n", str(n), *legacy_arguments(example_server))
    out = run("legacy_client.py", "--stream", *arguments)
    frames = out.split("\033[1A\033[2K" * n)
    assert len(frames) > 3
    shown = frames[-1].splitlines()
    assert shown == run("legacy_client.py", *arguments).splitlines()[-n:]
    assert len(shown) == n
    if n == 1:
        assert len(frames[1]) < len(frames[-1])


def test_legacy_errors(run: Run, example_server: Server) -> None:
    with pytest.raises(SystemExit, match=r"HTTP error: 400.*\n.*n must be at least 1"):
        run("legacy_client.py", "--n", "0", *legacy_arguments(example_server))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SystemExit, match=r"python -m headrace\.api\.legacy"):
        run("legacy_client.py", "--host", "127.0.0.1", "--port", str(port))
