"""What OpenTelemetry's environment says, checked before the SDK sees it.

The SDK raises, or logs without the name of the variable, on values that it cannot use. Here each
is one line that names the variable, says what is wrong with it and what is used instead.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from opentelemetry.sdk import environment_variables as env

from .sdk import SpanLimits, sampling

__all__ = [
    "Batch",
    "Otlp",
    "Signal",
    "Spool",
    "batch",
    "metric_interval",
    "metrics_target",
    "otlp",
    "sampler",
    "span_limits",
    "spool",
    "state_directory",
    "traces_enabled",
    "turned_off_by",
    "variable_of",
]

logger = logging.getLogger(__package__)

Signal = Literal["TRACES", "METRICS"]

OTEL_TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"
OTEL_METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
QUEUEHOP_SPOOL = "QUEUEHOP_SPOOL"
QUEUEHOP_SPOOL_MAX_AGE = "QUEUEHOP_SPOOL_MAX_AGE"
QUEUEHOP_SPOOL_MAX_BYTES = "QUEUEHOP_SPOOL_MAX_BYTES"
QUEUEHOP_STATE_DIR = "QUEUEHOP_STATE_DIR"
LS_ACCESS_TOKEN = "LS_ACCESS_TOKEN"
LIGHTSTEP_ENDPOINT = "https://ingest.lightstep.com:443"
LIGHTSTEP_HEADER = "lightstep-access-token"
DEFAULT_ENDPOINT = "http://localhost:4317"

#: A chord's body links to every header; the SDK's own bound of 128 would cut a larger one.
LINK_COUNT_LIMIT = 1024


def _reject(variable: str, problem: str, instead: str) -> None:
    logger.warning("%s %s; %s", variable, problem, instead)


def _first(*variables: str) -> tuple[str, str]:
    """Return the first of *variables* that is set and its value, or the last and ``""``."""
    for variable in variables:
        if value := os.environ.get(variable, "").strip():
            return variable, value
    return variables[-1], ""


def _number(variable: str, default: float, *, least: float = 0.0) -> float:
    value = os.environ.get(variable, "").strip()
    if not value:
        return default
    try:
        number = float(value)
        if not least <= number < float("inf"):
            raise ValueError
    except ValueError:
        _reject(variable, f"is {value!r}, not a number of at least {least:g}", f"using {default:g}")
        return default
    return number


def _limit(variable: str, default: int | None) -> int | None:
    value = os.environ.get(variable, "").strip()
    if not value:
        return default
    if value.lower() == "unset":
        return None
    if not value.isdecimal():
        shown = "no limit" if default is None else default
        _reject(variable, f"is {value!r}, not a whole number", f"using {shown}")
        return default
    return int(value)


def traces_enabled() -> bool:
    """Say whether spans are made and sent: not with OTEL_SDK_DISABLED or exporter ``none``."""
    return _enabled(OTEL_TRACES_EXPORTER)


def turned_off_by() -> str:
    """Return the setting that turns traces off, as ``NAME=value``; empty where none does."""
    if _disabled():
        return f"{env.OTEL_SDK_DISABLED}=true"
    return "" if traces_enabled() else f"{OTEL_TRACES_EXPORTER}=none"


def _disabled() -> bool:
    return os.environ.get(env.OTEL_SDK_DISABLED, "").strip().lower() == "true"


def _enabled(variable: str) -> bool:
    if _disabled():
        return False
    exporter = os.environ.get(variable, "").strip().lower() or "otlp"
    if exporter not in ("otlp", "none"):
        _reject(variable, f"is {exporter!r}, not otlp or none", "using otlp")
    return exporter != "none"


@dataclass(frozen=True, slots=True)
class Spool:
    """Where spans wait on disk, and how many bytes of them for how many seconds."""

    directory: Path
    max_bytes: int
    max_age: float


def spool() -> Spool | None:
    """Read ``QUEUEHOP_SPOOL``, its bounds and its place; None if spans wait in memory alone."""
    mode = os.environ.get(QUEUEHOP_SPOOL, "").strip().lower() or "disk"
    if mode not in ("disk", "memory"):
        _reject(QUEUEHOP_SPOOL, f"is {mode!r}, not disk or memory", "using disk")
    if mode == "memory":
        return None
    return Spool(
        directory=state_directory() / "spool",
        max_bytes=int(_number(QUEUEHOP_SPOOL_MAX_BYTES, 256 * 1024 * 1024, least=1)),
        max_age=_number(QUEUEHOP_SPOOL_MAX_AGE, 3 * 24 * 3600, least=1),
    )


def state_directory() -> Path:
    """Return where state is kept: ``QUEUEHOP_STATE_DIR``, or the user's, as XDG says."""
    if given := os.environ.get(QUEUEHOP_STATE_DIR, "").strip():
        return Path(given).absolute()
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification has a relative one ignored.
    try:
        base = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    except RuntimeError:  # a user whom the system does not know, as containers have them
        base = Path("/nonexistent")  # Debian's home of those who have none
    return base / "queuehop"


