"""How many CPUs this process may use: those that it was bound to, and no more than its control groups are given."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OURS = Path("/proc/self/cgroup")


def usable(groups: Path = GROUPS, ours: Path = OURS) -> int:
    """At least 1. `groups`: where control groups are mounted; `ours`: the file that says which are ours."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _quotas(groups, ours))]))


def _quotas(groups: Path, ours: Path) -> Iterator[float]:
    """The CPUs given to each group that we are in; nothing for one without a limit. See cgroups(7)."""
    with contextlib.suppress(OSError):  # no Linux
        for line in ours.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = groups / "cpu" if controllers else groups  # of version 1; of version 2
            group = top / path.lstrip("/")
            for each in (group, *group.parents):  # the limits of all above count too
                if each.is_relative_to(top):
                    yield from _quota(each)


def _quota(group: Path) -> Iterator[float]:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):  # it has no such file, or "max"
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
            if quota > 0 and period > 0:  # -1: no limit
                yield quota / period
