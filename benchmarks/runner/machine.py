"""Facts about the machine that results were found on."""

import os
import platform
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """Processor, cores, memory, operating system and Python; empty where the system is silent."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": str(os.cpu_count() or ""),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _memory() -> str:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return ""
    return f"{size / 2**30:.1f} GiB"


def _field(path: str, name: str) -> str:
    """The first value of that name in a file of lines ``name : value``."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else ""
