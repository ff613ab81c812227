"""What both ends of an HTTP request say of its method."""

from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
)
from opentelemetry.util.types import AttributeValue

__all__ = ["method_attributes"]

# RFC 9110 and RFC 5789: what the conventions let a span name and a metric carry.
_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}


def method_attributes(method: str) -> tuple[str, dict[str, AttributeValue]]:
    """Return the word for a span's name, and the attributes, of a request *method*.

    A method outside of the known ones is ``HTTP`` and ``_OTHER``, so that a stranger cannot make
    up span names.
    """
    if method in _METHODS:
        return method, {HTTP_REQUEST_METHOD: method}
    return "HTTP", {HTTP_REQUEST_METHOD: "_OTHER", HTTP_REQUEST_METHOD_ORIGINAL: method[:64]}
