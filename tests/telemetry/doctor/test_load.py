"""Applications that do not exist, or that raise while they are loaded."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.doctor.load import NotLoadable, load_celery, load_flask

from ...processes import ROOT
from .conftest import BOTH, PROJECT, QUEUE, Doctor, below, codes, first, run_doctor

CREATE = f"{PROJECT}:create_app"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "name an application"),
        (["--what"], "--what"),
        (["--flask", "no_such_module"], "Could not import 'no_such_module'"),
        (["--flask", f"{PROJECT}:no_such_app"], "no_such_app"),
        (["--celery", "no_such_module"], "no_such_module; give --celery workers.celery:app"),
        (["--celery", f"{PROJECT}:no_such_app"], f"{PROJECT} has no no_such_app"),
        (["--celery", f"{PROJECT}.no_such_app"], f"{PROJECT} has no no_such_app"),
        (["--celery", "shop/queue.py"], "no module is named shop/queue; give --celery "),
        (["--url", "127.0.0.1:5000/x"], "'127.0.0.1:5000/x' is not an address; write http://"),
        (["--url", "file:///etc/hosts"], "is not an address"),
        (["--url", "http://user:secret@[::1"], "'http://user:**@[::1' is not an address"),
        (["--celery", "telemetry.flask"], "telemetry.flask has no Celery app"),
        (["--celery", "celery:Celery"], "not a Celery app, but of class type; give --celery "),
        (["--flask", CREATE, "--timeout", "soon"], "'soon' is not a number of seconds"),
        (["--flask", CREATE, "--timeout", "-1"], "'-1' is not a number of seconds"),
    ],
)
def test_usage(args: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "doctor", *args],
        cwd=ROOT, capture_output=True, text=True,
        env={"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


RAISES = {
    "raise RuntimeError('no DATABASE_URL')": "RuntimeError: no DATABASE_URL (broken.py:1)",
    "import os; os.environ['DATABASE_URL']": "KeyError: 'DATABASE_URL' (broken.py:1)",
    "import no_such_library": "ModuleNotFoundError: No module named 'no_such_library'",
    "import os; os.no_such_name": "AttributeError: module 'os' has no attribute 'no_such_name'",
    "def (": "SyntaxError: invalid syntax",
    "raise SystemExit('set DATABASE_URL')": "SystemExit: set DATABASE_URL",
}


@pytest.mark.parametrize("load", [load_flask, load_celery])
@pytest.mark.parametrize("source", RAISES)
def test_an_application_that_raises(
    load: Callable[[str], object], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(NotLoadable) as raised:
        load("broken:app")
    option = load.__name__.removeprefix("load_")
    finding = raised.value.finding
    assert finding.code == f"{option}-not-loadable"
    assert f"--{option} broken:app cannot be loaded: {RAISES[source]}" in finding.problem


def test_the_app_of_a_package_that_raises(tmp_path: Path) -> None:
    """Celery's own search reports that the package has no app."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "celery.py").write_text("import no_such_library")
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "doctor", "--celery", "shop"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "QUEUEHOP_STATE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "No module named 'no_such_library' (shop/celery.py:1)" in done.stdout


def test_a_configuration_that_cannot_be_loaded(doctor: Doctor) -> None:
    said = first(doctor(*QUEUE, BREAK="no-configuration"))
    assert said["code"] == "celery-not-loadable"
    assert "no_such_settings" in said["problem"]


def test_one_that_raises_does_not_hide_the_other(doctor: Doctor) -> None:
    assert codes(doctor(BREAK="no-configuration,no-provider")) == [
        "no-provider",
        "celery-not-loadable",
    ]


def test_a_check_that_raises_does_not_hide_the_others(doctor: Doctor) -> None:
    said = doctor(*BOTH, BREAK="odd-app", CELERY_BROKER_URL="memory://")
    assert codes(said) == ["check-failed", "broker-in-memory"]
    assert "AttributeError" in first(said)["problem"]


def test_one_exception_in_both_applications_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import os\n\nos.environ['DATABASE_URL']\n")
    status, report = run_doctor(
        {"QUEUEHOP_STATE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        *("--flask", "shop", "--celery", "shop"), cwd=tmp_path,
    )  # fmt: skip
    finding = first((status, report))
    assert finding["code"] == "flask-not-loadable"
    assert below(finding) == ["celery-not-loadable"]


def test_what_an_application_prints_is_not_in_the_json(doctor: Doctor) -> None:
    assert codes(doctor("--flask", CREATE, BREAK="prints,starts-a-thread")) == []


@pytest.mark.parametrize("made", ["Celery()", "flask_app.extensions['celery']"])
@pytest.mark.parametrize("given", ["orders:create_app", "orders", "shop"])
def test_a_name_that_is_no_app_says_what_to_give(given: str, made: str, tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text("import shop\n\ndef create_app():\n    pass\n")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "queue.py").write_text(f"from celery import Celery\n\napp = {made}\n")
    for name in "abc":  # deeper ones come last
        nested = tmp_path / name / "examples" / "queue.py"
        nested.parent.mkdir(parents=True)
        nested.write_text("app = Celery()\n")
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "doctor", "--celery", given],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "QUEUEHOP_STATE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "give --celery shop.queue:app" in done.stderr
