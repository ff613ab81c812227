"""Make the screenshots in docs/images: ``python docs/screenshots.py``.

Start a viewer, send it the traces of ``python -m app.demo`` and of a shop in trouble
(``busy_shop.py``), and take a screenshot of its pages. This takes five minutes. It needs Chromium,
Redis, and the packages of ``make check``. With pngquant the files have a third of the size.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

PINGS = 12

#: Seconds for which the shop takes orders. In the second half it has no worker for mail.
BUSY = 120

#: Seconds after which a message is stuck.
STUCK_AFTER = 30

#: Each hop, and how to recognize its row in the trace.
HOPS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "request": lambda row: row["name"] == "GET" and row["service"] == "queuehop-client",
    "server": lambda row: row["name"] == "GET /ping",
    "send": lambda row: str(row["name"]).startswith("send "),
    "run": lambda row: str(row["name"]).startswith("process "),
    "store": lambda row: row["name"] == "SET",
}

#: Screenshots of the whole page.
WHOLE = ("queue", "trace-killed", "trace-chord")

#: The selector of the waterfall and the details.
WATERFALL = "main .trace-body"

PYTHON = sys.executable


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.load(urlopen(url, timeout=10))
    return found


def is_busy(viewer: str) -> bool:
    """Return whether a message still waits that is not stuck, or a trace has no summary."""
    newest = ask(f"{viewer}/api/traces?limit=200")["traces"]
    return ask(f"{viewer}/api/stats")["pending"] or any("waiting" in row["live"] for row in newest)


def main() -> int:
    chromium = shutil.which("chromium")
    redis = shutil.which("redis-server") or shutil.which("valkey-server")
    if chromium is None or redis is None:
        print("Chromium or Redis is missing: apt install chromium redis-server", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    grpc, http, broker = (free_port() for _ in range(3))
    viewer = f"http://127.0.0.1:{http}"
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        env = dict(
            os.environ,
            CELERY_BROKER_URL=f"redis://127.0.0.1:{broker}/0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{grpc}",
            QUEUEHOP_STATE_DIR=directory,
            PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'docs'}",
        )

        def start(*argv: str, **more: str) -> subprocess.Popen[bytes]:
            return cleanup.enter_context(running(argv, {**env, **more}))

        start(
            *(PYTHON, "-m", "telemetry", "view", "--grpc", f"127.0.0.1:{grpc}"),
            *("--http", f"127.0.0.1:{http}", "--db", ":memory:"),
            *("--stuck-after", str(STUCK_AFTER)),
        )
        wait_for(http)
        start(redis, "--port", str(broker), "--bind", "127.0.0.1", "--save", "")
        wait_for(broker)
        demo = [PYTHON, "-m", "app.demo", "--count", str(PINGS)]
        subprocess.run(demo, cwd=ROOT, env=env, check=True, stdin=subprocess.DEVNULL)
        celery = (PYTHON, "-m", "celery", "-A", "busy_shop", "worker", "--loglevel", "ERROR")
        start(
            *(*celery, "-Q", "orders,payments,reports,images", "-c", "4", "-n", "shop@%h"),
            OTEL_SERVICE_NAME="shop-worker",
        )
        mail = start(*celery, "-Q", "mail", "-n", "mail@%h", OTEL_SERVICE_NAME="mail-worker")
        orders = start(PYTHON, str(ROOT / "docs" / "busy_shop.py"), str(BUSY))
        time.sleep(BUSY / 2)
        mail.terminate()
        orders.wait()
        while is_busy(viewer):
            time.sleep(0.5)
        take_all(viewer, chromium)
    return 0


@contextmanager
def running(argv: tuple[str, ...], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    none = subprocess.DEVNULL
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stdin=none, stdout=none, stderr=none)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    """Wait until something listens on *port*."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def take_all(url: str, chromium: str) -> None:
    """Take a screenshot of each page; of some in dark or on a phone too."""

    def trace_of(failures: int = 0, **query: str) -> str:
        """Return the id of a trace with this number of failed runs, in which no message waits."""
        rows = ask(f"{url}/api/traces?{urlencode(query)}")["traces"]
        found: str = next(
            row["trace_id"]
            for row in rows
            if row["states"].get("FAILURE", 0) == failures and not row["live"]
        )
        return found

    plain = trace_of(task="workers.tasks.ping", sort="wait")
    rows = ask(f"{url}/api/traces/{plain}/hops")["rows"]
    hops = {f"hop-{name}": next(row["id"] for row in rows if of(row)) for name, of in HOPS.items()}
    chord = trace_of(task="reports.total")
    retried = trace_of(task="payments.charge", q="status:retry")
    killed = trace_of(
        failures=1,
        task="images.resize",
        status="error",
        q="exception.type=billiard.exceptions.WorkerLostError",
    )
    since = urlencode({"since_s": 900})
    pages = {
        "traces": ("/", "light", 1280),
        "trace": (f"/trace/{plain}", "light", 1280),
        "trace-dark": (f"/trace/{plain}", "dark", 1280),
        "trace-chord": (f"/trace/{chord}", "light", 1280),
        "trace-retries": (f"/trace/{retried}", "light", 1280),
        "trace-killed": (f"/trace/{killed}", "light", 1280),
        **{name: (f"/trace/{plain}/{row}", "light", 1280) for name, row in hops.items()},
        "queues": (f"/queues?{since}", "light", 1280),
        "queues-phone": (f"/queues?{since}", "dark", 390),
        "queue": (f"/queue?queue=payments&{since}", "light", 1280),
        "map": (f"/map?{since}", "light", 1280),
    }
    options = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        for name, (path, scheme, width) in pages.items():
            page = browser.new_page(
                viewport={
                    "width": width,
                    "height": 844 if width < 1000 else 900 if name in WHOLE else 700,
                },
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(url + path)
            page.locator("main h1, main tbody tr, main .node").first.wait_for()
            page.locator("main .loading").wait_for(state="detached")
            page.wait_for_timeout(700)
            take(page, name, whole=name in WHOLE, only=WATERFALL if name in hops else None)
            page.close()
        browser.close()


def take(page: Page, name: str, whole: bool, only: str | None) -> None:
    """Write a screenshot of the window, of the *whole* page, or *only* of one element."""
    image = IMAGES / f"{name}.png"
    clip = page.locator(only).bounding_box() if only else None
    page.screenshot(path=image, clip=clip, full_page=whole)
    if shrink := shutil.which("pngquant"):
        command: list[str | Path] = [
            shrink,
            "--force",
            "--skip-if-larger",
            "--strip",
            "--output",
            image,
        ]
        # 98 and 99: the result would be larger, or worse. The file stays as it is.
        status = subprocess.run([*command, "64", image]).returncode
        if status not in (0, 98, 99):
            raise SystemExit(status)
    print(f"docs/images/{name}.png")


if __name__ == "__main__":
    sys.exit(main())
