"""Carry one trace across HTTP and a Celery queue, by hand.

Call ``setup`` once in each process, ``inject`` before you send a message, and ``extract`` after you
receive one. The hops are in ``telemetry.requests``, ``telemetry.flask`` and ``telemetry.celery``.
Each is loaded only if you import it.
"""

from .propagation import extract, inject
from .setup import flush, setup, shutdown

__all__ = ["extract", "flush", "inject", "setup", "shutdown"]
