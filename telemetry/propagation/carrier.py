"""Read the headers of a carrier of any kind, with values of any type."""

from typing import Any

from opentelemetry.propagators.textmap import Getter

#: Of more values of one header, the rest is not read.
_MAX_VALUES = 1024

_BYTES, _TEXT, _LISTS = (bytes, bytearray), (str, bytes, bytearray), (list, tuple)


def read_headers(carrier: Any, wanted: frozenset[str] | None) -> dict[str, list[str]]:
    """Return the values of the *wanted* headers of *carrier*, None for all, by lower-case name."""
    headers: dict[str, list[str]] = {}
    # Werkzeug's headers and the standard library's have items() and are no mappings.
    items = getattr(carrier, "items", None)
    if items is None:
        return headers
    for name, value in items():
        if isinstance(name, bytes):
            name = name.decode("latin-1")
        if not isinstance(name, str):
            continue
        name = name.lower()
        if (wanted is None or name in wanted) and (values := header_values(value)):
            # One name in two cases is two header fields.
            headers.setdefault(name, []).extend(values)
    return headers


def header_values(value: Any) -> list[str]:
    """Return *value*, one header field or a list of them, as strings; empty if it is neither."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, _BYTES):
        return [value.decode("latin-1")]
    if isinstance(value, _LISTS):
        return [
            item if isinstance(item, str) else item.decode("latin-1")
            for item in value[:_MAX_VALUES]
            if isinstance(item, _TEXT)
        ]
    return []


class _HeadersGetter(Getter[Any]):
    """Reads the result of ``read_headers``."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return carrier.get(key.lower())  # type: ignore[no-any-return]

    def keys(self, carrier: Any) -> list[str]:
        return list(carrier)


HEADERS_GETTER = _HeadersGetter()
