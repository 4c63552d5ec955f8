"""`headrace doctor` on this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headrace.core.machine import usable_cores

RUN = """
import sys
from headrace.cli.main import main
code = main(["doctor", "--json"])
print(code, "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def findings() -> dict:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    report, ending = done.stdout.splitlines()
    found = json.loads(report)
    code = 1 if found["warnings"] else 0
    assert (ending, done.stderr) == (f"{code} False", ""), "torch is asked in a process of its own"
    return found


def test_it_finds_what_is_here(findings: dict):
    assert findings["cpu"]["cores"] == usable_cores()
    assert findings["memory"]["usable"] > 1e9
    assert 1e8 < findings["memory"]["bandwidth"] < 1e13
    assert findings["torch"]["version"]
    assert findings["torch"]["problem"] is None
    assert findings["kernels"]["name"] or findings["kernels"]["problem"]
    assert {part["name"] for part in findings["parts"] if part["version"]} >= {"huggingface_hub", "openai"}


def test_it_knows_what_fits(findings: dict):
    smollm2 = next(model for model in findings["models"] if model["name"] == "smollm2")
    assert smollm2["fits"]
    assert smollm2["most_tokens_per_second"] == pytest.approx(findings["memory"]["bandwidth"] / smollm2["size"])
    assert [room["bits"] for room in findings["room"] if room["where"] == "memory"] == [4, 8, 16]


def test_people_get_it_in_words(findings: dict):
    done = subprocess.run([sys.executable, "-m", "headrace", "doctor"], capture_output=True, text=True, check=False)
    for heading in ("Machine", "Software", "Models", "Next"):
        assert f"{heading}\n" in done.stdout
    assert findings["cpu"]["model"] in done.stdout
    assert findings["torch"]["version"] in done.stdout
    assert "smollm2" in done.stdout
