"""Every setting except those of the exporter, checked before the SDK reads it.

The SDK raises on a value that it cannot use, or logs it without the name of the variable. This
module logs one line for such a value: the variable, the problem, and the value used instead.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from opentelemetry.sdk import environment_variables as env
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from .sdk import SpanLimits, logger, sampling

QUEUEHOP_LOGS_CELERY = "QUEUEHOP_LOGS_CELERY"
QUEUEHOP_LOGS_LEVEL = "QUEUEHOP_LOGS_LEVEL"
QUEUEHOP_LOGS_LOGGERS = "QUEUEHOP_LOGS_LOGGERS"
QUEUEHOP_LOGS_MAX_LENGTH = "QUEUEHOP_LOGS_MAX_LENGTH"
QUEUEHOP_SPOOL = "QUEUEHOP_SPOOL"
QUEUEHOP_SPOOL_MAX_AGE = "QUEUEHOP_SPOOL_MAX_AGE"
QUEUEHOP_SPOOL_MAX_BYTES = "QUEUEHOP_SPOOL_MAX_BYTES"
QUEUEHOP_STATE_DIR = "QUEUEHOP_STATE_DIR"

#: A chord's body links to every header. The SDK's own limit of 128 would cut a larger chord.
LINK_COUNT_LIMIT = 1024


@cache
def reject(variable: str, problem: str, instead: str) -> None:
    """Log once the *problem* with the value of *variable*, and what happens *instead*."""
    logger.warning("%s %s; %s", variable, problem, instead)


def number(variable: str, default: float, *, least: float = 0.0) -> float:
    """Read a number of at least *least*. Return *default* if it is absent or malformed."""
    value = os.environ.get(variable, "").strip()
    if not value:
        return default
    try:
        found = float(value)
        if not least <= found < float("inf"):
            raise ValueError
    except ValueError:
        reject(
            variable, f"is {value!r}, not a number of at least {least:g}", f"using {default:.12g}"
        )
        return default
    return found


def boolean(variable: str) -> bool:
    """Read ``true`` or ``false``. Return False if it is absent or malformed."""
    value = os.environ.get(variable, "").strip().lower()
    if value not in ("true", "false", ""):
        reject(variable, f"is {value!r}, not true or false", "using false")
    return value == "true"


def resource_attributes() -> dict[str, str]:
    """Read ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``, which wins."""
    found = {}
    for entry in os.environ.get(env.OTEL_RESOURCE_ATTRIBUTES, "").split(","):
        name, is_pair, value = entry.partition("=")
        if is_pair:
            found[name.strip()] = unquote(value.strip())
        elif entry.strip():
            reject(
                env.OTEL_RESOURCE_ATTRIBUTES,
                "has an entry that is not name=value",
                "ignoring that entry",
            )
    if name := os.environ.get(env.OTEL_SERVICE_NAME, ""):
        found[SERVICE_NAME] = name
    return found


def _limit(variable: str, default: int) -> int:
    value = os.environ.get(variable, "").strip()
    if not value:
        return default
    if value.lower() == "unset":
        return SpanLimits.UNSET
    if not value.isdecimal():
        shown = "no limit" if default == SpanLimits.UNSET else default
        reject(variable, f"is {value!r}, not a whole number", f"using {shown}")
        return default
    return int(value)


@dataclass(frozen=True, slots=True)
class Spool:
    """The spool on disk: its directory, and the bytes and seconds that records may wait."""

    directory: Path
    max_bytes: int
    max_age: float


def spool() -> Spool | None:
    """Read ``QUEUEHOP_SPOOL``, its limits and its directory; None for the memory mode."""
    mode = os.environ.get(QUEUEHOP_SPOOL, "").strip().lower() or "disk"
    if mode not in ("disk", "memory"):
        reject(QUEUEHOP_SPOOL, f"is {mode!r}, not disk or memory", "using disk")
    if mode == "memory":
        return None
    return Spool(
        directory=state_directory() / "spool",
        max_bytes=int(number(QUEUEHOP_SPOOL_MAX_BYTES, 256 * 1024 * 1024, least=1)),
        max_age=number(QUEUEHOP_SPOOL_MAX_AGE, 3 * 24 * 3600, least=1),
    )


def state_directory() -> Path:
    """Return the directory of all state: ``QUEUEHOP_STATE_DIR``, or the XDG directory."""
    given = os.environ.get(QUEUEHOP_STATE_DIR, "").strip()
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        if given:
            return Path(given).expanduser().absolute()
        # The XDG specification says to ignore a relative path.
        base = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    except RuntimeError:  # the system does not know the user, as often in containers
        base = Path("/nonexistent")  # Debian's home of users that have none
    return base.absolute() / "queuehop"  # also if HOME is relative


class Batch(NamedTuple):
    """How many items of one signal may wait in memory, and how many go into one request."""

    max_queue_size: int
    max_export_batch_size: int


class DeliverySettings(NamedTuple):
    """How spans, logs and metrics are sent. Times are in seconds."""

    #: Between two batches.
    schedule_delay: float
    spans: Batch
    logs: Batch
    metric_interval: float


def delivery(*, in_memory: bool = False) -> DeliverySettings:
    """Read ``OTEL_BSP_*``, ``OTEL_BLRP_*`` and ``OTEL_METRIC_EXPORT_INTERVAL``.

    In memory, a thread in every process sends, so it sends less often. On disk, one sender does.
    """
    return DeliverySettings(
        number(env.OTEL_BSP_SCHEDULE_DELAY, 5000 if in_memory else 1000, least=1) / 1000,
        _batch(env.OTEL_BSP_MAX_QUEUE_SIZE, env.OTEL_BSP_MAX_EXPORT_BATCH_SIZE),
        _batch(env.OTEL_BLRP_MAX_QUEUE_SIZE, env.OTEL_BLRP_MAX_EXPORT_BATCH_SIZE),
        number(env.OTEL_METRIC_EXPORT_INTERVAL, 60_000, least=1) / 1000,
    )


def _batch(queue_name: str, size_name: str) -> Batch:
    queue = int(number(queue_name, 2048, least=1))
    size = int(number(size_name, min(512, queue), least=1))
    if size > queue:
        reject(size_name, f"is {size}, more than the queue of {queue} holds", f"using {queue}")
        size = queue
    return Batch(queue, size)


#: Characters of the body of a log record, and of each of its attributes.
MAX_LOG_LENGTH = 16_384


@dataclass(frozen=True, slots=True)
class Logs:
    """Which log records are sent, and how much of each."""

    #: The lowest level that is sent.
    level: int = logging.INFO
    #: The loggers that are sent, each with the loggers below it. Empty for all.
    loggers: tuple[str, ...] = ()
    #: A longer text is cut.
    max_length: int = MAX_LOG_LENGTH
    #: The last attributes beyond this number are left out.
    max_attributes: int | None = 128
    #: Whether Celery's "Task … received" and "Task … succeeded" are sent.
    celery: bool = False


def logs() -> Logs:
    """Read ``QUEUEHOP_LOGS_*`` and the number of attributes that a log record may have."""
    most = _limit(
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", _limit(env.OTEL_ATTRIBUTE_COUNT_LIMIT, 128)
    )
    loggers = os.environ.get(QUEUEHOP_LOGS_LOGGERS, "").split(",")
    return Logs(
        level=_level(),
        loggers=tuple(filter(None, map(str.strip, loggers))),
        max_length=int(number(QUEUEHOP_LOGS_MAX_LENGTH, MAX_LOG_LENGTH, least=1)),
        max_attributes=None if most == SpanLimits.UNSET else most,
        celery=boolean(QUEUEHOP_LOGS_CELERY),
    )


def _level() -> int:
    value = os.environ.get(QUEUEHOP_LOGS_LEVEL, "").strip()
    if not value:
        return logging.INFO
    if value.isdecimal():
        return int(value)
    level = logging.getLevelNamesMapping().get(value.upper())
    if level is None:
        reject(QUEUEHOP_LOGS_LEVEL, f"is {value!r}, not a level of logging", "using INFO")
        return logging.INFO
    return level


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler, and its decisions that are known without calling it.

    A decision is whether a span is sampled if it is a *root*, the child of a sampled span, or the
    child of an unsampled span. None means that *asked* decides.
    """

    asked: sampling.Sampler
    root: bool | None
    child_of_sampled: bool | None
    child_of_unsampled: bool | None


