"""Carry one trace across HTTP and a Celery queue, by hand.

``setup`` once a process; ``inject`` where a message leaves, ``extract`` where it arrives.
The hops themselves are in ``telemetry.requests``, ``telemetry.flask`` and ``telemetry.celery``,
each loaded only by those who import it.
"""

from .propagation import extract, inject
from .setup import flush, setup, shutdown

__all__ = ["extract", "flush", "inject", "setup", "shutdown"]
