"""Send the collector an export without spans: name, connection, TLS, protocol, credentials."""

import os
from importlib.util import find_spec

from ..config.exporter import otlp, variable_of
from .connection import Broken
from .finding import Finding


def check_exporter() -> Finding | None:
    """Export no spans to the configured collector, step by step."""
    target = otlp()
    if target is None:
        return _unusable()
    try:
        if target.protocol == "grpc":
            from .exporter_grpc import check_grpc

            check_grpc(target)
        else:
            from .exporter_http import check_http

            check_http(target)
    except Broken as exc:
        return exc.finding
    return None


def _unusable() -> Finding:
    endpoint, protocol = variable_of("ENDPOINT"), variable_of("PROTOCOL")
    over_http = os.environ.get(protocol, "").strip().lower().startswith("http/")
    if over_http and find_spec("urllib3") is None:
        return Finding(
            "exporter-http-missing", "export",
            f"{protocol} is http/protobuf, and urllib3 is not installed",
            "pip install 'queuehop[http]'",
        )  # fmt: skip
    port = 4318 if over_http else 4317
    return Finding(
        "exporter-endpoint-unusable", "export",
        f"{endpoint} is not an address for OTLP over {'HTTP' if over_http else 'gRPC'}",
        f"set {endpoint} to http://host:{port}, or https:// for TLS",
    )  # fmt: skip
