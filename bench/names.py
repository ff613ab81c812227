"""The names that the processes of the bench share."""

#: Environment: the broker's address, and the file of a worker's marks, a line of JSON each.
BROKER, MARKS = "BENCH_BROKER", "BENCH_MARKS"

#: Environment: the host and port of what accepts the spans of Sentry and Datadog.
SINK = "BENCH_SINK"

#: Lists in the broker: the plans of a publisher, and its answers.
PLANS, PUBLISHED = "bench-plans", "bench-published"

#: Lists in the broker: the one to which Celery publishes, and the one of the workers.
QUEUE, TAKEN = "celery", "bench-taken"
