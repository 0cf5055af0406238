"""What this machine is, as far as a result or a time depends on it, and how training takes its memory.

Needs no torch.
"""

import functools
import os
import platform
from pathlib import Path

# GLIBC_TUNABLES for a process that trains: memory comes in pages of 2 MiB, and what is freed is kept, so that each step
# takes the last one's memory without page faults. The same bits; set when a process starts.
# A program of yours takes it by GLIBC_TUNABLES=$(python -c "from xnets.machine import MALLOC; print(MALLOC)") (Linux).
MALLOC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"hugetlb": 1, "mmap_threshold": 2**25, "trim_threshold": 2**32, "top_pad": 2**26}.items()
)


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """Of the first core, where Linux tells it."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def cpu_name() -> str:
    """The CPU's own name where Linux tells it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_description() -> str:
    """Name, cores, instruction sets: virtual machines give different CPUs one name."""
    told = _cpuinfo()
    return f"{cpu_name()}, {os.cpu_count()} cores, {told.get('flags') or told.get('Features') or platform.machine()}"
