"""What was measured, as ratios and as a table for people, and as JSON for programs."""

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from .stand import ROOT, broker_version

__all__ = ["Samples", "as_json", "print_report"]

#: By figure and variant, one mapping of numbers for each round.
Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]

_PACKAGES = (
    *("celery", "kombu", "redis", "flask", "gunicorn", "grpcio", "protobuf"),
    *("opentelemetry-sdk", "opentelemetry-instrumentation-celery"),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure that has a goal: its value in each round."""

    name: str
    goal: str
    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.rounds)


def ratios(samples: Samples) -> list[Ratio]:
    """Return every figure that has a goal; what was not measured is left out."""

    def of(figure: str, variant: str, *keys: str) -> list[float]:
        return [sum(one[key] for key in keys) for one in samples[figure][variant]]

    def cpu(variant: str, what: str) -> list[float]:
        return of("publish and run", variant, what, f"{what}, helpers")

    def added(what: str, variant: str) -> list[float]:
        return _each(lambda a, b: a - b, cpu(variant, what), cpu("bare", what))

    def by(a: Sequence[float], b: Sequence[float]) -> list[float]:
        return _each(lambda a, b: a / b, a, b)

    def rate(figure: str, one: str, other: str) -> list[float]:
        return by(of(figure, one, "rate"), of(figure, other, "rate"))

    def late(what: str) -> list[float]:
        added = [
            _each(lambda a, b: a - b, *(of("growth", name, key) for name in ("ours", "bare")))
            for key in ("cpu late", "cpu early")
        ]
        return by(*added)

    def away(what: str) -> list[float]:
        one, other = (of("collector away", name, what) for name in ("ours, collector away", "bare"))
        return _each(lambda a, b: (a - b) * 1e3, one, other)

    found = []
    if "publish and run" in samples:
        for what, goal in (("publish", "≤ 0.5"), ("run", "≤ 0.33")):
            ratio = by(added(what, "ours"), added(what, "contrib"))
            found.append(Ratio(f"CPU added to a {what}, ours : contrib", goal, ratio))
    if "tasks a second" in samples:
        for name, goal in (("ours", "≥ 0.93"), ("ours, sampled out", "≥ 0.99")):
            ratio = rate("tasks a second", name, "bare")
            found.append(Ratio(f"tasks a second, prefork 2, {name} : bare", goal, ratio))
    if "requests a second" in samples:
        for name, goal in (("bare", "≥ 0.93"), ("contrib", "> 1")):
            ratio = rate("requests a second", "ours", name)
            found.append(Ratio(f"requests a second, gunicorn, ours : {name}", goal, ratio))
    if "growth" in samples:
        resident = by(of("growth", "ours", "resident late"), of("growth", "ours", "resident early"))
        found.append(Ratio("CPU added to a run, late : early", "≤ 1.05", late("cpu")))
        found.append(Ratio("resident memory, late : early", "≤ 1.05", resident))
    if "collector away" in samples:
        for what in ("request", "task"):
            name = f"p99 added to a {what}, collector away, ms"
            found.append(Ratio(name, "≤ 1", away(what)))
    return found


def _each(
    function: Callable[[float, float], float], a: Sequence[float], b: Sequence[float]
) -> list[float]:
    return [function(*pair) for pair in zip(a, b, strict=True)]


def print_report(samples: Samples, pieces: Mapping[str, float]) -> None:
    """Print medians, with the least and the most of all rounds."""
    print()
    for figure, variants in samples.items():
        print(figure)
        keys = next(iter(variants.values()))[0].keys()
        for key in keys:
            print(f"  {key} ({_unit(key)})")
            for variant, rounds in variants.items():
                values = [_shown(key, one[key]) for one in rounds]
                print(f"    {variant:24}{_spread(values)}")
        print()
    if pieces:
        print("where our time goes (µs)")
        for name, seconds in pieces.items():
            print(f"  {name:44}{seconds * 1e6:8.2f}")
        print()
    print(f"{'':50}{'goal':>8}{'median':>9}   least … most")
    for ratio in ratios(samples):
        print(f"{ratio.name:50}{ratio.goal:>8}{_spread(ratio.rounds)}")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):9.2f}   {min(values):.2f} … {max(values):.2f}"


def _unit(key: str) -> str:
    if key == "rate":
        return "a second"
    if key.startswith("resident"):
        return "MB"
    return "p99, ms" if key in ("request", "task") else "CPU, µs"


def _shown(key: str, value: float) -> float:
    return value * {"p99, ms": 1e3, "CPU, µs": 1e6}.get(_unit(key), 1.0)


def as_json(samples: Samples, pieces: Mapping[str, float], options: Mapping[str, Any]) -> Any:
    """Return all of it, with what it was measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "broker": broker_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "options": dict(options),
        "ratios": {
            one.name: {"goal": one.goal, "median": one.median, "rounds": one.rounds}
            for one in ratios(samples)
        },
        "samples": samples,
        "pieces": dict(pieces),
    }


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
    }


def _commit() -> str:
    try:
        asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
