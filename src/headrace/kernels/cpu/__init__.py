"""The native library of a CPU. Nothing else imports it."""

from headrace.kernels.cpu.library import CpuKernels, NoNativeLibrary, load_cpu_kernels

__all__ = ["CpuKernels", "NoNativeLibrary", "load_cpu_kernels"]
