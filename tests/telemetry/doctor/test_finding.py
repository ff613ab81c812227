"""The text of a finding, and the consequences below it."""

import pytest

from telemetry.doctor.causes import explain
from telemetry.doctor.finding import Finding

S = "s3cret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"redis://:{S}@shop:6379/0 does not answer", "redis://:**@shop:6379/0 does not answer"),
        (f"amqp://guest:{S}@shop//", "amqp://guest:**@shop//"),
        (f"redis://:a@{S}/b@shop:6379/0", "redis://:**@shop:6379/0"),
        (f"redis://{S}@shop", "redis://**@shop"),
        (f"postgresql+psycopg://u:{S}'\"@shop/db", "postgresql+psycopg://u:**@shop/db"),
        (f"guest:{S}@shop:5672/vhost", "guest:**@shop:5672/vhost"),
        (f":{S}@127.0.0.1:6379/0", ":**@127.0.0.1:6379/0"),
        (f"cannot reach 'u:{S}@[::1]/db'", "cannot reach 'u:**@[::1]/db'"),
        (f"https://shop/orders?token={S}&page=1 is slow", "https://shop/orders?… is slow"),
        (f"shop:4318/v1?{S}", "shop:4318/v1?…"),
        (f"password={S}, api_key={S}; x", "password=…, api_key=…; x"),
        (f"No module named 'https;AccountKey={S}=='", "No module named 'https;AccountKey=…'"),
        (f"Port could not be cast to integer value as '{S}'",
         "Port could not be cast to integer value as '…'"),
        ("answers \x00\x1b[31m\ufffd red,\nand more", "answers [31m red, and more"),
        ("celery@shop is busy; packer@shop holds 2", "celery@shop is busy; packer@shop holds 2"),
        ("where is it? (orders.py:12)", "where is it? (orders.py:12)"),
    ],
)  # fmt: skip
def test_no_secret_is_shown(text: str, shown: str) -> None:
    finding = Finding("code", "web", text, text)
    assert (finding.problem, finding.remedy) == (shown, shown)


def finding(code: str, hop: str = "worker") -> Finding:
    return Finding(code, hop, "p", "r")


def tree(findings: list[Finding]) -> list[object]:
    return [(f.code, tree(list(f.consequences))) if f.consequences else f.code for f in findings]


@pytest.mark.parametrize(
    ("found", "explained"),
    [
        ([], []),
        (["pool-not-covered", "pool-not-covered"], ["pool-not-covered"]),
        (["worker-export-failed", "exporter-refused"],
         [("exporter-refused", ["worker-export-failed"])]),
        (["no-worker", "worker-export-failed", "clocks-apart", "directory-not-writable"],
         ["no-worker", ("directory-not-writable", ["worker-export-failed"]), "clocks-apart"]),
        (["service-name-default", "celery-doubled"],
         [("celery-doubled", ["service-name-default"])]),
        (["set-up-only-in-children", "no-provider"],
         [("set-up-only-in-children", ["no-provider"])]),
        (["propagator-missing", "run-apart"], [("propagator-missing", ["run-apart"])]),
        (["result-backend-login", "not-published"], [("result-backend-login", ["not-published"])]),
    ],
)  # fmt: skip
def test_a_cause_stands_above_what_comes_of_it(found: list[str], explained: list[object]) -> None:
    assert tree(explain(map(finding, found))) == explained


def test_causes_explain_their_own_hop() -> None:
    doubled = [finding("celery-doubled", hop) for hop in ("queue", "worker")]
    assert tree(explain(doubled)) == [("celery-doubled", ["celery-doubled"])]
    here, there = finding("propagator-missing", "web"), finding("propagator-missing")
    found = explain([here, there, finding("request-apart", "web"), finding("run-apart")])
    assert tree(found) == [
        ("propagator-missing", ["request-apart"]),
        ("propagator-missing", ["run-apart"]),
    ]
