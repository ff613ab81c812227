"""The tasks of the project are registered in the workers, and published with a trace."""

import pytest

from .conftest import BOTH, QUEUE, WEB, Doctor, below, codes, first, hints


def test_a_worker_that_lacks_a_task(doctor: Doctor, worker) -> None:
    worker(BREAK="worker-lacks-task")
    said = doctor()
    assert codes(said) == ["worker-lacks-task"]
    assert "has not registered ship, and discards such messages" in first(said)["problem"]


def test_a_worker_lacks_no_task_that_goes_elsewhere(doctor: Doctor, worker) -> None:
    worker("-n", "all@here", "-Q", "slow", BREAK="routed")
    worker("-n", "packs@here", "-Q", "celery", BREAK="routed,worker-lacks-task")
    assert codes(doctor(BREAK="routed")) == []


@pytest.mark.parametrize("apps", [(*QUEUE,), (*QUEUE, *WEB)])
def test_shared_tasks_of_a_server(sound: Doctor, apps: tuple[str, ...]) -> None:
    """``set_as_current`` is for the thread that makes the app; ``set_default`` is for all."""
    said = sound(*apps, BREAK="current")
    assert "shared-task-elsewhere" in codes(said)
    (finding,) = (f for f in said[1]["findings"] if f["code"] == "shared-task-elsewhere")
    assert "the shared tasks share are published by the app 'default'" in finding["problem"]
    assert "shared-task-elsewhere" not in codes(sound(*apps, BREAK="current,default"))


def test_a_factory_that_makes_both_apps(sound: Doctor) -> None:
    """The doctor calls it twice, which makes two Celery apps. Both publish in the same way."""
    # The worker does not have the shared task.
    assert codes(sound(BREAK="makes-celery,compressed")) == ["worker-lacks-task"]
    said = sound(BREAK="makes-celery,untraced")
    assert codes(said) == ["shared-task-elsewhere", "worker-lacks-task"]
    assert "which is not instrumented" in first(said)["problem"]


def test_a_task_class_that_publishes_by_itself(sound: Doctor) -> None:
    said = sound(BREAK="past-send")
    assert codes(said) == ["task-class-past-send"]
    assert "PastSend.apply_async() of pack publishes without" in first(said)["problem"]
    assert "telemetry.inject(headers)" in first(said)["remedy"]


def test_a_task_class_that_publishes_in_a_thread(sound: Doctor) -> None:
    said = sound(BREAK="delays-in-a-thread")
    assert codes(said) == ["task-class-past-send"]
    assert "OwnWay.delay() of pack publishes in a trace of its own" in first(said)["problem"]
    assert "copy_context" in first(said)["remedy"]


def test_a_task_class_that_cannot_run_without_arguments(doctor: Doctor, worker) -> None:
    """The doctor's own task has another class."""
    worker(BREAK="runs-with-arguments")
    assert codes(doctor()) == []


def test_an_app_that_publishes_by_itself(sound: Doctor) -> None:
    """No probe is answered, because none names the queue for the answer."""
    said = sound(*BOTH, "--timeout", "2", BREAK="app-past-send")
    assert codes(said) == ["header-stripped"]
    assert "PastSendTask.send_task() call super()" in first(said)["remedy"]
    assert "probe-unanswered" in below(first(said))


def test_a_task_class_that_cannot_be_tried(sound: Doctor) -> None:
    said = sound(BREAK="needs-arguments")
    assert codes(said) == []
    assert hints(said) == ["task-class-unknown"]


def test_a_rate_limit(doctor: Doctor, worker) -> None:
    """It is a hint, and does not delay a probe."""
    worker(BREAK="limited,limited-all")
    said = doctor()
    assert codes(said) == []
    assert hints(said) == ["rate-limit"]
    problem = said[1]["hints"][0]["problem"]
    assert "limits the rate of pack (1/h), ship (1/h): their" in problem
