"""`headrace serve`'s command line, generated from the knobs. cyclopts splits it; `load.py` gives the words meaning."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

from cyclopts import App, Group, Parameter, Token
from cyclopts.exceptions import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from headrace.config.help import WrappedFormatter, describe, metavar
from headrace.config.knobs import GENERAL, Knob, all_knobs, flag_of
from headrace.config.unimplemented import UNIMPLEMENTED, Unimplemented
from headrace.core.errors import ConfigError

Words = Mapping[str, Any]
"""What stood on a command line, by field name: a list of texts, a list of bools for a switch, `{"a": {"b": text}}` or
a text for a JSON object. Beside the knobs: `config`, the names in `UNIMPLEMENTED`, and `positional` for MODEL."""

USAGE = "Usage: headrace serve [MODEL] [FLAGS]"
EPILOGUE = (
    "Command line > YAML file > environment > default. Every flag NAME is also the YAML key NAME and the variable "
    "HEADRACE_NAME; '-' and '_' are equal."
)


def plain_app(**options: Any) -> App:
    """A cyclopts command that neither prints nor exits by itself: it raises, or returns what its function returned."""
    return App(
        help_format="plaintext",
        help_formatter=WrappedFormatter(),
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
        **options,
    )


def serve_app(action: Callable[[Words], Any], *, usage: str = USAGE) -> App:
    """A cyclopts command that hands the words of its command line to `action`.

    Its errors are `CycloptsError`s; `explain` makes `ConfigError`s of them.
    """

    def serve(positional: str | None = None, /, **words: Any) -> Any:
        given = {name: value for name, value in words.items() if value is not None}
        return action(given if positional is None else {"positional": positional, **given})

    groups = {title: Group(title, sort_key=place) for place, title in enumerate(_titles())}
    serve.__signature__ = inspect.Signature(list(_parameters(groups)))  # type: ignore[attr-defined]
    serve.__annotations__ = {}
    app = plain_app(
        name="serve", help="Serve a model over HTTP.", help_epilogue=EPILOGUE, usage=usage, version_flags=()
    )
    app.default(serve)
    app["--help"].group = groups[GENERAL]
    return app


def knob_parameters(names: Iterable[str]) -> Iterator[inspect.Parameter]:
    """Flags of `serve` for another command that loads a model itself. What they are given are `Words`."""
    for name in names:
        knob = all_knobs()[name]
        yield _parameter(name, _annotation(knob, Group(knob.title)))


def explain(problem: CycloptsError) -> ConfigError:
    """The error for the terminal, with a suggestion where a flag of `serve` is unknown."""
    if isinstance(problem, MissingArgumentError) and problem.argument is not None:
        return ConfigError(f"{problem.argument.name} needs a value.")
    if isinstance(problem, UnusedCliTokensError):
        return ConfigError(f"unexpected argument {(problem.unused_tokens or ['?'])[0]!r}.")
    if isinstance(problem, UnknownOptionError) and (problem.command_chain or ("serve",))[0] == "serve":
        flag = str(problem.token.keyword or problem.token.value).partition("=")[0]
        return ConfigError(f"unknown flag {flag}{suggestion(flag.lstrip('-'), flag_of)}")
    return ConfigError(str(problem))


def suggestion(word: str, spell: Callable[[str], str], *also: str) -> str:
    """The end of a sentence about an unknown flag or key: "; did you mean --port?", or where to look.

    `also`: names beside the flags that it may have been meant for.
    """
    known = [*also, *all_knobs(), *UNIMPLEMENTED, "config"]
    known += [f"no_{name}" for name, knob in all_knobs().items() if knob.rules.kind is bool]
    close = difflib.get_close_matches(word.replace("-", "_").casefold(), known, n=1)
    return f"; did you mean {spell(close[0])}?" if close else "; see headrace serve --help."


def _titles() -> Iterator[str]:
    """Headings of the help, each once, in the order of the tree."""
    yield from dict.fromkeys(knob.title for knob in all_knobs().values())


def _parameters(groups: Mapping[str, Group]) -> Iterator[inspect.Parameter]:
    yield _parameter("positional", Annotated[str | None, Parameter(show=False)], inspect.Parameter.POSITIONAL_ONLY)
    for knob in all_knobs().values():
        yield _parameter(knob.name, _annotation(knob, groups[knob.title]))
    config = Parameter(
        group=groups[GENERAL],
        help="A YAML file of flags, and of several models if wanted.",
        negative_iterable="",
        metavar="FILE.yaml",
    )
    yield _parameter("config", Annotated[list[str] | None, config])
    for name, flag in UNIMPLEMENTED.items():
        yield _parameter(name, _refused_annotation(flag))


def _annotation(knob: Knob, group: Group) -> Any:
    rules = knob.rules
    shown: dict[str, Any] = {"group": group, "help": describe(knob), "show_default": False, "negative_iterable": ""}
    if rules.kind is bool:
        alias = None if rules.alias is None else flag_of(rules.alias)
        return Annotated[list[bool] | None, Parameter(**shown, alias=alias)]
    shown["metavar"] = metavar(knob)
    if rules.is_mapping:
        # With the text: where pydantic is loaded, cyclopts lets it check what the converter returns against the type.
        return Annotated[
            dict[str, Any] | str | None,
            Parameter(**shown, accepts_keys=True, converter=_read_object, allow_leading_hyphen=True),
        ]
    if rules.is_list:
        return Annotated[list[str] | None, Parameter(**shown, consume_multiple=(1, None))]
    return Annotated[list[str] | None, Parameter(**shown, alias=rules.short, allow_leading_hyphen=True)]


def _refused_annotation(flag: Unimplemented) -> Any:
    hidden: dict[str, Any] = {"show": False, "negative_iterable": "", "alias": flag.short}
    if flag.switch:
        return Annotated[list[bool] | None, Parameter(**hidden)]
    return Annotated[list[str] | None, Parameter(**hidden, consume_multiple=True)]


def _parameter(name: str, annotation: Any, kind: Any = inspect.Parameter.KEYWORD_ONLY) -> inspect.Parameter:
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def _read_object(_hint: Any, words: Any) -> Any:
    """Leaves of `--flag.a.b TEXT` as texts in nested dicts; the text itself of `--flag TEXT`."""
    if isinstance(words, Mapping):
        return {key: _read_object(_hint, inner) for key, inner in words.items()}
    last: Token = words[-1]
    return last.value
