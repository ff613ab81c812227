"""What it means that a request did not continue the trace that it brought."""

from .finding import Finding

__all__ = ["apart"]


def apart(what: str, arrived: bool, linked: bool) -> Finding:
    """Report *what*: whether its headers *arrived* at Flask, and its span is *linked* to them."""
    problem = f"{what} with a traceparent started another trace"
    if linked:
        return Finding(
            "request-apart", "web", f"{problem}: inbound is 'link'",
            "call instrument_flask(app) with inbound='continue', unless the callers are strangers",
        )  # fmt: skip
    if arrived:
        return Finding(
            "request-apart", "web",
            f"{problem}: inbound is 'ignore', or OTEL_PROPAGATORS does not name tracecontext",
            "call instrument_flask(app) with inbound='continue', unless the callers are strangers; "
            "let OTEL_PROPAGATORS name tracecontext",
        )  # fmt: skip
    return Finding(
        "request-apart", "web",
        f"{problem}: a WSGI middleware removes or replaces the header before Flask sees it",
        "let the middleware keep traceparent, tracestate and baggage",
    )  # fmt: skip