def metric_interval() -> float:
    """Read ``OTEL_METRIC_EXPORT_INTERVAL``; return seconds."""
    return _number(env.OTEL_METRIC_EXPORT_INTERVAL, 60_000, least=1) / 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """How many spans wait for how long, as ``OTEL_BSP_*`` says. Times in milliseconds."""

    schedule_delay: float
    max_queue_size: int
    max_export_batch_size: int
    export_timeout: float


def batch(schedule_delay: float = 5000) -> Batch:
    """Read ``OTEL_BSP_*``; *schedule_delay* is the default of that one, in milliseconds."""
    queue = int(_number(env.OTEL_BSP_MAX_QUEUE_SIZE, 2048, least=1))
    size = int(_number(env.OTEL_BSP_MAX_EXPORT_BATCH_SIZE, min(512, queue), least=1))
    if size > queue:
        _reject(
            env.OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
            f"is {size}, more than the queue of {queue} holds",
            f"using {queue}",
        )
        size = queue
    return Batch(
        schedule_delay=_number(env.OTEL_BSP_SCHEDULE_DELAY, schedule_delay, least=1),
        max_queue_size=queue,
        max_export_batch_size=size,
        export_timeout=_number(env.OTEL_BSP_EXPORT_TIMEOUT, 30000, least=1),
    )


_SAMPLERS = {
    "always_on": lambda ratio: sampling.ALWAYS_ON,
    "always_off": lambda ratio: sampling.ALWAYS_OFF,
    "traceidratio": sampling.TraceIdRatioBased,
    "parentbased_always_on": lambda ratio: sampling.ParentBased(sampling.ALWAYS_ON),
    "parentbased_always_off": lambda ratio: sampling.ParentBased(sampling.ALWAYS_OFF),
    "parentbased_traceidratio": sampling.ParentBasedTraceIdRatio,
}


def sampler() -> sampling.Sampler:
    """Read ``OTEL_TRACES_SAMPLER`` and its argument; ``parentbased_always_on`` if absent."""
    name = os.environ.get(env.OTEL_TRACES_SAMPLER, "").strip().lower() or "parentbased_always_on"
    if name not in _SAMPLERS:
        default = "parentbased_always_on"
        known = ", ".join(_SAMPLERS)
        _reject(env.OTEL_TRACES_SAMPLER, f"is {name!r}, not one of {known}", f"using {default}")
        name = default
    ratio = 1.0
    if name.endswith("traceidratio"):
        ratio = _number(env.OTEL_TRACES_SAMPLER_ARG, 1.0)
        if ratio > 1.0:
            _reject(env.OTEL_TRACES_SAMPLER_ARG, f"is {ratio:g}, more than 1", "using 1")
            ratio = 1.0
    return _SAMPLERS[name](ratio)


def span_limits() -> SpanLimits:
    """Read ``OTEL_SPAN_*_LIMIT`` and ``OTEL_ATTRIBUTE_*_LIMIT``."""

    def limit(variable: str, default: int | None) -> int:
        value = _limit(variable, default)
        return SpanLimits.UNSET if value is None else value

    count = _limit(env.OTEL_ATTRIBUTE_COUNT_LIMIT, 128)
    length = _limit(env.OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, None)
    return SpanLimits(
        max_attributes=SpanLimits.UNSET if count is None else count,
        max_attribute_length=SpanLimits.UNSET if length is None else length,
        max_span_attributes=limit(env.OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, count),
        max_span_attribute_length=limit(env.OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, length),
        max_event_attributes=limit(env.OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT, count),
        max_link_attributes=limit(env.OTEL_LINK_ATTRIBUTE_COUNT_LIMIT, count),
        max_events=limit(env.OTEL_SPAN_EVENT_COUNT_LIMIT, 128),
        max_links=limit(env.OTEL_SPAN_LINK_COUNT_LIMIT, LINK_COUNT_LIMIT),
    )


@dataclass(frozen=True, slots=True)
class Otlp:
    """Where spans go over OTLP/gRPC. *timeout* in seconds; certificates are file contents."""

    endpoint: str
    insecure: bool
    headers: tuple[tuple[str, str], ...]
    timeout: float
    gzip: bool
    certificate: bytes | None = None
    client_key: bytes | None = None
    client_certificate: bytes | None = None