def _samplers(ratio: float) -> Mapping[str, Sampler]:
    on, off = sampling.ALWAYS_ON, sampling.ALWAYS_OFF
    by_ratio = sampling.TraceIdRatioBased(ratio)
    return {
        "always_on": Sampler(on, True, True, True),
        "always_off": Sampler(off, False, False, False),
        "traceidratio": Sampler(by_ratio, None, None, None),
        "parentbased_always_on": Sampler(sampling.ParentBased(on), True, True, False),
        "parentbased_always_off": Sampler(sampling.ParentBased(off), False, True, False),
        "parentbased_traceidratio": Sampler(sampling.ParentBased(by_ratio), None, True, False),
    }


def sampler() -> Sampler:
    """Read ``OTEL_TRACES_SAMPLER`` and its argument; ``parentbased_always_on`` if absent.

    A name that OpenTelemetry does not define is that of an installed sampler.
    """
    default = "parentbased_always_on"
    given = os.environ.get(env.OTEL_TRACES_SAMPLER, "").strip()
    name = given.lower() or default
    ratio = 1.0
    if name.endswith("traceidratio"):
        ratio = number(env.OTEL_TRACES_SAMPLER_ARG, 1.0)
        if ratio > 1.0:
            reject(env.OTEL_TRACES_SAMPLER_ARG, f"is {ratio:g}, more than 1", "using 1")
            ratio = 1.0
    samplers = _samplers(ratio)
    if name in samplers:
        return samplers[name]
    known, instead = ", ".join(samplers), f"using {default}"
    try:
        if (installed := _installed_sampler(given)) is not None:
            return Sampler(installed, None, None, None)
        reject(env.OTEL_TRACES_SAMPLER, f"is {given!r}, not installed nor one of {known}", instead)
    except Exception as exc:
        problem = type(exc).__name__
        reject(
            env.OTEL_TRACES_SAMPLER, f"is {given!r}, which cannot be loaded ({problem})", instead
        )
    return samplers[default]


