"""What this process may use and has used, on any system."""

from __future__ import annotations

import os
import resource
import sys

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; Linux counts in KiB


def cores() -> int:
    """Logical CPUs that this process may use; the machine's where the system doesn't tell."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def peak_memory_gib(*, children: bool = False) -> float:
    """Most memory of this process so far; with `children`, and of the largest of those that have ended."""
    kinds = (resource.RUSAGE_SELF, *((resource.RUSAGE_CHILDREN,) if children else ()))
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * _MAXRSS_UNIT / 2**30
