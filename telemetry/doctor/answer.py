"""Findings about the answer to a request, shared by requests over WSGI and over HTTP."""

from .finding import Finding


def apart(what: str, arrived: bool, linked: bool) -> Finding:
    """Report that the request *what* did not continue the trace in its headers.

    *arrived* is whether Flask received these headers, *linked* whether its span links to them.
    """
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
            "add tracecontext to OTEL_PROPAGATORS",
        )  # fmt: skip
    return Finding(
        "request-apart", "web",
        f"{problem}: a WSGI middleware removes or replaces the header before Flask receives it",
        "let the middleware pass traceparent, tracestate and baggage",
    )  # fmt: skip


def not_served(what: str, status: str) -> Finding | None:
    """Hint that the request *what* had one trace, and that *status* is not from a working view."""
    if not status.startswith(("404", "405", "5")):
        return None
    return Finding(
        "request-not-served", "web", f"{what} is one trace, and the answer is {status}",
        "give a --path or --url that exists and accepts GET" if status.startswith("40")
        else "see the exception in the log of the app",
        hint=True,
    )  # fmt: skip
