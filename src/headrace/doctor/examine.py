"""All of it, in one report."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor

from headrace import __version__
from headrace.doctor.advice import advice_of, warnings_of
from headrace.doctor.fits import fits_of, rooms_of
from headrace.doctor.machine import examine_cpu, examine_gpus, examine_memory
from headrace.doctor.parts import examine_parts
from headrace.doctor.probe import probe
from headrace.doctor.report import Report
from headrace.hub import list_models


def examine() -> Report:
    """Takes a few seconds, most of them for torch to load in another process."""
    memory = examine_memory()  # alone: what runs beside it would take its share
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        cpu, gpus, parts = examine_cpu(), examine_gpus(), examine_parts()
        probed = probing.result()
    models = fits_of(list_models(), memory)
    return Report(
        headrace=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        cpu=cpu,
        memory=memory,
        gpus=gpus,
        torch=probed.torch,
        kernels=probed.kernels,
        parts=parts,
        models=models,
        room=rooms_of(memory, gpus),
        warnings=tuple(warnings_of(probed.torch, probed.kernels, gpus)),
        advice=tuple(advice_of(models, parts)),
    )
