"""`headrace complete` against a real server: on a terminal, in pipes, and when it cannot work."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

import pytest
from terminal import on_terminal

from headrace.cli.remote import shown

PROMPT = "The capital of France is"
GREEDY = ("--temperature", "0", "--max-tokens", "6")


def run(remote: dict[str, str], *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "complete", *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        env={**os.environ, **remote},
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def text_of(remote: dict[str, str], *arguments: str, given: bytes | None = None) -> str:
    done = run(remote, *arguments, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_text_is_the_same_however_it_is_asked_for(remote: dict[str, str]):
    streamed = text_of(remote, PROMPT, *GREEDY)
    assert "Paris" in streamed
    assert text_of(remote, PROMPT, *GREEDY, "--no-stream") == streamed
    assert text_of(remote, "-", *GREEDY, given=PROMPT.encode() + b"\n") == streamed
    assert text_of(remote, *GREEDY, given=PROMPT.encode()) == streamed


def test_several_in_a_pipe_come_one_after_the_other(remote: dict[str, str]):
    lines = text_of(remote, PROMPT, "--n", "2", "--temperature", "0.9", "--max-tokens", "4").splitlines()
    assert [line for line in lines if line.startswith("---")] == ["--- 1 of 2 ---", "--- 2 of 2 ---"]


def test_json_whole_and_in_chunks(remote: dict[str, str]):
    whole = json.loads(text_of(remote, PROMPT, *GREEDY, "--json", "--model", "smol"))
    assert whole["usage"]["completion_tokens"] == 6
    chunks = [json.loads(line) for line in text_of(remote, PROMPT, *GREEDY, "--json", "--stream").splitlines()]
    assert len(chunks) > 3
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]


@pytest.mark.parametrize("columns", [100, 40])
def test_several_are_drawn_side_by_side(remote: dict[str, str], columns: int):
    arguments = ("complete", PROMPT, "--n", "3", "--temperature", "0.9", "--max-tokens", "24")
    with on_terminal(*arguments, columns=columns, environment=remote) as terminal:
        assert terminal.exit_code() == 0
    frames = terminal.screen.split("\x1b[2K")
    assert len(frames) > 3, "nothing was drawn again"
    last = terminal.screen[terminal.screen.rfind("1 of 3") :]
    assert all(f"{number} of 3" in last for number in (1, 2, 3))
    side_by_side = re.search(r"1 of 3.*2 of 3.*3 of 3", last) is not None
    assert side_by_side == (columns == 100)


def test_one_is_written_on_a_terminal_as_it_comes(remote: dict[str, str]):
    with on_terminal("complete", PROMPT, *GREEDY, environment=remote) as terminal:
        assert terminal.exit_code() == 0
    assert terminal.screen.replace("\r\n", "\n") == text_of(remote, PROMPT, *GREEDY)


def test_a_reader_that_leaves(remote: dict[str, str]):
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "complete", "Once", "--max-tokens", "200"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **remote},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_is_no_traceback(remote: dict[str, str]):
    with on_terminal("complete", "Once upon a time", "--max-tokens", "1500", environment=remote) as terminal:
        terminal.expect(" ")
        terminal.type("\x03")
        assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.screen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("Hi", "--n", "0"), 1, "n must be"),
        (("Hi", "--n", "many"), 2, "--n"),
        (("Hi", "--temperature", "-1"), 1, "temperature must be"),
        (("Hi", "--max-token", "3"), 2, "--max-token"),
        (("Hi", "--model", "another"), 1, "/v1/models for what is served"),
        (("Hi", "--api-key", "wrong"), 1, "Set HEADRACE_API_KEY"),
        (("Hi", "--url", "localhost:8000"), 2, "must begin with http://"),
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


def test_nobody_there(remote: dict[str, str]):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        done = run(remote, "Hi", "--url", url)
    assert done.returncode == 1
    assert f"Nobody answers at {url}. Start a server with: headrace serve" in done.stderr


def test_no_prompt(remote: dict[str, str]):
    with on_terminal("complete", environment=remote) as terminal:
        assert terminal.exit_code() == 2
    assert "PROMPT needs a value" in terminal.screen
    assert "not UTF-8" in run(remote, given=b"\xff").stderr


def test_a_model_cannot_steer_the_terminal():
    assert shown("a\tb\n\x1b[2J\x07é") == "a\tb\n\ufffd[2J\ufffdé"
