"""Libraries that Headrace can do without, and with which it can do more."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from headrace.doctor.report import Part


@dataclass(frozen=True, slots=True)
class _Wanted:
    package: str
    purpose: str
    install: str


_WANTED = (
    _Wanted("huggingface_hub", "models by their Hub id", "pip install huggingface_hub"),
    _Wanted(
        "psycopg", "jobs in PostgreSQL, shared by several servers (--jobs-url)", "pip install 'headrace[postgres]'"
    ),
    _Wanted("transformers", "tokenizers of other models in one's own client code", "pip install transformers"),
    _Wanted("openai", "OpenAI's client, which speaks to this server, too", "pip install openai"),
)


def examine_parts() -> tuple[Part, ...]:
    return tuple(
        Part(name=part.package, purpose=part.purpose, install=part.install, version=_version(part.package))
        for part in _WANTED
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
