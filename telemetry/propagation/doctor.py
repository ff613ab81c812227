"""Marks of the requests and messages of ``python -m telemetry doctor`` are marked."""

__all__ = ["DOCTOR_HEADER", "DOCTOR_MEMBER", "DOCTOR_TASK", "REPLY_TO"]

#: The member of ``tracestate`` in traces of the doctor's own: the viewer does not count them.
DOCTOR_MEMBER = ("queuehop", "doctor")
#: The task of the library's own by which a worker answers.
DOCTOR_TASK = "queuehop.doctor"
#: The header of an HTTP request that asks for the SERVER span of the request, and of the answer.
DOCTOR_HEADER = "queuehop-doctor"
#: The header of a message that names the doctor's queue. Celery's ``reply_to`` is for results.
REPLY_TO = "queuehop-reply-to"
