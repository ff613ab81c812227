"""One finished hop, or one log line, as a record: its facts, unchanged.

A hop records facts and interprets nothing. ``interpret`` turns a record into a span, and
``measurements`` into its measurements: in the sender, or earlier in the process, if something reads
the span.

The bytes are MessagePack. Every struct is an array, so the order of its fields is the format:
append new fields at the end, with a default. For any other change, raise ``FORMAT`` in
``export.spool.disk_sink``.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, ClassVar

from msgspec import MsgspecError, Struct, field, msgpack
from msgspec.structs import astuple
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from .scope import Scope
from .tracestate import HeaderTraceState


class SpanTemplate(Struct, array_like=True, eq=False):
    """The common part of all spans of one hop: name, kind and static attributes.

    A template is compared by identity. Each process writes it once per segment. *kind* is the value
    of a ``SpanKind``.
    """

    name: str
    kind: int
    static_attributes: dict[str, Any]
    scope: Scope

    @property
    def span_kind(self) -> SpanKind:
        """Return the kind as OpenTelemetry's API has it."""
        return SpanKind(self.kind)


#: The headers of a Celery message (protocol 2's names) that a record copies.
MESSAGE_FIELDS = ("id", "root_id", "parent_id", "group", "retries", "eta", "expires")
_ID, _ETA = MESSAGE_FIELDS.index("id"), MESSAGE_FIELDS.index("eta")

#: The keys of a WSGI environment (PEP 3333) that a record copies.
ENVIRON_FIELDS = (
    *("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"),
    *("SERVER_PROTOCOL", "SCRIPT_NAME", "PATH_INFO", "REMOTE_ADDR", "HTTP_USER_AGENT"),
)


