"""What this machine has left for a process, and what the process took."""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

CGROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")


def available_memory() -> int | None:
    """Bytes that this process can still get: free memory, less where a cgroup or a resource limit says so.

    None where the system does not say.
    """
    limits = [limit for limit in (_free(), _address_space()) if limit is not None]
    return min((*limits, *cgroup_room(CGROUPS, _cgroup())), default=None)


def total_memory() -> int | None:
    """Bytes that this process could ever get, whatever else runs now: the same whenever it is asked on one machine.

    None where the system does not say.
    """
    found = _kilobytes(Path("/proc/meminfo"), "MemTotal")
    if found is None and "SC_PHYS_PAGES" in os.sysconf_names:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((*([] if found is None else [found]), *cgroup_limits(CGROUPS, _cgroup())), default=None)


def cgroup_limits(root: Path, group: PurePosixPath) -> Iterator[int]:
    """What each cgroup from the process's own up to the root allows at most."""
    for folder in (root / group, *(root / parent for parent in group.parents)):
        try:
            yield int((folder / "memory.max").read_text())
        except (OSError, ValueError):
            continue  # "max", or no controller here: no limit


def cgroup_room(root: Path, group: PurePosixPath) -> Iterator[int]:
    """What each cgroup from the process's own up to the root still allows; files in the page cache can go.

    Args:
        root: where the cgroups are mounted.
        group: the process's own, from the root.
    """
    for folder in (root / group, *(root / parent for parent in group.parents)):
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # "max", or no controller here: no limit
        yield max(0, limit - used + int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0)))


def resident_memory() -> int:
    """Bytes that this process holds now."""
    return _status("VmRSS") or _highest()


def peak_memory(*, on_cuda: bool = False) -> int:
    """The most bytes that this process ever held, or that torch had allocated on the GPU.

    Linux's VmHWM is preferred to `ru_maxrss`, which also counts the process that started this one.
    """
    if on_cuda:
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") or _highest()


def _highest() -> int:
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _status(key: str) -> int | None:
    return _kilobytes(PROCESS / "status", key)


def _kilobytes(file: Path, key: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _free() -> int | None:
    free = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    if free is None and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


def _address_space() -> int | None:
    """Mapped files count here, so that this is an upper bound."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else max(0, limit - (_status("VmSize") or 0))


def _cgroup() -> PurePosixPath:
    try:
        lines = (PROCESS / "cgroup").read_text().splitlines()
    except OSError:
        return PurePosixPath()
    own = next((line.split("::", 1)[1] for line in lines if line.startswith("0::")), "/")
    return PurePosixPath(own.lstrip("/"))
