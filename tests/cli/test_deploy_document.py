"""What docs/deploy.md tells people to write down is what the programs take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config.load import load_config

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return found


def test_the_yaml_file_is_a_configuration(tmp_path: Path):
    path = tmp_path / "headrace.yaml"
    path.write_text(block("yaml"))
    config = load_config(["--config", str(path)], {"HEADRACE_API_KEY": "sesame"})
    assert (config.model.model, config.http.host, config.engine.max_num_seqs) == ("smollm2", "0.0.0.0", 64)
    assert config.http.api_key == ("sesame",)
    stop = re.search(r"TimeoutStopSec=(\d+)", DOCUMENT)
    assert stop is not None
    assert int(stop[1]) > config.http.shutdown_timeout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path):
    unit = tmp_path / "headrace.service"
    unit.write_text(block("ini").replace("/opt/headrace/bin/headrace", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "headrace.service" in line]
    assert mine == []


def test_the_container_is_not_run_by_root_and_says_how_it_is():
    instructions = (ROOT / "Containerfile").read_text()
    assert re.search(r"^USER 10001$", instructions, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/health", instructions.replace("\\\n", ""), re.MULTILINE)
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", instructions, re.MULTILINE):
        assert all((ROOT / name).exists() for name in path.split()), path
    variables = dict(re.findall(r"(HEADRACE_HOST)=(\S+)", instructions))
    assert load_config([], variables).http.host == "0.0.0.0"
