"""Carry one trace across HTTP and a Celery queue.

Call ``setup`` once in each process. ``telemetry.requests``, ``telemetry.flask`` and
``telemetry.celery`` trace these libraries; each is loaded only if you import it. For any other
transport, call ``inject`` before you send a message, and ``extract`` after you receive one.
"""

from .propagation import extract, inject
from .setup import flush, setup, shutdown

__all__ = ["extract", "flush", "inject", "setup", "shutdown"]
