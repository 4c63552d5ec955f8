"""The real `huggingface_hub` client, in a process of its own, against a small server that speaks the Hub's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.core.errors import BadCheckpoint
from headrace.hub.remote import choose_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "someone/shards": {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors.index.json": b'{"weight_map": {"a": "m-1.safetensors"}}',
        "m-1.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
    },
    "someone/ggufs": {"m.Q4_0.gguf": b"four", "m.Q8_0.gguf": b"eight", "README.md": b"#"},
}
UNREACHABLE = "http://127.0.0.1:1"
OPEN = """
import sys
from headrace.core.errors import StartupError
from headrace.hub.remote import download_from_hub
try:
    print(download_from_hub(sys.argv[1], sys.argv[2] or None, progress=True))
except StartupError as error:
    print(type(error).__name__, error.message)
"""


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        status, headers, body = self._find(self.path.partition("?")[0].strip("/").split("/"))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _find(self, path: list[str]) -> tuple[int, dict[str, str], bytes]:
        repository = "/".join(path[2:4] if path[:2] == ["api", "models"] else path[:2])
        files = REPOSITORIES.get(repository)
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path[:2] != ["api", "models"]:
            content = files["/".join(path[4:])]
            return 200, {"ETag": f'"{hash(content):x}"', "X-Repo-Commit": COMMIT}, content
        if "tree" in path:
            entries = [{"type": "file", "path": name, "size": len(c), "oid": "0" * 40} for name, c in files.items()]
            return 200, {}, json.dumps(entries).encode()
        if path[4:] not in ([], ["revision", "main"], ["revision", COMMIT]):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        siblings = [{"rfilename": name} for name in files]
        return 200, {}, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def log_message(self, format: str, *args: object) -> None:
        """Not on standard error."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(name: str, endpoint: str, home: Path, revision: str = "") -> str:
    env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    env.pop("HF_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, name, revision], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert "%|" not in done.stderr  # no progress bars: it is not a terminal
    return done.stdout.strip()


def test_safetensors_repository_and_its_cache(endpoint: str, tmp_path: Path) -> None:
    folder = Path(fetch("someone/shards", endpoint, tmp_path))
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "m-1.safetensors",
        "model.safetensors.index.json",
    ]
    assert (folder / "m-1.safetensors").read_bytes() == b"weights"
    assert fetch("someone/shards", UNREACHABLE, tmp_path) == str(folder)
    (folder / "m-1.safetensors").unlink()
    answer = fetch("someone/shards", UNREACHABLE, tmp_path)
    assert answer.startswith("ModelNotFound someone/shards cannot be fetched")
    assert "these files are missing: m-1.safetensors" in answer


def test_one_gguf_of_a_repository(endpoint: str, tmp_path: Path) -> None:
    path = Path(fetch("someone/ggufs:q8_0", endpoint, tmp_path))
    assert (path.name, path.read_bytes()) == ("m.Q8_0.gguf", b"eight")
    assert [other.name for other in path.parent.iterdir()] == ["m.Q8_0.gguf"]


@pytest.mark.parametrize(
    ("name", "revision", "answer"),
    [
        ("someone/ggufs", "", "BadCheckpoint someone/ggufs: several GGUF files, name one of them: m.Q4_0.gguf"),
        ("someone/absent", "", "ModelNotFound no repository someone/absent on the Hub; if it is private"),
        ("someone/shards", "v9", "ModelNotFound someone/shards has no branch, tag or commit 'v9'"),
    ],
)
def test_what_the_hub_refuses(endpoint: str, tmp_path: Path, name: str, revision: str, answer: str) -> None:
    assert fetch(name, endpoint, tmp_path, revision).startswith(answer)


def test_unreachable_hub(tmp_path: Path) -> None:
    answer = fetch("someone/shards", UNREACHABLE, tmp_path)
    assert answer.startswith("ModelNotFound someone/shards cannot be fetched (ConnectError")
    assert "the Hub's cache on this machine does not hold it" in answer
    assert "name a local folder" in answer


def test_files_of_a_repository() -> None:
    wanted = [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "1_Pooling/config.json",
    ]
    unwanted = [
        ".gitattributes",
        "README.md",
        "consolidated.00.safetensors",
        "original/params.json",
        "onnx/model.onnx",
        "onnx/model.safetensors",
        "pytorch_model.bin",
        "model.Q4_0.gguf",
    ]
    assert choose_files(wanted + unwanted, "") == wanted
    assert choose_files(wanted + unwanted, "Q4_0") == ["model.Q4_0.gguf"]
    assert choose_files(["a/m.gguf"], "") == ["a/m.gguf"]
    with pytest.raises(BadCheckpoint, match="no weights"):
        choose_files(["config.json", "pytorch_model.bin"], "")
    with pytest.raises(BadCheckpoint, match=r"no GGUF file named 'Q9'; there are: a\.gguf"):
        choose_files(["a.gguf"], "Q9")
