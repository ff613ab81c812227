"""The names of services: of web, worker and beat."""

from .conftest import BOTH, WEB, Doctor, codes, first, hints


def test_web_and_worker_have_one_name(doctor: Doctor, worker) -> None:
    worker(OTEL_SERVICE_NAME="shop")
    said = doctor(OTEL_SERVICE_NAME="shop")
    assert codes(said) == ["service-name-shared"]
    assert "set OTEL_SERVICE_NAME to another name in one" in first(said)["remedy"]
    assert hints(said) == ["service-name-unused", "service-name-unused"]
    assert "'project-web'" in said[1]["hints"][0]["problem"]
    assert "'project-worker'" in said[1]["hints"][1]["problem"]


def test_a_second_name(sound: Doctor) -> None:
    said = sound(*WEB, BREAK="named-twice")
    assert codes(said) == []
    assert hints(said) == ["service-name-unused"]
    assert "'shop' in the code has no effect: the name is project-web" in str(said)


def test_beat_has_the_name_of_the_workers(sound: Doctor) -> None:
    said = sound(*BOTH, BREAK="beat")
    assert codes(said) == []
    assert hints(said) == ["service-name-beat"]
