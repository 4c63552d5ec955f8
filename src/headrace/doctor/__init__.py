"""What `headrace doctor` finds out: about the machine, about what is installed, and what follows from both.

    report = examine()

It imports no torch: `probe.py` does, in a process of its own, so that a library that cannot be loaded is a finding.
"""

from headrace.doctor.examine import examine
from headrace.doctor.report import Gpu, Kernels, ModelFit, Part, Report, Room, Torch

__all__ = ["Gpu", "Kernels", "ModelFit", "Part", "Report", "Room", "Torch", "examine"]
