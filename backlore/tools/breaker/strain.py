"""How busy this machine is with other work: what a breaker on a busy machine measures says little of the server."""

import time

WORK = 0.02  # seconds of CPU time that one look costs


def strain() -> float:
    """How many times longer than its CPU time work takes here and now: 1 on an idle machine."""
    since, used = time.perf_counter(), time.thread_time()
    while time.thread_time() - used < WORK:
        pass
    return max(1.0, (time.perf_counter() - since) / WORK)
