"""`headrace models`: what is known here, and what a server serves."""

from __future__ import annotations

import json

import pytest
from running_server import Server

from headrace.cli.main import main


def test_what_is_known(smollm2_path, capsys: pytest.CaptureFixture[str]):
    assert main(["models"]) == 0
    assert str(smollm2_path) in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed["smollm2"]["present"] is True
    assert listed["smollm2"]["path"] == str(smollm2_path)
    assert {"minilm", "gemma3-270m"} <= listed.keys()


def test_what_is_served(called_server: Server, smollm2_path, capsys: pytest.CaptureFixture[str]):
    where = ["--url", called_server.url, "--api-key", "sesame"]
    assert main(["models", *where]) == 0
    assert capsys.readouterr().out.split() == ["smol", "2048", "tokens", "from", str(smollm2_path)]
    assert main(["models", *where, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["id"], model["max_model_len"]) == ("smol", 2048)


def test_refusals(called_server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["models", "--url", called_server.url]) == 1
    assert "Set HEADRACE_API_KEY" in capsys.readouterr().err
    assert main(["models", "--url", "nowhere"]) == 2
    assert "must begin with http://" in capsys.readouterr().err
