"""Where spans, metrics and logs are sent: endpoint, protocol, headers, TLS and compression."""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED

from .settings import boolean, number, reject

Signal = Literal["TRACES", "METRICS", "LOGS"]
Protocol = Literal["grpc", "http/protobuf"]

#: In this order in ``Targets``, and wherever there is one value for each signal.
SIGNALS: tuple[Signal, ...] = ("TRACES", "METRICS", "LOGS")

#: The signals in log lines.
NAMES: Mapping[Signal, str] = {"TRACES": "spans", "METRICS": "metrics", "LOGS": "log records"}

LS_ACCESS_TOKEN = "LS_ACCESS_TOKEN"
LIGHTSTEP_ENDPOINT = "https://ingest.lightstep.com:443"
LIGHTSTEP_HEADER = "lightstep-access-token"
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
DEFAULT_ENDPOINTS: Mapping[Protocol, str] = {
    "grpc": "http://localhost:4317",
    "http/protobuf": "http://localhost:4318",
}

#: The first part of a target in gRPC Name Resolution.
_RESOLVERS = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")


def turned_off_by() -> str:
    """Return the setting that turns traces off, as ``NAME=value``; empty if none does."""
    if boolean(OTEL_SDK_DISABLED):
        return f"{OTEL_SDK_DISABLED}=true"
    return "" if is_enabled("TRACES") else "OTEL_TRACES_EXPORTER=none"


def is_enabled(signal: Signal) -> bool:
    """Return whether *signal* is sent. By default, spans and metrics are, and logs are not."""
    if boolean(OTEL_SDK_DISABLED):
        return False
    variable, default = f"OTEL_{signal}_EXPORTER", "none" if signal == "LOGS" else "otlp"
    exporter = os.environ.get(variable, "").strip().lower() or default
    if exporter not in ("otlp", "none"):
        reject(variable, f"is {exporter!r}, not otlp or none", f"using {default}")
        exporter = default
    return exporter != "none"


@dataclass(frozen=True, slots=True)
class Otlp:
    """A target of OTLP. *endpoint* is ``host:port`` or another gRPC target; over HTTP, a URL.

    *timeout* is in seconds. The certificates and the key are the contents of their files.
    """

    endpoint: str
    insecure: bool
    headers: tuple[tuple[str, str], ...]
    timeout: float
    gzip: bool
    certificate: bytes | None = None
    client_key: bytes | None = None
    client_certificate: bytes | None = None
    #: Not in the ``repr``, whose hash names the directory on disk: *endpoint* determines it.
    protocol: Protocol = field(default="grpc", repr=False)

    @property
    def address(self) -> str:
        """The ``host:port`` to connect to, or another gRPC target."""
        if self.protocol == "grpc":
            return self.endpoint
        url = urlsplit(self.endpoint)
        return f"{_host(url)}:{url.port or (80 if self.insecure else 443)}"


class Targets(NamedTuple):
    """The target of each signal, None for a signal that is not sent."""

    traces: Otlp
    metrics: Otlp | None = None
    logs: Otlp | None = None


def targets() -> Targets | None:
    """Read the targets of all signals; None if that of the spans is unusable."""
    traces = otlp()
    if traces is None:
        return None
    metrics = otlp("METRICS") if is_enabled("METRICS") else None
    temporality = os.environ.get(TEMPORALITY, "").strip().lower()
    if metrics is not None and temporality not in ("", "cumulative"):
        reject(TEMPORALITY, f"is {temporality!r}, not cumulative", "sending cumulative metrics")
    return Targets(traces, metrics, otlp("LOGS") if is_enabled("LOGS") else None)


