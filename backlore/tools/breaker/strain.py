"""How busy this machine is with other work. On a busy machine, measurements say little about the server."""

import time

WORK = 0.02  # seconds of CPU time that one measurement costs


def strain() -> float:
    """How many times longer than its CPU time some work takes now: 1 on an idle machine."""
    since, used = time.perf_counter(), time.thread_time()
    while time.thread_time() - used < WORK:
        pass
    return max(1.0, (time.perf_counter() - since) / WORK)
