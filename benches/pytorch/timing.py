"""How the other side of `fisao bench` times a case and reports it. Needs nothing installed."""

import json
import resource
import time

FEWEST = 3


def repeat(work, seconds):
    """Seconds of each repetition but the first, sorted."""
    times = []
    while len(times) < FEWEST + 1 or sum(times[1:]) < seconds:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])


def report(case, unit, count, times, **versions):
    """One line of JSON, as `fisao bench --here` prints it."""
    median = times[len(times) // 2]
    print(json.dumps({
        "case": case, "unit": unit, "count": count, "repetitions": len(times), "seconds": median,
        "shortest": times[0], "longest": times[-1], "rate": count / median,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        **versions,
    }))