def _installed_sampler(name: str) -> sampling.Sampler | None:
    """Return the sampler of the entry point *name*, None if no package has it."""
    entry = next(iter(entry_points(group="opentelemetry_traces_sampler", name=name)), None)
    if entry is None:
        return None
    made = entry.load()(os.environ.get(env.OTEL_TRACES_SAMPLER_ARG))
    if not isinstance(made, sampling.Sampler):
        raise TypeError
    return made


def span_limits() -> SpanLimits:
    """Read ``OTEL_SPAN_*_LIMIT`` and ``OTEL_ATTRIBUTE_*_LIMIT``."""
    count = _limit(env.OTEL_ATTRIBUTE_COUNT_LIMIT, 128)
    length = _limit(env.OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, SpanLimits.UNSET)
    return SpanLimits(
        max_attributes=count,
        max_attribute_length=length,
        max_span_attributes=_limit(env.OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, count),
        max_span_attribute_length=_limit(env.OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, length),
        max_event_attributes=_limit(env.OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT, count),
        max_link_attributes=_limit(env.OTEL_LINK_ATTRIBUTE_COUNT_LIMIT, count),
        max_events=_limit(env.OTEL_SPAN_EVENT_COUNT_LIMIT, 128),
        max_links=_limit(env.OTEL_SPAN_LINK_COUNT_LIMIT, LINK_COUNT_LIMIT),
    )