def otlp(signal: Signal = "TRACES") -> Otlp | None:
    """Read ``OTEL_EXPORTER_OTLP_*`` and ``LS_ACCESS_TOKEN``; None if the target is unusable.

    The variables of the *signal* win over the general ones. With ``LS_ACCESS_TOKEN`` and no
    endpoint, Lightstep is the endpoint. The token is sent over TLS only.
    """
    protocol = _protocol(signal)
    if protocol is None:
        return None
    token = os.environ.get(LS_ACCESS_TOKEN, "").strip()
    if not _is_plain(token):
        reject(LS_ACCESS_TOKEN, "is not printable ASCII", "sending none")
        token = ""
    headers = dict(_headers(signal, protocol))
    variable, endpoint = _setting(signal, "ENDPOINT")
    endpoint = endpoint or (LIGHTSTEP_ENDPOINT if token else DEFAULT_ENDPOINTS[protocol])
    if protocol == "grpc":
        target = _address(signal, variable, endpoint)
    else:
        target = _url(signal, variable, endpoint, headers)
    if target is None:
        return None
    address, insecure = target
    if token and not insecure:
        headers.setdefault(LIGHTSTEP_HEADER, token)
    variable, _ = _setting(signal, "TIMEOUT")
    certificates = {} if insecure else _certificates(signal)
    return Otlp(
        endpoint=address,
        insecure=insecure,
        headers=tuple(headers.items()),
        timeout=number(variable, 10.0) or 10.0,
        gzip=_gzip(signal),
        protocol=protocol,
        **certificates,
    )


def _protocol(signal: Signal) -> Protocol | None:
    """Return the protocol to send with, None if its library is missing."""
    variable, value = _setting(signal, "PROTOCOL")
    protocol = value.lower()
    if protocol in ("", "grpc"):
        return "grpc"
    if protocol == "http/json":  # the same endpoints take both
        reject(variable, "is http/json, which is not supported", "using http/protobuf")
    elif protocol != "http/protobuf":
        reject(variable, f"is {value!r}, not grpc or http/protobuf", "using grpc")
        return "grpc"
    if find_spec("urllib3") is None:
        reject(
            variable,
            f"is {protocol}, which needs urllib3: pip install 'queuehop[http]'",
            "nothing is sent",
        )
        return None
    return "http/protobuf"


def shown(endpoint: str) -> str:
    """Return *endpoint* for a log line: without user, password and query."""
    if "://" not in endpoint:
        return endpoint
    url = urlsplit(endpoint)
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _url(
    signal: Signal, variable: str, endpoint: str, headers: dict[str, str]
) -> tuple[str, bool] | None:
    """Return the URL for *signal* and whether it is plain text. Add its password to *headers*.

    Section "Endpoint URLs for OTLP/HTTP" of the specification.
    """
    url = _split(variable, endpoint, "HTTP", "http:// or https://host:port")
    if url is None:
        return None
    if url.username is not None:
        words = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers.setdefault("authorization", f"Basic {b64encode(words.encode()).decode()}")
    path = url.path or "/"
    if variable == "OTEL_EXPORTER_OTLP_ENDPOINT":  # also if no variable is set
        path = f"{url.path.rstrip('/')}/v1/{signal.lower()}"
    netloc = url.netloc.rpartition("@")[2]
    return url._replace(netloc=netloc, path=path, fragment="").geturl(), url.scheme == "http"


def _address(signal: Signal, variable: str, endpoint: str) -> tuple[str, bool] | None:
    """Return the gRPC target of *endpoint* and whether it is plain text."""
    if "://" not in endpoint or is_grpc_target(endpoint):
        variable, _ = _setting(signal, "INSECURE")
        return _absolute(endpoint), boolean(variable)
    takes = "http:// or https://host:port, or a target of gRPC such as unix:/path"
    url = _split(variable, endpoint, "gRPC", takes)
    if url is None:
        return None
    return f"{_host(url)}:{url.port or (443 if url.scheme == 'https' else 4317)}", (
        url.scheme == "http"
    )


