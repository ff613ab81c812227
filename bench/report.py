"""The measurements as a table for people, and as JSON for programs."""

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from operator import sub, truediv
from pathlib import Path
from statistics import median
from typing import Any, Self

from .stand import ROOT, broker_version

#: By variant: of each round, one mapping of numbers for each turn.
Variants = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]

#: The same by figure.
Samples = Mapping[str, Variants]

_PACKAGES = (
    *("celery", "kombu", "redis", "flask", "gunicorn", "grpcio", "protobuf"),
    *("opentelemetry-sdk", "opentelemetry-instrumentation-celery"),
)

#: One number for each turn, by round.
_Rounds = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure that has a goal: its value, and what it is in each round by itself."""

    name: str
    goal: str
    value: float
    rounds: Sequence[float]

    @classmethod
    def rate(cls, name: str, goal: str, a: _Rounds, b: _Rounds) -> Self:
        """Return the median of what *a* is of *b* in each turn."""
        return cls.of(name, goal, _each(truediv, a, b))

    @classmethod
    def ratio(cls, name: str, goal: str, a: _Rounds, b: _Rounds) -> Self:
        """Return the ratio of the medians of *a* and *b*: added costs may be near 0 in a turn."""
        rounds = [median(one) / median(other) for one, other in zip(a, b, strict=True)]
        return cls(name, goal, median(chain(*a)) / median(chain(*b)), rounds)

    @classmethod
    def of(cls, name: str, goal: str, numbers: _Rounds) -> Self:
        """Return the median of *numbers*."""
        return cls(name, goal, median(chain(*numbers)), list(map(median, numbers)))


def results(samples: Samples) -> list[Result]:
    """Return every figure that has a goal, of those that were measured."""
    makers = {
        "publish and run": _cpu_results,
        "tasks a second": _task_results,
        "requests a second": _request_results,
        "collector away": _away_results,
        "growth": _growth_results,
    }
    return [one for title, variants in samples.items() for one in makers[title](variants)]


def _cpu_results(variants: Variants) -> Iterator[Result]:
    for what, goal in (("publish", "≤ 0.5"), ("run", "≤ 0.33")):
        keys = what, f"{what}, helpers"
        ours, contrib = (_added(variants, name, *keys) for name in ("ours", "contrib"))
        yield Result.ratio(f"CPU added to a {what}, ours : contrib", goal, ours, contrib)


def _task_results(variants: Variants) -> Iterator[Result]:
    bare = _series(variants, "bare", "rate")
    for name, goal in (("ours", "≥ 0.93"), ("ours, sampled out", "≥ 0.99")):
        title = f"tasks a second, prefork 2, {name} : bare"
        yield Result.rate(title, goal, _series(variants, name, "rate"), bare)


def _request_results(variants: Variants) -> Iterator[Result]:
    ours = _series(variants, "ours", "rate")
    for name, goal in (("bare", "≥ 0.93"), ("contrib", "> 1")):
        title = f"requests a second, gunicorn, ours : {name}"
        yield Result.rate(title, goal, ours, _series(variants, name, "rate"))


def _away_results(variants: Variants) -> Iterator[Result]:
    for what in ("request", "task"):
        added = _added(variants, "ours, collector away", what)
        in_ms = [[1e3 * seconds for seconds in turns] for turns in added]
        yield Result.of(f"p99 added to a {what}, collector away, ms", "≤ 1", in_ms)


def _growth_results(variants: Variants) -> Iterator[Result]:
    late, early = (_added(variants, "ours", f"cpu {when}") for when in ("late", "early"))
    yield Result.ratio("CPU added to a run, late : early", "≤ 1.05", late, early)
    late, early = (_series(variants, "ours", f"resident {when}") for when in ("late", "early"))
    yield Result.ratio("resident memory, late : early", "≤ 1.05", late, early)


def _series(variants: Variants, name: str, *keys: str) -> _Rounds:
    """Return the sum of *keys* in each turn of the variant *name*."""
    return [[sum(turn[key] for key in keys) for turn in turns] for turns in variants[name]]


def _added(variants: Variants, name: str, *keys: str) -> _Rounds:
    """Return by how much the variant *name* is above the bare one, in each turn."""
    return _each(sub, _series(variants, name, *keys), _series(variants, "bare", *keys))


def _each(operation: Callable[[float, float], float], a: _Rounds, b: _Rounds) -> _Rounds:
    return [list(map(operation, one, other)) for one, other in zip(a, b, strict=True)]


def print_samples(figure: str, variants: Variants) -> None:
    """Print what was measured for *figure*: medians, with the least and the most of a round."""
    print(f"\n{figure}")
    for key in next(iter(variants.values()))[0][0]:
        print(f"  {key} ({_unit(key)})")
        for variant in variants:
            one = Result.of(variant, "", _series(variants, variant, key))
            spread = f"{_shown(key, min(one.rounds)):.2f} … {_shown(key, max(one.rounds)):.2f}"
            print(f"    {variant:24}{_shown(key, one.value):9.2f}   {spread}")
    print(flush=True)


def print_results(samples: Samples) -> None:
    """Print the figures that have a goal."""
    print(f"{'':52}{'goal':>8}{'is':>8}   by round, least … most")
    for one in results(samples):
        spread = f"{min(one.rounds):.2f} … {max(one.rounds):.2f}"
        print(f"{one.name:52}{one.goal:>8}{one.value:8.2f}   {spread}")


def _unit(key: str) -> str:
    if key == "rate":
        return "a second"
    if key.startswith("resident"):
        return "MB"
    return "p99, ms" if key in ("request", "task") else "CPU, µs"


def _shown(key: str, value: float) -> float:
    return value * {"p99, ms": 1e3, "CPU, µs": 1e6}.get(_unit(key), 1.0)


def as_json(samples: Samples, options: Mapping[str, Any]) -> Any:
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
        "results": [asdict(one) for one in results(samples)],
        "samples": samples,
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
