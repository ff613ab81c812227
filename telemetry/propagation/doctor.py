"""Marks in the requests and messages of ``python -m telemetry doctor``."""

#: The member of ``tracestate`` in the doctor's own traces, which the viewer does not count.
DOCTOR_MEMBER = ("queuehop", "doctor")
#: The name of the library's task by which a worker answers.
DOCTOR_TASK = "queuehop.doctor"
#: The header of a request that asks for its SERVER span, and of the response that names it.
DOCTOR_HEADER = "queuehop-doctor"
#: The header of a message that names the doctor's queue. Celery's ``reply_to`` is for results.
REPLY_TO = "queuehop-reply-to"
