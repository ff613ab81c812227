"""Carry one trace across HTTP and a Celery queue, by hand.

``setup`` once a process; ``inject`` before you send a message, ``extract`` after you receive one.
The hops themselves are in ``telemetry.requests``, ``telemetry.flask`` and ``telemetry.celery``,
each loaded only by those who import it.
"""

from .propagation import extract, inject
from .setup import flush, setup, shutdown

__all__ = ["extract", "flush", "inject", "setup", "shutdown"]
