"""`headrace chat` against a real server: a conversation on a terminal, and in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from terminal import on_terminal

SHORT = ("--temperature", "0", "--max-tokens", "3")


def piped(remote: dict[str, str], text: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "chat", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **remote},
        cwd=folder,
        check=False,
    )


def test_a_conversation_on_a_terminal(remote: dict[str, str], tmp_path: Path):
    saved = tmp_path / "chat.json"
    with on_terminal("chat", *SHORT, "--system", "Be brief.", environment=remote) as terminal:
        terminal.expect("smol at http://127.0.0.1:")
        terminal.expect("> ")
        terminal.type("Name a \\\r")
        terminal.expect("... ")
        terminal.type("colour.\r")
        terminal.expect("[cut off")
        terminal.expect("> ")
        terminal.type('"""\rTwo\rlines\r"""\r')
        terminal.expect("[cut off")
        terminal.expect("> ")
        terminal.type(f"/save {saved}\r")
        terminal.expect("Saved 5 messages")
        terminal.type("/help\r")
        terminal.expect("/system TEXT")
        terminal.type("/nothing\r")
        terminal.expect("There is no /nothing.")
        terminal.type("/save /no/such/folder/x\r")
        terminal.expect("cannot be written: No such file or directory")
        terminal.type("/clear\r/system\r")
        terminal.type(f"/save {saved}2\r")
        terminal.expect("Saved 0 messages")
        terminal.type("\x03")
        terminal.expect("/quit or Ctrl-D ends.")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0
    system, first, answer, second, _ = json.loads(saved.read_text())
    assert system == {"role": "system", "content": "Be brief."}
    assert first == {"role": "user", "content": "Name a \ncolour."}
    assert answer["role"] == "assistant"
    assert answer["content"]
    assert second == {"role": "user", "content": "Two\nlines"}


def test_an_answer_that_is_stopped_is_remembered_as_far_as_it_came(remote: dict[str, str], tmp_path: Path):
    saved = tmp_path / "chat.json"
    with on_terminal("chat", "--max-tokens", "1800", "--temperature", "0", environment=remote) as terminal:
        terminal.expect("> ")
        terminal.type("Count to ten thousand, one by one.\r")
        terminal.expect("one by one.\r\n")
        terminal.expect(" ")
        terminal.type("\x03")
        terminal.expect("[stopped]")
        terminal.expect("> ")
        terminal.type(f"/save {saved}\r")
        terminal.expect("Saved 2 messages")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.screen
    answer = json.loads(saved.read_text())[1]["content"]
    assert 0 < len(answer) < 4000


def test_a_pipe_gets_answers_only(remote: dict[str, str], tmp_path: Path):
    done = piped(remote, "/system Be brief.\nName a colour.\n\n//slash\n/save chat.json\n", *SHORT, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    messages = json.loads((tmp_path / "chat.json").read_text())
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert done.stdout == "".join(f"{answer}\n" for answer in answers) + "Saved 5 messages to chat.json.\n"
    assert messages[3] == {"role": "user", "content": "/slash"}


def test_a_failure_in_a_pipe_ends_it(remote: dict[str, str], tmp_path: Path):
    done = piped(remote, "Hello\nAgain\n", "--temperature", "-1", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("headrace: temperature must be")
    assert done.stderr.count("headrace:") == 1


def test_a_failure_on_a_terminal_does_not(remote: dict[str, str]):
    with on_terminal("chat", "--temperature", "-1", environment=remote) as terminal:
        terminal.expect("> ")
        terminal.type("Hello\r")
        terminal.expect("headrace: temperature must be")
        terminal.expect("> ")
        terminal.type("\x04")
        assert terminal.exit_code() == 0


def test_candidates_are_drawn_and_one_is_picked(remote: dict[str, str], tmp_path: Path):
    saved = tmp_path / "chat.json"
    with on_terminal("chat", "--n", "3", "--max-tokens", "12", "--temperature", "0.9", environment=remote) as terminal:
        terminal.expect("> ")
        terminal.type("Tell a story.\r")
        terminal.expect("Go on with which? [1-3, default 1] ")
        drawn = terminal.screen
        terminal.type("4\r")
        terminal.expect("A number from 1 to 3")
        terminal.expect("default 1] ")
        terminal.type("2\r")
        terminal.expect("> ")
        terminal.type("Another.\r")
        terminal.expect("default 1] ")
        terminal.type("\x03")  # none of them
        terminal.expect("> ")
        terminal.type(f"/save {saved}\r")
        terminal.expect("Saved 2 messages")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.screen
    assert drawn.count("1 of 3") >= 2, "nothing was drawn again"
    last = drawn[drawn.rfind("1 of 3") :]
    assert "2 of 3" in last
    assert "3 of 3" in last
    question, answer = json.loads(saved.read_text())
    assert question["content"] == "Tell a story."
    second_column = [line.split("\u2502")[2].strip() for line in last.splitlines() if line.count("\u2502") > 3]
    assert second_column[0].split()[0] in answer["content"]


def test_candidates_in_a_pipe_go_on_with_the_first(remote: dict[str, str], tmp_path: Path):
    done = piped(remote, "Tell a story.\n/save chat.json\n", "--n", "2", "--max-tokens", "6", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads((tmp_path / "chat.json").read_text())[1]["content"]
    assert done.stdout.startswith(f"--- 1 of 2 ---\n{answer}\n--- 2 of 2 ---\n")


def test_there_is_at_least_one_candidate(remote: dict[str, str], tmp_path: Path):
    done = piped(remote, "Hello\n", "--n", "0", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--n must be at least 1, got 0" in done.stderr
