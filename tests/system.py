"""The parts of the system as processes, each started as a person starts it."""

from .processes import Process, Starter


def start_worker(start: Starter, **env: str | None) -> Process:
    """Start a worker of two processes; return it when it takes messages."""
    worker = start(
        *("celery", "-A", "workers", "worker", "--loglevel=INFO", "--concurrency=2"),
        *("--without-gossip", "--without-mingle"),
        **env,
    )
    worker.wait_for_line(" ready.")
    return worker


def start_web(start: Starter, **env: str | None) -> tuple[Process, str]:
    """Start the web side on a free port; return it and its URL."""
    web = start("flask", "run", "--port", "0", **env)
    line = web.wait_for_line("Running on http://")
    return web, line.rpartition(" ")[2]
