"""`headrace embed` against a real server of an embedding model: on a terminal, in pipes, and when it cannot work."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import serving
from terminal import on_terminal

TEXTS = ("A cat sleeps.", "A kitten naps.", "Interest rates rise.")


@pytest.fixture(scope="module")
def embedder(minilm_path: Path) -> Iterator[dict[str, str]]:
    with serving(str(minilm_path), "--served-model-name", "mini") as running:
        yield {"HEADRACE_BASE_URL": running.url, "NO_COLOR": "1"}


def run(embedder: dict[str, str], *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "embed", *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        env={**os.environ, **embedder},
        check=False,
    )


def output(embedder: dict[str, str], *arguments: str, given: str | None = None) -> str:
    done = run(embedder, *arguments, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_vectors_are_lines_in_a_pipe(embedder: dict[str, str]):
    vectors = [json.loads(line) for line in output(embedder, *TEXTS).splitlines()]
    assert [len(vector) for vector in vectors] == [384] * 3
    assert all(math.hypot(*vector) == pytest.approx(1.0, abs=1e-4) for vector in vectors)
    piped = output(embedder, given="\n".join(TEXTS) + "\n")
    assert [json.loads(line) for line in piped.splitlines()] == [pytest.approx(vector, abs=1e-5) for vector in vectors]


def test_json_is_the_servers_answer(embedder: dict[str, str]):
    answer = json.loads(output(embedder, TEXTS[0], "--json", "--model", "mini"))
    assert answer["model"] == "mini"
    assert len(answer["data"][0]["embedding"]) == 384
    assert answer["usage"]["prompt_tokens"] > 0


def test_a_terminal_is_shown_what_is_alike(embedder: dict[str, str]):
    with on_terminal("embed", *TEXTS, environment=embedder) as terminal:
        assert terminal.exit_code() == 0
    lines = terminal.screen.splitlines()
    assert lines[0].startswith("  1  384 dimensions, length 1.000  [")
    assert lines[0].endswith(TEXTS[0])
    table = [[float(cell) for cell in line.split()[1:]] for line in lines[lines.index("Cosine similarity") + 2 :]]
    assert [row[place] for place, row in enumerate(table)] == [1.0, 1.0, 1.0]
    assert table[0][1] > 0.5 > table[0][2]


@pytest.mark.parametrize(
    ("arguments", "given", "code", "message"),
    [
        ((), "", 2, "TEXT needs a value: standard input is empty"),
        (("Hi", "--dimensions", "7"), None, 1, "dimensions"),
        (("Hi", "--model", "another"), None, 1, "/v1/models for what is served"),
        (("Hi", "--url", "nowhere"), None, 2, "must begin with http://"),
    ],
)
def test_errors_have_a_hint_and_no_traceback(
    embedder: dict[str, str], arguments: tuple[str, ...], given: str | None, code: int, message: str
):
    done = run(embedder, *arguments, given=given)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("headrace: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
