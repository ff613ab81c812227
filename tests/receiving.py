"""The receiver of most tests, which waits as a slow machine needs it."""

from collections.abc import Callable

from telemetry.otlp.receiver import ReceivedLog, ReceivedSpan, Receiver

from .processes import PATIENCE


class PatientReceiver(Receiver):
    """A receiver whose waits end after PATIENCE."""

    def wait_for(
        self, predicate: Callable[[list[ReceivedSpan]], object], timeout: float = PATIENCE
    ) -> list[ReceivedSpan]:
        return super().wait_for(predicate, timeout)

    def wait_for_logs(
        self, predicate: Callable[[list[ReceivedLog]], object], timeout: float = PATIENCE
    ) -> list[ReceivedLog]:
        return super().wait_for_logs(predicate, timeout)
