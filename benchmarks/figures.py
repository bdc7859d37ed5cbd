"""What a benchmark prints: figures as ratios to a baseline measured in the same run."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measurement: ``ratio`` is value / baseline value, in the same unit."""

    figure: str
    value: float
    unit: str
    baseline: str
    ratio: float
    goal: float | None
    better: str


def cpu_seconds(work: Callable[[], Any], repeat: int = 1) -> float:
    """Least CPU time of some runs."""
    return min(cost(work)[0] for _ in range(repeat))


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU-seconds of this process (all threads) and wall seconds of a piece of work."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MB; what a parent had does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def show(figures: Iterable[Figure], as_json: bool) -> None:
    """Print each figure as it comes: a line of JSON, or a row with its baseline."""
    for f in figures:
        if as_json:
            print(json.dumps(asdict(f)), flush=True)
            continue
        goal = f", goal {f.goal:g} ({f.better} is better)" if f.goal is not None else ""
        print(f"{f.figure:34s} {f.value:12.4g} {f.unit:12s} {f.ratio:6.3f} x {f.baseline}{goal}", flush=True)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Command line that every benchmark shares."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    return made
