"""Makes the pictures in docs/images: the system of this repository, seen in the viewer.

Starts a viewer, sends it the traces of ``python -m app.demo`` and photographs its pages:
``python docs/screenshots.py``. Needs Chromium, and the packages of ``make check``; with pngquant
they are a third of the size.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

PINGS = 12

IN_MEMORY = ("--db", ":memory:")


#: Each hop, by what its row in the trace is.
HOPS: dict[str, Callable[[dict[str, object]], bool]] = {
    "request": lambda row: row["name"] == "GET" and row["service"] == "queuehop-client",
    "server": lambda row: row["name"] == "GET /ping",
    "send": lambda row: str(row["name"]).startswith("send "),
    "run": lambda row: str(row["name"]).startswith("process "),
    "store": lambda row: row["name"] == "SET",
}

#: The tree and the panel beside it.
WATERFALL = "main .trace-body"


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def ask(url: str) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.load(urlopen(url, timeout=10))
    return found


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("Chromium is missing. On Debian and Ubuntu: apt install chromium", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    grpc, http = free_address(), free_address()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        viewer = subprocess.Popen(
            [sys.executable, "-m", "telemetry", "view", "--grpc", grpc, "--http", http, *IN_MEMORY],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert viewer.stdout is not None
        print(viewer.stdout.readline().strip())
        try:
            env = dict(
                os.environ,
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{grpc}",
                QUEUEHOP_STATE_DIR=state,
            )
            demo = [sys.executable, "-m", "app.demo", "--count", str(PINGS)]
            subprocess.run(demo, cwd=ROOT, env=env, check=True, stdin=subprocess.DEVNULL)
            while len(ask(f"http://{http}/api/traces")["traces"]) < PINGS:
                time.sleep(0.1)
            photograph(f"http://{http}", chromium)
        finally:
            viewer.terminate()
            viewer.wait()
    return 0


def photograph(url: str, chromium: str) -> None:
    """Take each page in light, and the trace in dark too."""
    plain = ask(f"{url}/api/traces?task=workers.tasks.ping&sort=wait")["traces"][0]["trace_id"]
    rows = ask(f"{url}/api/traces/{plain}/hops")["rows"]
    hops = {f"hop-{name}": next(row["id"] for row in rows if of(row)) for name, of in HOPS.items()}
    pages = {
        "traces": ("/", "light"),
        "trace": (f"/trace/{plain}", "light"),
        "trace-dark": (f"/trace/{plain}", "dark"),
        **{name: (f"/trace/{plain}/{row}", "light") for name, row in hops.items()},
        "queues": ("/queues", "light"),
        "map": ("/map", "light"),
    }
    options = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=options)
        for name, (path, scheme) in pages.items():
            page = browser.new_page(
                viewport={"width": 1280, "height": 640},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(url + path)
            page.locator("main h1, main tbody tr").first.wait_for()
            page.wait_for_timeout(500)
            # Of a hop its place in the tree and what is said of it, not the head of the page again.
            clip = page.locator(WATERFALL).bounding_box() if name in hops else None
            image = IMAGES / f"{name}.png"
            page.screenshot(path=image, clip=clip)
            if shrink := shutil.which("pngquant"):
                command = [shrink, "--force", "--skip-if-larger", "--strip", "--output", image]
                subprocess.run([*command, "64", image], check=True)
            print(f"docs/images/{name}.png")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