def otlp(signal: Signal = "TRACES") -> Otlp | None:
    """Read ``OTEL_EXPORTER_OTLP_*`` and ``LS_ACCESS_TOKEN``; None where nothing can be sent.

    The variables of the *signal* win over the general ones. With ``LS_ACCESS_TOKEN`` and no
    endpoint, Lightstep is the endpoint. The token goes out over TLS only.
    """
    protocol_variable, protocol = _of(signal, "PROTOCOL")
    if protocol not in ("", "grpc"):
        _reject(protocol_variable, f"is {protocol!r}, which is not spoken here", "using grpc")

    token = os.environ.get(LS_ACCESS_TOKEN, "").strip()
    if not _is_plain(token):
        _reject(LS_ACCESS_TOKEN, "is not printable ASCII", "sending none")
        token = ""
    variable, endpoint = _of(signal, "ENDPOINT")
    if not endpoint:
        endpoint = LIGHTSTEP_ENDPOINT if token else DEFAULT_ENDPOINT
    target = _target(signal, variable, endpoint)
    if target is None:
        return None
    address, insecure = target

    headers = dict(_headers(signal))
    if token and not insecure:
        headers.setdefault(LIGHTSTEP_HEADER, token)
    variable, _ = _of(signal, "TIMEOUT")
    timeout = _number(variable, 10.0) or 10.0
    certificates = {} if insecure else _certificates(signal)
    return Otlp(
        endpoint=address,
        insecure=insecure,
        headers=tuple(headers.items()),
        timeout=timeout,
        gzip=_gzip(signal),
        **certificates,
    )


#: With none of these set, metrics go where spans go.
_OF_A_SIGNAL = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_METRICS_")


def metrics_target(traces: Otlp) -> Otlp | None:
    """Return where metrics go while spans go to *traces*; None if none are sent."""
    if not _enabled(OTEL_METRICS_EXPORTER):
        return None
    if any(name.startswith(_OF_A_SIGNAL) for name in os.environ):
        return otlp("METRICS")
    return traces


def _target(signal: Signal, variable: str, endpoint: str) -> tuple[str, bool] | None:
    """Return the address of *endpoint* and whether it is plain text."""
    if "://" not in endpoint:  # gRPC's own form: host:port
        _, insecure = _of(signal, "INSECURE")
        return endpoint, insecure.lower() == "true"
    try:
        url = urlsplit(endpoint)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in ("http", "https") or not url.hostname:
        shown = f"{url.scheme}://{url.hostname or ''}" if url.scheme else "not a URL"
        _reject(
            variable,
            f"is no address for OTLP over gRPC ({shown}): it takes http:// or https://host:port",
            "no spans are sent",
        )
        return None
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{host}:{port or (443 if url.scheme == 'https' else 4317)}", url.scheme == "http"


def _headers(signal: Signal) -> Mapping[str, str]:
    """Read the headers: ``key=value`` pairs, comma-separated, values percent-encoded."""
    variable, value = _of(signal, "HEADERS")
    headers = {}
    for pair in filter(str.strip, value.split(",")):
        name, equals, content = pair.partition("=")
        # gRPC wants lower-case names of these characters and raises on others when it sends.
        name = name.strip().lower()
        content = unquote(content.strip())
        if not equals or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            _reject(variable, "has an entry that is not name=value", "leaving that entry out")
        elif not (name.isascii() and _is_plain(content)):
            _reject(variable, f"has a value for {name!r} that is not ASCII", "leaving it out")
        elif name.endswith("-bin"):  # gRPC's for bytes, which no environment has
            _reject(variable, f"has the binary header {name!r}", "leaving it out")
        else:
            headers[name] = content
    return headers


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _gzip(signal: Signal) -> bool:
    variable, value = _of(signal, "COMPRESSION")
    if value.lower() not in ("", "none", "gzip"):
        _reject(variable, f"is {value!r}, not gzip or none", "sending uncompressed")
    return value.lower() == "gzip"


def _certificates(signal: Signal) -> dict[str, bytes]:
    certificates = {}
    for field in ("certificate", "client_key", "client_certificate"):
        variable, path = _of(signal, field.upper())
        if not path:
            continue
        try:
            certificates[field] = Path(path).read_bytes()
        except OSError as exc:
            _reject(variable, f"names {path!r}, unreadable: {exc.strerror}", "going without it")
    return certificates


def variable_of(name: str) -> str:
    """Return the variable that decides *name* for traces, such as ``ENDPOINT``."""
    return _of("TRACES", name)[0]


def _of(signal: Signal, name: str) -> tuple[str, str]:
    """Return the variable that decides *name* for *signal*, and its value."""
    return _first(f"OTEL_EXPORTER_OTLP_{signal}_{name}", f"OTEL_EXPORTER_OTLP_{name}")
