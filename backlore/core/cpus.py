"""How many CPUs this process may use: those it is bound to, capped by the quotas of its control groups."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OURS = Path("/proc/self/cgroup")


def usable(groups: Path = GROUPS, ours: Path = OURS) -> int:
    """The number of usable CPUs, at least 1.

    `groups` is where control groups are mounted; `ours` is the file that lists the groups of this process.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _quotas(groups, ours))]))


def _quotas(groups: Path, ours: Path) -> Iterator[float]:
    """The CPU quota of each group that this process is in; nothing for a group without a limit. See cgroups(7)."""
    with contextlib.suppress(OSError):  # not Linux
        for line in ours.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = groups / "cpu" if controllers else groups  # cgroups version 1, else version 2
            group = top / path.lstrip("/")
            for each in (group, *group.parents):  # the limits of all ancestors apply too
                if each.is_relative_to(top):
                    yield from _quota(each)


def _quota(group: Path) -> Iterator[float]:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
            if quota > 0 and period > 0:  # -1: no limit
                yield quota / period
