"""`headrace doctor`: what this machine is, what is installed, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.doctor import Report, examine

_LABEL_COLUMNS = 14


def doctor(*, as_json: bool) -> int:
    """The exit code is 1 if something is wrong."""
    report = examine()
    if as_json:
        print(msgspec.json.encode(report).decode())
    else:
        print("\n".join(_lines(report)))
    return 1 if report.warnings else 0


def _lines(report: Report) -> Iterator[str]:
    yield from _machine_lines(report)
    yield ""
    yield from _software_lines(report)
    yield ""
    yield "Models"
    for model in report.models:
        state = "here" if model.present else "not here"
        verdict = f"fits, {model.most_tokens_per_second:.0f} tokens/s at most" if model.fits else "does not fit"
        if model.task != "generate":
            verdict = verdict.partition(",")[0]
        yield f"  {model.name:<{_LABEL_COLUMNS}}{model.size / 1e6:>6.0f} MB  {state:<10}{verdict}"
    for room in report.room:
        yield f"  In {room.where}: up to {_count(room.parameters)} parameters at {room.bits} bits"
    for title, sentences in (("Wrong", report.warnings), ("Next", report.advice)):
        if sentences:
            yield f"\n{title}"
            yield from (f"  {sentence}" for sentence in sentences)


def _machine_lines(report: Report) -> Iterator[str]:
    yield "Machine"
    yield _line("System", f"{report.system}, Python {report.python}, Headrace {report.headrace}")
    cores = f"{report.cpu.cores} usable core{'s' if report.cpu.cores > 1 else ''}"
    yield _line("Processor", f"{report.cpu.model} ({report.cpu.architecture}), {cores}")
    yield _line("Features", " ".join(report.cpu.features) or "none that kernels are written for")
    yield _line(
        "Memory", f"{report.memory.usable / 1e9:.1f} GB usable, read at {report.memory.bandwidth / 1e9:.0f} GB/s"
    )
    for gpu in report.gpus:
        yield _line("GPU", f"{gpu.name}, {gpu.memory / 1e9:.0f} GB, driver {gpu.driver}")
    if not report.gpus:
        yield _line("GPU", "none found")


def _software_lines(report: Report) -> Iterator[str]:
    yield "Software"
    yield _line("Kernels", report.kernels.name or f"plain torch: {report.kernels.problem}")
    cuda = "CPU build" if report.torch.cuda is None else f"CUDA {report.torch.cuda}"
    yield _line("torch", f"{report.torch.version} ({cuda})" if report.torch.version else f"{report.torch.problem}")
    for part in report.parts:
        yield _line(part.name, f"{part.version or 'not installed':<16}{part.purpose}")


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_COLUMNS + 4}}{text}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.0f} million"