def _split(variable: str, endpoint: str, protocol: str, takes: str) -> SplitResult | None:
    """Return the parts of the URL *endpoint*. If it is unusable, log that and return None."""
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = urlsplit(""), None
    if url.scheme in ("http", "https") and host and _is_plain(endpoint):
        return url
    where = f"{url.scheme}://{host or ''}" if url.scheme else "not a URL"
    reject(
        variable,
        f"is not an address for OTLP over {protocol} ({where}): use {takes}",
        "nothing is sent",
    )
    return None


def _host(url: SplitResult) -> str | None:
    """Return the host of *url*, an IPv6 address in brackets."""
    return f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname


def is_grpc_target(endpoint: str) -> bool:
    """Return whether *endpoint* names its resolver, as ``unix:/path`` and ``dns:///host:port`` do.

    Such an endpoint does not determine whether TLS is used: ``INSECURE`` does.
    """
    return endpoint.partition(":")[0] in _RESOLVERS


def _absolute(target: str) -> str:
    """Return *target* for the sender, which has another working directory."""
    resolver, _, path = target.partition(":")
    return f"unix:{Path(path).absolute()}" if resolver == "unix" and path[:1] != "/" else target


def _headers(signal: Signal, protocol: Protocol) -> Mapping[str, str]:
    """Read the headers: ``key=value`` pairs, comma-separated, values percent-encoded."""
    variable, value = _setting(signal, "HEADERS")
    headers = {}
    for pair in filter(str.strip, value.split(",")):
        name, equals, content = pair.partition("=")
        # gRPC raises on names that have capitals or other characters, and only when it sends.
        name = name.strip().lower()
        content = unquote(content.strip())
        if not equals or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            reject(variable, "has an entry that is not name=value", "ignoring that entry")
        elif not (name.isascii() and _is_plain(content)):
            reject(variable, f"has a value for {name!r} that is not ASCII", "ignoring it")
        elif protocol == "grpc" and name.endswith("-bin"):  # gRPC takes only bytes for these
            reject(variable, f"has the binary header {name!r}", "ignoring it")
        else:
            headers[name] = content
    return headers


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _gzip(signal: Signal) -> bool:
    variable, value = _setting(signal, "COMPRESSION")
    if value.lower() not in ("", "none", "gzip"):
        reject(variable, f"is {value!r}, not gzip or none", "sending uncompressed")
    return value.lower() == "gzip"


def with_absolute_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* for a process that may have another working directory."""
    files = {
        name: os.path.abspath(path)
        for name, value in environ.items()
        if name.startswith("OTEL_EXPORTER_OTLP_")
        and name.endswith(("_CERTIFICATE", "_CLIENT_KEY"))
        and (path := value.strip())
    }
    return {**environ, **files}


def _certificates(signal: Signal) -> dict[str, bytes]:
    certificates = {}
    for name in ("certificate", "client_key", "client_certificate"):
        variable, path = _setting(signal, name.upper())
        if not path:
            continue
        try:
            certificates[name] = Path(path).read_bytes()
        except OSError as exc:
            reject(
                variable,
                f"names {path!r}, which cannot be read: {exc.strerror}",
                "ignoring it",
            )
    pair = ("client_key", "client_certificate")
    for name, other in (pair, pair[::-1]):
        # gRPC ends the process if it has one without the other, or an empty one.
        if certificates.get(name) and not certificates.get(other):
            variable, _ = _setting(signal, name.upper())
            needed, _ = _setting(signal, other.upper())
            reject(variable, f"is not usable without {needed}", "sending no client certificate")
            del certificates[name]
    return certificates


def variable_of(name: str) -> str:
    """Return the variable that decides *name*, such as ``ENDPOINT``, for traces."""
    return _setting("TRACES", name)[0]


def _setting(signal: Signal, name: str) -> tuple[str, str]:
    """Return the variable that decides *name* for *signal*, and its value."""
    general = f"OTEL_EXPORTER_OTLP_{name}"
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_{name}", general):
        if value := os.environ.get(variable, "").strip():
            return variable, value
    return general, ""
