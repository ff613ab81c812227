"""The queue side: the Celery app, its tasks, and the stores that they touch."""
