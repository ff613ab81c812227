"""What is current: OpenTelemetry's context, by the shortest way to it.

Its API takes two Python functions for each step, and a request takes a dozen. Where it keeps the
context in a context variable, which it does unless ``OTEL_PYTHON_CONTEXT`` names something else,
that variable is set and asked itself.
"""

import os
from collections.abc import Callable
from contextvars import Token
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_CONTEXT

from . import faults

__all__ = ["attach", "detach", "get_current", "restore"]

_Attach = Callable[[Context], Token[Context]]


def _ways() -> tuple[_Attach, Callable[[], Context], Callable[[Token[Context]], None]]:
    """Return what sets, what asks and what puts back."""
    token: Any = otel_context.attach(Context())
    otel_context.detach(token)
    if os.environ.get(OTEL_PYTHON_CONTEXT) or not isinstance(token, Token):
        return otel_context.attach, otel_context.get_current, otel_context.detach
    variable: Any = token.var
    return variable.set, variable.get, variable.reset


#: ``restore`` is for the very frame that has attached; elsewhere it may raise, and ``detach`` is.
attach, get_current, restore = _ways()


def detach(token: Token[Context]) -> None:
    """Make current what was so before ``attach`` returned *token*. Never raises."""
    try:
        restore(token)
    except Exception:
        faults.report("go back to the context from before")
