"""The settings: a good value is used, a bad one is a log line that names its variable."""

from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits, sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from telemetry.config import exporter, settings
from telemetry.config.sdk import create_resource


def test_a_user_without_a_home_has_no_place_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, the user may be a number without an entry in the system."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("QUEUEHOP_STATE_DIR", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    spool = settings.spool()
    assert spool is not None
    assert not spool.directory.parent.exists()


def test_a_home_that_is_a_relative_path_is_that_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sender has another working directory."""
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("QUEUEHOP_STATE_DIR", raising=False)
    assert settings.state_directory() == Path.cwd() / "home/.local/state/queuehop"


def test_the_state_directory_may_be_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell has read the variable if a service manager or a file sets it."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("QUEUEHOP_STATE_DIR", "~/spans")
    assert settings.state_directory() == Path("/home/someone/spans")


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_BLRP_MAX_QUEUE_SIZE",
        "OTEL_METRIC_EXPORT_INTERVAL",
    ],
)
@pytest.mark.parametrize("value", ["soon", "-1", "0", "inf", "nan"])
def test_a_malformed_number_is_said_by_its_variable_and_replaced(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], variable: str, value: str
) -> None:
    default = settings.delivery()
    monkeypatch.setenv(variable, value)
    assert settings.delivery() == default
    assert said() == [variable]


def test_a_batch_is_not_larger_than_the_queue(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    assert settings.delivery().spans.max_export_batch_size == 10
    assert not said()
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")
    assert settings.delivery().spans.max_export_batch_size == 10
    assert said() == ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]


@pytest.mark.parametrize(
    ("name", "argument", "description"),
    [
        ("", "", "ParentBased{root:AlwaysOnSampler"),
        ("always_on", "", "AlwaysOnSampler"),
        ("always_off", "", "AlwaysOffSampler"),
        ("traceidratio", "0.25", "TraceIdRatioBased{0.25}"),
        ("parentbased_always_off", "", "ParentBased{root:AlwaysOffSampler"),
        ("parentbased_traceidratio", "0.5", "ParentBased{root:TraceIdRatioBased{0.5}"),
    ],
)
def test_sampler(
    monkeypatch: pytest.MonkeyPatch, name: str, argument: str, description: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert settings.sampler().asked.get_description().startswith(description)


@pytest.mark.parametrize(
    ("name", "argument", "variable"),
    [
        ("allways_on", "", "OTEL_TRACES_SAMPLER"),
        ("traceidratio", "half", "OTEL_TRACES_SAMPLER_ARG"),
        ("traceidratio", "7", "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_a_sampler_that_cannot_be_used_samples_all_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    name: str,
    argument: str,
    variable: str,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    result = settings.sampler().asked.should_sample(None, 2**128 - 1, "x")
    assert result.decision is sampling.Decision.RECORD_AND_SAMPLE
    assert said() == [variable]


SAMPLERS = """
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

def percent(argument):
    return TraceIdRatioBased(float(argument) / 100)

def nothing(argument):
    return None
"""


@pytest.fixture
def samplers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with samplers."""
    (tmp_path / "percents.py").write_text(SAMPLERS)
    installed = tmp_path / "percents-1.0.dist-info"
    installed.mkdir()
    names = "Percent = percents:percent\nnothing = percents:nothing\ngone = percents:gone\n"
    (installed / "entry_points.txt").write_text(f"[opentelemetry_traces_sampler]\n{names}")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: percents\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("samplers")
def test_an_installed_sampler_is_asked(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "Percent")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "25")
    sampler = settings.sampler()
    assert sampler.asked.get_description() == "TraceIdRatioBased{0.25}"
    assert (sampler.root, sampler.child_of_sampled, sampler.child_of_unsampled) == (None,) * 3
    assert said() == []


@pytest.mark.usefixtures("samplers")
@pytest.mark.parametrize(("name", "argument"), [("Percent", "x"), ("nothing", ""), ("gone", "")])
def test_an_installed_sampler_that_cannot_be_used_samples_all_and_is_said(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], name: str, argument: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert settings.sampler().root is True
    assert said() == ["OTEL_TRACES_SAMPLER"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "unknown",
    ],
)
def test_a_known_decision_is_the_one_that_the_sampler_makes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    sampler = settings.sampler()

    def decisions(parent: Context | None) -> set[bool]:
        trace_ids = (1, 2**128 - 1)  # a ratio of 0.5 samples the first and not the second
        results = [sampler.asked.should_sample(parent, trace_id, "x") for trace_id in trace_ids]
        return {result.decision.is_sampled() for result in results}

    def child_of(flags: int) -> Context:
        parent = SpanContext(1, 2, True, TraceFlags(flags))
        return trace.set_span_in_context(NonRecordingSpan(parent), Context())

    for known, parent in (
        (sampler.root, None),
        (sampler.child_of_sampled, child_of(1)),
        (sampler.child_of_unsampled, child_of(0)),
    ):
        assert decisions(parent) == ({True, False} if known is None else {known})


def test_span_limits(monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]) -> None:
    assert settings.span_limits().max_links == settings.LINK_COUNT_LIMIT
    assert settings.span_limits().max_attribute_length is None
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "7")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "many")
    limits = settings.span_limits()
    assert isinstance(limits, SpanLimits)
    assert (limits.max_links, limits.max_span_attribute_length, limits.max_events) == (7, 100, 128)
    assert said() == ["OTEL_SPAN_EVENT_COUNT_LIMIT"]


def test_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.logs() == settings.Logs()
    monkeypatch.setenv("QUEUEHOP_LOGS_LEVEL", "warning")
    monkeypatch.setenv("QUEUEHOP_LOGS_LOGGERS", "shop, web.orders,")
    monkeypatch.setenv("QUEUEHOP_LOGS_MAX_LENGTH", "100")
    monkeypatch.setenv("QUEUEHOP_LOGS_CELERY", "True")
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "unset")
    assert settings.logs() == settings.Logs(30, ("shop", "web.orders"), 100, None, True)


@pytest.mark.parametrize(("value", "level"), [("15", 15), ("Error", 40)])
def test_the_level_of_logs(monkeypatch: pytest.MonkeyPatch, value: str, level: int) -> None:
    monkeypatch.setenv("QUEUEHOP_LOGS_LEVEL", value)
    assert settings.logs().level == level


def test_a_level_that_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("QUEUEHOP_LOGS_LEVEL", "loud")
    assert settings.logs().level == 20
    (line,) = said()
    assert "QUEUEHOP_LOGS_LEVEL" in line


def test_a_resource_attribute_without_a_value_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,hunter2,,region=eu=1,other")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    expected = {"team": "a b", "region": "eu=1", "service.name": "shop"}
    assert settings.resource_attributes() == settings.resource_attributes() == expected
    assert create_resource({}).attributes.items() >= expected.items()
    assert caplog.messages == [
        "OTEL_RESOURCE_ATTRIBUTES has an entry that is not name=value; ignoring that entry"
    ]


@pytest.mark.parametrize(
    ("value", "expected", "lines"),
    [("TRUE ", True, 0), ("false", False, 0), ("", False, 0), ("yes", False, 1)],
)
def test_a_switch_is_true_or_false(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
    expected: bool,
    lines: int,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)
    assert exporter.is_enabled("TRACES") is not expected
    assert caplog.messages == ["OTEL_SDK_DISABLED is 'yes', not true or false; using false"][:lines]
