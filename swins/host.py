"""The machine that this runs on: cores, memory, graphics cards, folders that can be written. Imports no backend."""

import os
import pathlib
import re
import shutil

GIB = 2**30
MEMINFO = pathlib.Path("/proc/meminfo")
LIMITS = (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
NVIDIA = pathlib.Path("/proc/driver/nvidia/gpus")


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> dict[str, float | None]:
    """GiB of memory that there are in all and that are free, what a container may have at most; None if not told."""
    try:
        lines = dict(re.findall(r"(\w+):\s+(\d+) kB", MEMINFO.read_text()))
        total, free = (int(lines[name]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):  # no Linux
        names = getattr(os, "sysconf_names", {})
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        total, free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None, None
    for path in LIMITS:
        limit = path.read_text().strip() if path.is_file() else ""
        if limit.isdecimal() and total:
            total = min(total, int(limit))
            free = free and min(free, total)
    return {"total": total and round(total / GIB, 1), "free": free and round(free / GIB, 1)}


def nvidia_cards() -> list[str]:
    """The names of NVIDIA's cards whose driver is loaded, whether a backend can use them or not."""
    found = [re.search(r"Model:\s*(.+)", path.read_text()) for path in sorted(NVIDIA.glob("*/information"))]
    return [match[1].strip() if match else "NVIDIA" for match in found]


def folder_facts(folder) -> dict:
    """Whether a folder, or the first of its parents that is there, can be written, and what is free on its disk.

    Returns:
        {"folder", "exists", "writable", "free": GiB}.
    """
    folder = pathlib.Path(folder).absolute()
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    free = round(shutil.disk_usage(there).free / GIB, 1) if there.is_dir() else None
    return {"folder": str(folder), "exists": folder.is_dir(), "writable": writable, "free": free}
