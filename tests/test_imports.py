"""Imports point upward: the table of docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

PACKAGE = Path(headrace.__file__).parent

ALLOWED = {
    "core": set(),
    "config": {"core"},
    "metrics": {"core"},
    "hub": {"core", "config"},
    "kernels": {"core", "torch"},
    "models": {"core", "kernels", "torch"},
    "weights": {"core", "hub", "models", "kernels", "torch"},
    "text": {"core", "hub"},
    "grammar": {"core"},
    "schedule": {"core", "config", "grammar"},
    "engine": {"core", "config", "metrics", "hub", "kernels", "models", "weights", "schedule", "grammar", "torch"},
    "runtime": {"core", "config", "metrics"},
    "service": {"core", "config", "metrics", "hub", "text", "grammar", "runtime"},
    "jobs": {"core", "config", "metrics", "service"},
    "api": {"core", "config", "metrics", "service", "jobs"},
    "client": set(),
    "bench": {"client"},
    "batch": {"core", "client"},
    "doctor": {"core", "config", "hub", "kernels", "torch"},
    "cli": {
        *("core", "config", "metrics", "hub", "text", "runtime", "service", "jobs", "api"),
        *("client", "batch", "bench", "doctor"),
    },
}
"""Folder -> folders (and torch, the one library whose import costs seconds) that it may import."""

ONLY_THE_TYPE = {("models", "kernels"): {"headrace.kernels.ops", "headrace.kernels.native"}}
"""Where a folder may use another one's types only."""

NOT_AT_IMPORT_TIME = {(f"runtime/{name}.py", "engine") for name in ("local", "child", "loading", "turns")}
"""The engine is imported in the process that runs it, when it starts to; its type may be named."""


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Modules that a file imports, and whether it does so at import time."""
    tree = ast.parse(path.read_text())
    later: set[ast.AST] = set()
    for node in ast.walk(tree):
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if in_function or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            later |= set(ast.walk(node))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in later) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "headrace":
                found += [(f"headrace.{alias.name}", node not in later) for alias in node.names]
            else:
                found.append((module, node not in later))
    return found


def offenders() -> list[str]:
    found = []
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        if path.name == "__main__.py":  # a command: it wires objects together, as `cli/` does
            continue
        file = path.relative_to(PACKAGE).as_posix()
        folder = file.split("/")[0]
        assert folder in ALLOWED, f"{folder} is not in the table"
        for module, at_import_time in imports_of(path):
            parts = module.split(".")
            if parts[0] == "torch":
                target = "torch"
            elif parts[0] == "headrace" and len(parts) > 1:
                target = parts[1]
            else:
                continue
            if target == folder or target in ("__version__", "llm"):
                continue
            if (file, target) in NOT_AT_IMPORT_TIME and not at_import_time:
                continue
            allowed = target in ALLOWED[folder]
            types = ONLY_THE_TYPE.get((folder, target))
            if not allowed or (types and module not in types):
                found.append(f"{file} must not import {module}")
    return found


def test_imports_point_upward() -> None:
    assert offenders() == []


def test_folders_are_two_deep_at_most() -> None:
    assert [str(path) for path in PACKAGE.glob("*/*/*/*.py")] == []


@pytest.mark.parametrize(
    "module",
    [
        "headrace",
        "headrace.api.app",
        "headrace.bench.sweep",
        "headrace.cli.main",
        "headrace.client",
        "headrace.runtime",
    ],
)
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