def message_facts(headers: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of ``MESSAGE_FIELDS`` in the *headers* of a message, None where absent."""
    try:
        return _message_fields(headers)
    except KeyError:
        return tuple(map(headers.get, MESSAGE_FIELDS))


_message_fields: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*MESSAGE_FIELDS)


def environ_facts(environ: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of ``ENVIRON_FIELDS`` in a WSGI *environ*, None where absent."""
    return tuple(map(environ.get, ENVIRON_FIELDS))


class SendFacts(Struct, array_like=True, tag=1):
    """Hop 3: a message that was published."""

    #: The result of ``message_facts``; None until the message is complete.
    message: tuple[Any, ...] | None = None
    #: The queue. If it is unknown, the exchange, and there is a *routing_key*.
    destination: str | None = None
    #: ``error.type``
    error: str | None = None
    routing_key: str | None = None


class RunFacts(Struct, array_like=True, tag=2):
    """Hop 4: one attempt at a task, from its message."""

    message: tuple[Any, ...]
    queue: Any = None
    redelivered: Any = None
    #: ``queuehop-sent-at`` as the message has it.
    sent_at: Any = None
    #: When the worker's main process took the message, in Unix seconds.
    received_at: Any = None
    #: How many items ``map``, ``starmap`` or a piece of ``chunks`` has.
    items: int | None = None
    #: Whether its parent is the remote send. ``interpret`` then adds a link to it.
    links_to_parent: bool = False
    #: Whether the run was called in place and no message waited for it.
    eager: bool = False
    #: Whether the run counts in the metrics. A message that never ran does not.
    measured: bool = True
    #: Celery's state, or EXPIRED or UNKNOWN.
    state: str | None = None
    error: str | None = None
    #: How many messages the run takes at once, if it is one of a batch.
    messages: int | None = None

    @property
    def message_id(self) -> Any:
        """The id of the message."""
        return self.message[_ID]

    @property
    def eta(self) -> Any:
        """The ``eta`` of the message, as it has it."""
        return self.message[_ETA]


class ServerFacts(Struct, array_like=True, tag=3):
    """Hop 2: a request that was served."""

    environ: tuple[Any, ...]
    route: str | None = None
    #: The status code, 0 where the response had none.
    status: int = 0
    error: str | None = None


class ClientFacts(Struct, array_like=True, tag=4):
    """Hop 1: a request that was sent. *url* has no user, password, query or fragment."""

    method: str
    url: str
    host: str
    port: int
    status: int = 0
    error: str | None = None


Facts = SendFacts | RunFacts | ServerFacts | ClientFacts


class ParentContext(Struct, frozen=True):
    """The context of a span's parent: what ``SpanContext`` holds, as a record holds it.

    It is read in one step, where ``SpanContext`` takes a function for each field.
    """

    #: 16 bytes
    trace_id: bytes
    span_id: int
    #: The flags of W3C Trace Context.
    flags: int
    is_remote: bool = False
    #: The ``tracestate`` header.
    trace_state: str = ""

    @classmethod
    def of(cls, context: SpanContext) -> "ParentContext | None":
        """Return *context* as the context of a parent, None if it is invalid."""
        if not context.is_valid:
            return None
        state = context.trace_state
        return cls(
            context.trace_id.to_bytes(16, "big"),
            context.span_id,
            int(context.trace_flags),
            context.is_remote,
            state.to_header() if state else "",
        )

    def span_context(self) -> SpanContext:
        """Return it as OpenTelemetry's API has it."""
        return span_context(
            self.trace_id, self.span_id, self.flags, self.is_remote, self.trace_state
        )


def span_context(
    trace_id: bytes, span_id: int, flags: int, is_remote: bool, trace_state: str = ""
) -> SpanContext:
    """Return a ``SpanContext`` of the fields of a record."""
    state = HeaderTraceState.from_header([trace_state]) if trace_state else None
    number = int.from_bytes(trace_id, "big")
    return SpanContext(number, span_id, is_remote, TraceFlags(flags), state)


class RecordedEvent(Struct, array_like=True):
    """An event of a span, at a Unix time in nanoseconds."""

    name: str
    time: int
    attributes: dict[str, Any]
    dropped_attributes: int = 0


class RecordedLink(Struct, array_like=True):
    """A link to the span *span_id* of *trace_id* (16 bytes)."""

    trace_id: bytes
    span_id: int
    is_remote: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    trace_state: str = ""
    dropped_attributes: int = 0
    #: The flags of W3C Trace Context: a sampler may follow them.
    flags: int = 0

    @classmethod
    def to(cls, parent: "Parent") -> "RecordedLink":
        """Return a link to the span of *parent*, without attributes."""
        return cls(parent.trace_id, parent.span_id, parent.is_remote, flags=parent.flags)


class Record(Struct, array_like=True):
    """One hop: its ids, its times in Unix nanoseconds, its facts, and what the code inside added.

    *trace_id* is 16 bytes, *flags* are those of W3C Trace Context, *parent_id* 0 is a root.
    """

    SAMPLED: ClassVar[int] = 1
    #: A record is of this process. Only the parent of its span may be a remote one.
    is_remote: ClassVar[bool] = False

    trace_id: bytes
    span_id: int
    start_time: int
    end_time: int = 0
    parent_id: int = 0
    flags: int = 0
    parent_is_remote: bool = False
    trace_state: str = ""
    facts: Facts | None = None
    #: The name, if it is not the template's.
    name: str | None = None
    attributes: dict[str, Any] | None = None
    events: list[RecordedEvent] | None = None
    links: list[RecordedLink] | None = None
    #: The value of a ``StatusCode``.
    status: int = 0
    status_description: str | None = None
    #: How many attributes, events and links the limits cut.
    dropped: tuple[int, int, int] = (0, 0, 0)
    #: Whether *attributes* are all that the span has, because a limit was applied to them.
    limited: bool = False

    def span_context(self) -> SpanContext:
        """Return the span's own context as OpenTelemetry's API has it."""
        return span_context(self.trace_id, self.span_id, self.flags, False, self.trace_state)


#: A span as its children know it: a remote one or another library's, or one of this process.
Parent = ParentContext | Record


class RecordedException(Struct, array_like=True):
    """The exception of a log record: its class, its message and its traceback."""

    type: str
    message: str
    stacktrace: str


class RecordedLog(Struct, array_like=True):
    """One record of the standard library's logging, at a Unix time in nanoseconds.

    *trace_id* is 16 bytes, and empty outside a span. *attributes* are those of ``extra`` that are
    sent.
    """

    time: int
    logger: str
    #: The number and the name of the level, as ``logging`` has them.
    level: int
    level_name: str
    body: str
    #: Where the logging call is.
    path: str
    function: str
    line: int
    trace_id: bytes = b""
    span_id: int = 0
    flags: int = 0
    exception: RecordedException | None = None
    #: The stack of the call, where ``stack_info`` asked for it.
    stack: str | None = None
    attributes: dict[str, Any] | None = None
    dropped_attributes: int = 0


#: Classes derived from text or numbers, such as NumPy's floats, are packed as their base class.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


def _base(value: object) -> object:
    """Return *value*, of a class that MessagePack lacks, as its base class; None if it has none."""
    return next((convert(value) for base, convert in _BASES if isinstance(value, base)), None)


_encode = msgpack.Encoder(enc_hook=_base).encode

#: Raised for text that is not Unicode, integers beyond 64 bits, and endless nesting.
_UNPACKABLE = (MsgspecError, OverflowError, RecursionError, TypeError, ValueError)
#: Of a record that cannot be packed, values nested deeper than this are left out.
MAX_DEPTH = 8


def pack(record: Record | RecordedLog) -> bytes:
    """Return *record* as MessagePack, without what that lacks."""
    try:
        return _encode(record)
    except _UNPACKABLE:
        return _encode(_packable(record))


def _packable(value: Any, depth: int = 0) -> Any:
    """Return *value* with ``?`` for what is not Unicode and None for what MessagePack lacks."""
    if isinstance(value, Struct):
        return type(value)(*[_packable(item, depth) for item in astuple(value)])
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, (list, tuple, dict)) and depth == MAX_DEPTH:
        return None
    if isinstance(value, (list, tuple)):
        return tuple(_packable(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return {_packable(key): _packable(item, depth + 1) for key, item in value.items()}
    try:
        _encode(value)
    except _UNPACKABLE:
        return None
    return value


unpack = msgpack.Decoder(Record).decode
unpack_log = msgpack.Decoder(RecordedLog).decode
