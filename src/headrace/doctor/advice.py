"""What follows from the findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.doctor.report import Gpu, Kernels, ModelFit, Part, Torch

_DEFAULT_MODEL = "smollm2"


def warnings_of(torch: Torch, kernels: Kernels, gpus: Sequence[Gpu]) -> Iterator[str]:
    """What is wrong, and what mends it."""
    if torch.problem is not None:
        yield f"torch cannot be used: {torch.problem}. No model can be served without it."
        return
    if torch.cuda is not None and not torch.finds_gpu:
        if gpus:
            yield (
                f"torch {torch.version} does not find the GPU that the driver ({gpus[0].driver}) knows of. It is built "
                f"for CUDA {torch.cuda}: update the driver, or look at CUDA_VISIBLE_DEVICES."
            )
        else:
            yield (
                f"torch {torch.version} is a build for CUDA {torch.cuda}, of several GB, and there is no GPU. A CPU "
                "build does the same here: pip install torch --index-url with an index of CPU builds."
            )
    if torch.cuda is None and gpus:
        yield (
            f"There is a GPU ({gpus[0].name}), but torch {torch.version} is a build without CUDA, so models run on the "
            "CPU. Install a CUDA build of torch to use it."
        )
    if kernels.problem is not None and not torch.finds_gpu:
        yield (
            f"Models run on plain torch, many times slower than on Headrace's own kernels: {kernels.problem}. With a "
            "C++ compiler installed: pip install --force-reinstall --no-deps headrace."
        )


def advice_of(models: Sequence[ModelFit], parts: Sequence[Part]) -> Iterator[str]:
    """What could be done next."""
    default = next(model for model in models if model.name == _DEFAULT_MODEL)
    if default.present:
        yield "headrace serve serves " + _DEFAULT_MODEL + ", which is here."
    else:
        yield f"headrace pull {_DEFAULT_MODEL} fetches the default model ({default.size / 1e6:.0f} MB)."
    for model in models:
        if model.fits and not model.present and model.name != _DEFAULT_MODEL:
            yield f"headrace pull {model.name} fetches another one that fits ({model.size / 1e6:.0f} MB)."
    for part in parts:
        if part.version is None:
            yield f"For {part.purpose}: {part.install}"
