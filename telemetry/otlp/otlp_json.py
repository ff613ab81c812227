"""OTLP in JSON: that of protobuf, but for ids, which are hexadecimal digits and not base64."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from .bounds import MAX_SPANS, Malformed, TooLarge
from .signals import SIGNALS, Export

ID_FIELDS = ("traceId", "spanId", "parentSpanId")


def from_json(body: bytes, kind: type[Export], most: int = MAX_SPANS) -> Export:
    """Read an export of *kind*, with *most* spans or log records, from *body*.

    Raises Malformed and TooLarge.
    """
    request = kind()
    names = _names(kind)
    try:
        document = json.loads(body, object_hook=_checked)
        if not isinstance(document, dict):
            raise Malformed(f"the body is not a JSON object with {names[0]}")
        for number, item in enumerate(_items_in(document, names)):
            if number == most:
                noun = SIGNALS[kind].items.replace("_", " ")
                raise TooLarge(f"the body has more than {most} {noun}")
            for holder, field in _ids_of(item):
                holder[field] = _base64_of(field, holder[field])
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except (Malformed, TooLarge):
        raise
    except RecursionError:
        raise Malformed("the body is not OTLP in JSON: it is nested too deeply") from None
    except (TypeError, AttributeError):
        raise Malformed(
            f"the body is not OTLP in JSON: {', '.join(names)} and links are arrays of objects"
        ) from None
    except (SystemError, UnicodeError):  # upb raises the first for half of a surrogate pair
        raise Malformed("the body is not OTLP in JSON: it has text that is not Unicode") from None
    except (ValueError, json_format.Error) as exc:
        raise Malformed(f"the body is not OTLP in JSON: {str(exc)[:300]}") from None
    return request


#: The numbers that JSON may have as strings: integers of 64 bits, and doubles.
_NUMBERS = {
    **dict.fromkeys(
        (
            "startTimeUnixNano",
            "endTimeUnixNano",
            "timeUnixNano",
            "observedTimeUnixNano",
            "intValue",
        ),
        re.compile("-?[0-9]+"),
    ),
    "doubleValue": re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|NaN|-?Infinity"),
}


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    """Return *item*. Raise Malformed for a string that is a number for Python alone."""
    for key in _NUMBERS.keys() & item.keys():
        value = item[key]
        if isinstance(value, str) and not _NUMBERS[key].fullmatch(value):
            raise Malformed(f"{key} is not a number: {value[:50]!r}")
    return item


def _names(kind: type[Message]) -> list[str]:
    """Return the names in JSON of an export's resources, scopes and items."""
    signal = SIGNALS[kind]
    fields = (signal.resources, signal.scopes, signal.items)
    return [re.sub("_(.)", lambda match: match[1].upper(), field) for field in fields]


def _items_in(document: Mapping[str, Any], names: Iterable[str]) -> Iterable[dict[str, Any]]:
    resources, scopes, items = names
    for outer in document.get(resources) or ():
        for scope in outer.get(scopes) or ():
            yield from scope.get(items) or ()


def _ids_of(item: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the ids of *item*, a span or log record, and of its links: each as an object's key."""
    for holder in (item, *(item.get("links") or ())):
        yield from ((holder, field) for field in ID_FIELDS if holder.get(field))


def _base64_of(field: str, value: Any) -> str:
    if not (isinstance(value, str) and _HEX.fullmatch(value)):
        raise Malformed(f"{field} is not in hexadecimal digits: {str(value)[:50]!r}")
    # Python 3.15 warns where protobuf reads the characters of ordinary base64.
    return base64.urlsafe_b64encode(bytes.fromhex(value)).decode()


_HEX = re.compile("([0-9a-fA-F]{2})+")


def grouped(kind: type[Export], items: Iterable[tuple[bytes, Message]]) -> Export:
    """Return an export of *items*. Each comes with its resource and scope as bytes."""
    signal, request = SIGNALS[kind], kind()
    sources: dict[bytes, Any] = {}
    for source, item in items:
        if source not in sources:
            resource = getattr(request, signal.resources).add()
            resource.ParseFromString(source)
            sources[source] = getattr(getattr(resource, signal.scopes)[0], signal.items)
        sources[source].append(item)
    return request


def to_json(export: Message) -> dict[str, Any]:
    """Return *export* in the types of JSON."""
    document = json_format.MessageToDict(export, use_integers_for_enums=True)
    for item in _items_in(document, _names(type(export))):
        for holder, field in _ids_of(item):
            holder[field] = base64.b64decode(holder[field]).hex()
    return document
