"""What the `headrace` command says, and the codes it ends with, when there is nothing to serve."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import __version__
from headrace.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["serve", "--max-num-seq", "1"], 2, "headrace: unknown flag --max-num-seq; did you mean --max-num-seqs?"),
        (["serve", "--port", "-1"], 2, "headrace: --port must be from 0 to 65535, got -1."),
        (["serve", "--enable-lora"], 2, "headrace: --enable-lora is not implemented yet."),
        (["sevre"], 2, 'Did you mean "serve"?'),
        (["pull"], 2, "headrace: NAME needs a value."),
        (["models", "x"], 2, "headrace: unexpected argument 'x'."),
        (["pull", "no-such-model"], 1, "no-such-model"),
        (["serve", "/no/such/model.gguf", "--port", "0"], 1, "/no/such/model.gguf"),
        (["serve", "--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:8000: "),
        (["serve", "--uds", "/no/such/folder/socket"], 1, "cannot listen on /no/such/folder/socket: No such file"),
        (["serve", "--ssl-keyfile", "/no/key", "--ssl-certfile", "/no/cert"], 2, "--ssl-certfile and --ssl-keyfile"),
        (["serve", "--generation-config", "/nowhere", "--port", "0", "/no/such/model.gguf"], 1, "/no/such/model.gguf"),
    ],
)
def test_errors_are_one_line_without_a_traceback(arguments: list[str], code: int, text: str, capsys):
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert text in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: it is in use" in capsys.readouterr().err


def test_a_unix_socket_in_use_stays(tmp_path: Path, capsys):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert main(["serve", "--uds", str(path)]) == 1
    assert "it is in use" in capsys.readouterr().err
    assert path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    assert main(["serve", "--uds", str(path)]) == 1
    assert "it is in use" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_models_lists_what_is_known(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "smollm2" in out
    assert "Apache-2.0" in out


def test_pull_prints_where_the_model_is(smollm2_path: Path, capsys):
    assert main(["pull", "smollm2"]) == 0
    assert capsys.readouterr().out == f"{smollm2_path}\n"


def test_help_is_grouped_and_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["serve", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert [heading.split(":")[0] for heading in headings] == [
        "Model",
        "Engine",
        "Limits",
        "HTTP",
        "API",
        "Jobs",
        "Runpod",
        "Logging",
        "General",
    ]
    assert max(len(line) for line in lines) <= 80
    assert any(line.startswith("  --max-num-seqs SIZE ") for line in lines)
    assert any(line.startswith("  --[no-]enable-prefix-caching") for line in lines)
    assert not any("enable-lora" in line for line in lines)


def test_module_and_version():
    answer = subprocess.run([sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == __version__


def test_the_command_loads_nothing_heavy_before_it_serves():
    code = (
        "import sys; from headrace.cli.main import main; main(['--help']);"
        "print([name for name in ('torch', 'fastapi', 'numpy', 'uvicorn', 'msgspec') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
