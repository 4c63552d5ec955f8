"""`headrace completion`: a real shell completes with what it prints."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.cli.main import main

COMPLETE = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_headrace
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "headrace.bash"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text: lines.append(text))
        assert main(["completion", "bash"]) == 0
    path.write_text("\n".join(lines))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected", "missing"),
    [
        ("headrace ''", {"serve", "chat", "tokens", "embed", "run-batch", "doctor", "bench", "models"}, {"cancel"}),
        ("headrace run", {"run-batch"}, {"serve"}),
        ("headrace jobs ''", {"list", "show", "cancel", "follow"}, {"serve"}),
        ("headrace serve --max-num", {"--max-num-seqs", "--max-num-batched-tokens"}, {"--model"}),
        ("headrace serve --", {"--port", "--api-key"}, {"--enable-lora"}),
        ("headrace chat --", {"--n", "--system", "--url"}, {"--port"}),
        ("headrace completion ''", {"bash", "zsh", "fish"}, {"serve"}),
    ],
)
def test_bash_completes(script: Path, words: str, expected: set[str], missing: set[str]):
    program = COMPLETE.format(script=script, words=words)
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    offered = set(done.stdout.split())
    assert expected <= offered
    assert not missing & offered


def test_it_is_installed_where_the_shell_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["completion", "fish", "--install"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_relative_to(tmp_path)
    assert "run-batch" in path.read_text()


def test_another_shell(capsys: pytest.CaptureFixture[str]):
    assert main(["completion", "tcsh"]) == 2
    assert 'Invalid value "tcsh" for SHELL. Choose from: ' in capsys.readouterr().err
