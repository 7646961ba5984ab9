"""Memory that tensors gave back: kept for the next ones while a model works, and handed to the system behind it."""

import ctypes
import os
import platform

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_NEVER = 2**31 - 1
_LARGEST = 2**30


def keep_freed_memory() -> None:
    """Freed memory stays with this process, where glibc would hand large pieces back at once and ask for them again.

    A training step gets and frees the same gigabytes every time, and the system has to clear each page that it gives:
    a fifth of a step (benchmarks/results/train_speed.md). The peak stays what it is. Where the environment has a
    variable of glibc's, such as MALLOC_MMAP_THRESHOLD_, that is what is meant.
    """
    if _has_glibc() and not any(name.startswith("MALLOC_") for name in os.environ):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGEST)
        ctypes.CDLL(None).mallopt(_TRIM_THRESHOLD, _NEVER)


def return_freed_memory() -> None:
    """Hands freed memory back to the system, where glibc or CUDA's allocator would keep it for later.

    After the dry pass of a 135M model that is 2.2 of 3.3 GB, on top of which sampling would get memory of its own.
    """
    torch.cuda.empty_cache()  # does nothing where no GPU is in use
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
