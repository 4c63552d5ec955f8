"""`headrace tokens` against a real server: the template and the tokenizer are applied on this side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import on_terminal

from headrace.client import Client

MESSAGE = "Name a colour."
GREEDY = ("--temperature", "0", "--max-tokens", "8")


def run(remote: dict[str, str], *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "tokens", *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        env={**os.environ, **remote},
        check=False,
    )


def output(remote: dict[str, str], *arguments: str, given: str | None = None) -> str:
    done = run(remote, *arguments, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_answer_is_that_of_a_chat(remote: dict[str, str]):
    with Client(remote["HEADRACE_BASE_URL"], remote["HEADRACE_API_KEY"]) as client:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": MESSAGE}]
        chat = client.chat(messages, temperature=0, max_tokens=8)
        prompt = client.tokenize(messages)
    arguments = (MESSAGE, "--system", "Be brief.", *GREEDY)
    assert output(remote, *arguments) == f"{chat.text}\n"
    assert output(remote, *arguments, "--no-stream") == f"{chat.text}\n"
    whole = json.loads(output(remote, *arguments, "--json"))
    assert whole["prompt_token_ids"] == prompt.tokens
    assert whole["choices"][0]["text"] == chat.text
    ids = whole["choices"][0]["token_ids"]
    assert output(remote, *arguments, "--ids") == " ".join(map(str, ids)) + "\n"
    chunks = [json.loads(line) for line in output(remote, *arguments, "--json", "--stream").splitlines()]
    assert len(chunks) > 3
    assert [token for chunk in chunks for choice in chunk["choices"] for token in choice["token_ids"]] == ids


def test_pipes_and_raw_text(remote: dict[str, str]):
    raw = ("--raw", "--temperature", "0", "--max-tokens", "4")
    answer = output(remote, *raw, given="The capital of France is\n")
    assert "Paris" in answer
    assert output(remote, "The capital of France is", *raw) == answer


def test_it_is_written_on_a_terminal_as_it_comes(remote: dict[str, str]):
    with on_terminal("tokens", MESSAGE, *GREEDY, environment=remote) as terminal:
        assert terminal.exit_code() == 0
    assert terminal.screen.replace("\r\n", "\n") == output(remote, MESSAGE, *GREEDY)


def test_the_tokenizer_may_be_elsewhere(remote: dict[str, str], smollm2_path: Path, tmp_path: Path):
    moved = tmp_path / "tokenizer.gguf"
    shutil.copy(smollm2_path, moved)
    assert output(remote, MESSAGE, *GREEDY, "--tokenizer", str(moved)) == output(remote, MESSAGE, *GREEDY)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("Hi", "--raw", "--system", "x"), 2, "--raw and --system exclude each other"),
        (("Hi", "--ids", "--json"), 2, "--ids and --json exclude each other"),
        (("Hi", "--tokenizer", "/no/such/folder"), 1, "/no/such/folder"),
        (("Hi", "--temperature", "-1"), 1, "temperature must be"),
        (("Hi", "--model", "another"), 2, "the server serves no another; it serves smol."),
        (("Hi", "--url", "nowhere"), 2, "must begin with http://"),
    ],
)
def test_errors_have_a_hint_and_no_traceback(
    remote: dict[str, str], arguments: tuple[str, ...], code: int, message: str
):
    done = run(remote, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("headrace: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
