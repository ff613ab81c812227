"""The names by which the processes of the bench find each other's things."""

__all__ = ["BROKER", "MARKS", "PLANS", "PUBLISHED", "QUEUE", "SINK", "TAKEN"]

#: Environment: the broker's address, and the file of a worker's marks, a line of JSON each.
BROKER, MARKS = "BENCH_BROKER", "BENCH_MARKS"

#: Environment: the host and port of what accepts the spans of Sentry and Datadog.
SINK = "BENCH_SINK"

#: Lists in the broker: what a publisher is to publish, and what it says of that.
PLANS, PUBLISHED = "bench-plans", "bench-published"

#: Lists in the broker: where Celery publishes to, and where workers take from.
QUEUE, TAKEN = "celery", "bench-taken"
