"""`python -m headrace.api.legacy` takes the flags of `headrace serve`, and says what is wrong with them as it does."""

from __future__ import annotations

import pytest

from headrace.api.legacy.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--tensor-parallel-size", "2"], 2, "headrace: --tensor-parallel-size: 2 is not implemented yet, only 1 is."),
        (["--tensor-paralel-size", "2"], 2, "unknown flag --tensor-paralel-size; did you mean --tensor-parallel-size?"),
        (["--model", "/no/such/model.gguf", "--port", "0"], 1, "/no/such/model.gguf"),
        (["--model", "/no/such/model.gguf", "--port", "0", "--tensor-parallel-size", "1"], 1, "/no/such/model.gguf"),
        (["--ssl-keyfile", "/no/key", "--ssl-certfile", "/no/cert"], 2, "--ssl-certfile and --ssl-keyfile"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert text in shown.err
    assert "Traceback" not in shown.err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Usage: python -m headrace.api.legacy [MODEL] [FLAGS]" in capsys.readouterr().out
