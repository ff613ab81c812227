"""Every command that a page names exists. Those of README and guide work as described."""

import re
import shlex
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from ..conftest import free_port
from ..processes import ROOT, Starter
from ..test_compose import compose

PAGES = ["README.md", "docs/guide.md", "docs/viewer.md", "CONTRIBUTING.md"]

PROGRAMS = {"celery", "curl", "docker", "flask", "make", "pip", "python"}

_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


def commands() -> list[str]:
    """Return the commands in blocks of their own, each once."""
    found = []
    for page in PAGES:
        for line in _FENCED.sub("", (ROOT / page).read_text()).splitlines():
            words = line.split()
            while words and _ASSIGNMENT.match(words[0]):
                del words[0]
            if line.startswith("    ") and words and words[0] in PROGRAMS:
                found.append(line.strip())
    return list(dict.fromkeys(found))


def plain(command: str) -> list[str]:
    """Return the words of *command* without its comment."""
    return shlex.split(command, comments=True)


COMMANDS = commands()
MAKE = [command for command in COMMANDS if command.startswith("make")]
CURL = [command for command in COMMANDS if command.startswith("curl")]
COMPOSE = [command for command in COMMANDS if "docker compose" in command]
SERVERS = ["flask run", "celery -A workers worker", "python -m app.client"]
SAMPLED = "OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.05 flask run"
DOCTOR = "python -m telemetry doctor --celery workers --flask app"
VIEW = ["python -m telemetry view", "python -m telemetry view --follow"]
#: tests/test_wheel.py runs it, in an environment of its own.
INSTALL = "pip install '.[flask,celery,requests,viewer,testing]'"
VIEW_OPTIONS = (
    "python -m telemetry view [--grpc 127.0.0.1:4317] [--http 127.0.0.1:4318] [--db PATH]"
)


def test_no_command_is_left_out() -> None:
    tried = {*MAKE, *CURL, *COMPOSE, *SERVERS, *VIEW, SAMPLED, DOCTOR, VIEW_OPTIONS, INSTALL}
    assert set(COMMANDS) == tried


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_the_target(command: str) -> None:
    """A dry run only: other tests and CI run these targets."""
    done = subprocess.run([*plain(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMPOSE)
def test_compose_understands(command: str) -> None:
    """Check the files and the options alone, because up and down need an engine."""
    words = plain(command)
    env = dict(word.split("=", 1) for word in words if _ASSIGNMENT.match(word))
    words = words[len(env) :]
    assert words[:2] == ["docker", "compose"]
    verb = next(word for word in words if word in ("up", "down"))
    own = words[2 : words.index(verb)]
    assert compose(*own, "config", "-q", **env).returncode == 0
    options = {word for word in words[words.index(verb) :] if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", compose(verb, "--help").stdout))


@pytest.fixture
def web(start: Starter) -> str:
    """Start the web side and a worker by the README's commands. Return the web side's address."""
    port = free_port()
    flask, worker, _ = SERVERS
    start(*flask.split(), FLASK_RUN_PORT=str(port)).wait_for_line("Running on")
    start(*worker.split(), "--loglevel=INFO").wait_for_line(" ready.")
    return f"http://127.0.0.1:{port}"


def test_by_hand(start: Starter, web: str) -> None:
    client = start(*SERVERS[2].split()[2:], DESTINATION_URL=f"{web}/ping")
    assert re.search(r"/ping  \d+ bytes  [\d.]+ ms  trace [0-9a-f]{32}", client.wait_for_line("ms"))
    client.signal(signal.SIGINT)
    assert client.wait() == 0

    for command in CURL:
        expected = re.search(r"# (.*)", command)
        words = [word.replace("http://127.0.0.1:5000", web) for word in plain(command)]
        done = subprocess.run([*words, "-s"], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        status = done.stdout.split()[1]
        said = re.match(r"\d{3}", expected[1]) if expected else None
        assert status == (said[0] if said else "200"), done.stdout


def test_the_doctor(start: Starter, web: str) -> None:
    doctor = start(*plain(DOCTOR)[2:])
    assert doctor.wait(60) == 0, doctor.output
    assert "A request makes one trace, and a task runs in it." in doctor.output


def test_sampled(start: Starter) -> None:
    words = plain(SAMPLED)
    env = dict(word.split("=", 1) for word in words if _ASSIGNMENT.match(word))
    web = start(*words[len(env) :], FLASK_RUN_PORT=str(free_port()), **env)
    assert "Running on" in web.wait_for_line("Running on")
    assert "OTEL_TRACES_SAMPLER" not in web.output  # it would be named if it could not be used


@pytest.mark.parametrize("command", VIEW)
def test_the_viewer(start: Starter, tmp_path: Path, command: str) -> None:
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    options = ("--grpc", grpc, "--http", http, "--db", str(tmp_path / "traces.db"))
    assert [option for option in options if option.startswith("--")] == re.findall(
        r"--\w+", VIEW_OPTIONS
    )
    viewer = start(*command.split()[2:], *options)
    assert f"http://{http}" in viewer.wait_for_line("http://")
    with urlopen(f"http://{http}/", timeout=10) as page:
        assert b"<title>" in page.read()


def in_sentences() -> set[str]:
    """Return the commands that a sentence or a table of any page names."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(_FENCED.sub("", page.read_text()) for page in pages)
    return set(re.findall(r"`(?:[A-Z_]+=\S+ )*((?:make|python -m) [^`]+)`", text))


def test_a_command_in_a_sentence_is_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = in_sentences()
    assert len(commands) > 10
    for command in commands:
        program, *words = command.split()
        if program == "make":
            assert words[0] in targets, command
        else:
            module = words[1].replace(".", "/")
            files = (f"{module}.py", f"{module}/__main__.py", f"docs/by_hand/{module}.py")
            assert any((ROOT / file).exists() for file in files), command
