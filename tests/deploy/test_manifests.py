"""The files of deploy/ for more than one machine are valid, and agree with the code."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk import environment_variables
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.trace import SpanKind

from telemetry.config import exporter as exporter_settings
from telemetry.config import settings
from telemetry.export.aggregation import Aggregation
from telemetry.tracing import waits
from telemetry.tracing.interpret import interpret
from telemetry.tracing.measurements import measurement
from telemetry.tracing.record import Record, RunFacts, SpanTemplate, message_facts
from telemetry.tracing.scope import hop_scope
from workers.celery import app

from ..processes import ROOT

DEPLOY = ROOT / "deploy"
COLLECTOR, KUBERNETES = DEPLOY / "collector", DEPLOY / "kubernetes"

Object = dict[str, Any]

#: The schemas for kubernetes-validate.
VERSION = "1.33"

#: The components of the contrib distribution of the Collector, by their names from 0.153 on.
KNOWN = {
    "receivers": {"otlp"},
    "processors": {"batch", "memory_limiter", "tail_sampling"},
    "exporters": {"clickhouse", "load_balancing", "otlp_grpc", "otlp_http", "prometheus"},
    "extensions": {"health_check"},
}

BACKENDS = ("jaeger", "tempo", "clickhouse", "lightstep")
AGENTS = {
    "agent": ("agent",),
    "agent-metrics": ("agent", "agent-metrics"),
    "agent-logs": ("agent", "agent-logs"),
    "agent-both": ("agent", "agent-metrics", "agent-logs"),
}
GATEWAYS = {
    **{f"gateway-{name}": ("gateway", name) for name in BACKENDS},
    "gateway-loki": ("gateway", "tempo", "loki"),
}
COLLECTORS = {**AGENTS, **GATEWAYS}

QUEUE = app.conf.task_default_queue

OURS = ("web", "worker")
WORKLOADS = ("web", "worker", "redis", "otel-agent", "otel-gateway", "jaeger")


def load(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


@cache
def kustomization(directory: Path = KUBERNETES) -> Object:
    (loaded,) = load(directory / "kustomization.yaml")
    return dict(loaded)


def objects() -> Iterator[Object]:
    """Yield the objects that ``kubectl apply -k`` applies, and those that are applied alone."""
    files = [name for name in kustomization()["resources"] if name.endswith(".yaml")]
    for name in [*files, "keda.yaml"]:
        yield from load(KUBERNETES / name)


def one(kind: str, name: str) -> Object:
    (found,) = [o for o in objects() if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def workload(name: str) -> Object:
    return one("DaemonSet" if name == "otel-agent" else "Deployment", name)


def pod(name: str) -> Object:
    return dict(workload(name)["spec"]["template"]["spec"])


def container(name: str) -> Object:
    (only,) = pod(name)["containers"]
    return dict(only)


def service_port(name: str, port: str) -> tuple[int, int]:
    """Return the port of the Service *name*, and that of the container behind it."""
    (outside,) = [p for p in one("Service", name)["spec"]["ports"] if p["name"] == port]
    (inside,) = [p for p in container(name)["ports"] if p["name"] == outside["targetPort"]]
    return outside["port"], inside["containerPort"]


def literals() -> dict[str, str]:
    """Return the environment that web and worker share."""
    (generated,) = kustomization()["configMapGenerator"]
    return dict(line.split("=", 1) for line in generated["literals"])


def collector(*names: str) -> Object:
    """Return the configuration of several files as the Collector merges them: lists as a whole."""

    def merged(below: Any, above: Any) -> Any:
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        return {
            key: merged(below[key], above[key]) if key in below and key in above
            else above.get(key, below.get(key))
            for key in {**below, **above}
        }  # fmt: skip

    whole: Object = {}
    for name in names:
        (part,) = load(COLLECTOR / f"{name}.yaml")
        whole = merged(whole, part)
    return whole


def memory(quantity: str) -> int:
    units = {"Mi": 2**20, "Gi": 2**30}
    return int(quantity[:-2]) * units[quantity[-2:]]


every_collector = pytest.mark.parametrize("names", COLLECTORS.values(), ids=COLLECTORS)
every_workload = pytest.mark.parametrize("name", WORKLOADS)


# The objects of Kubernetes.


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path: Path) -> None:
    assert all(isinstance(document, dict) for document in load(path))


def test_every_manifest_is_applied_by_somebody() -> None:
    named = {*kustomization()["resources"], "kustomization.yaml", "keda.yaml"}
    assert {path.name for path in KUBERNETES.iterdir()} == named - {"../collector"}


def test_every_object_fits_the_schemas_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    checked = 0
    for found in objects():
        if found["apiVersion"] != "keda.sh/v1alpha1":  # no part of Kubernetes
            validate(found, VERSION, strict=True)
            checked += 1
    assert checked == 12


def test_the_schemas_refuse_what_is_wrong() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    wrong = workload("worker")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 90
    with pytest.raises(validator.ValidationError):
        validator.validate(wrong, VERSION, strict=True)


def test_kustomize_builds_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, timeout=60
    )
    assert built.returncode == 0, built.stderr
    rendered = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(built.stdout)}
    maps = {name for kind, name in rendered if kind == "ConfigMap"}
    for name in ("web", "worker"):
        spec = rendered["Deployment", name]["spec"]["template"]["spec"]
        assert spec["containers"][0]["image"] == "registry.example/queuehop:0.1.0"
        assert spec["containers"][0]["envFrom"][0]["configMapRef"]["name"] in maps
    for kind, name in (("DaemonSet", "otel-agent"), ("Deployment", "otel-gateway")):
        (volume,) = rendered[kind, name]["spec"]["template"]["spec"]["volumes"]
        assert volume["configMap"]["name"] in maps
    spaces = {o["metadata"].get("namespace") for (kind, _), o in rendered.items()}
    assert spaces == {None, "queuehop"}


@every_workload
def test_nothing_has_more_rights_than_it_needs(name: str) -> None:
    of_pod, of_container = pod(name)["securityContext"], container(name)["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(name)["automountServiceAccountToken"] is False
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {key for volume in pod(name).get("volumes", []) for key in volume} <= {
        *("name", "emptyDir", "configMap")
    }
    assert "memory" in container(name)["resources"]["limits"]


@every_workload
def test_selectors_find_their_pods(name: str) -> None:
    found = workload(name)
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"] == labels
    for service in (o for o in objects() if o["kind"] == "Service"):
        if service["metadata"]["name"] == name:
            assert service["spec"]["selector"] == labels
            for port in service["spec"]["ports"]:
                service_port(name, port["name"])


@every_workload
def test_what_is_mounted_is_there(name: str) -> None:
    volumes = {volume["name"] for volume in pod(name).get("volumes", [])}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == volumes


def test_images_are_those_of_compose_or_replaced() -> None:
    (replaced,) = kustomization()["images"]
    assert {container(name)["image"] for name in OURS} == {replaced["name"]}
    compose = (ROOT / "compose.yaml").read_text()
    for name in ("redis", "jaeger"):
        assert f"image: {container(name)['image']}\n" in compose
    agent, gateway = container("otel-agent")["image"], container("otel-gateway")["image"]
    assert agent == gateway
    # The same release as in compose.yaml; the distribution with all of the components.
    assert f"image: {agent.replace('-contrib', '')}\n" in compose


def test_what_was_run_is_what_is_deployed() -> None:
    """Jaeger is not here: Go can download only an older one than that of compose.yaml."""
    compose = (ROOT / "compose.yaml").read_text()
    (version,) = re.findall(r"image: \S+/opentelemetry-collector:(\S+)\n", compose)
    page = (ROOT / "docs/interop.md").read_text()
    run = re.findall(r"^\| OpenTelemetry Collector \| (\S+) \|", page, re.M)
    assert set(run) == {version}, "make test-backends, then write down what was run"
    (manifest,) = load(DEPLOY / "backends/collector.yaml")
    assert manifest["dist"]["version"] == version


# The settings of the application.


def test_the_parts_read_what_they_are_told() -> None:
    names = {*literals()}
    for name in OURS:
        used = str(container(name))
        for variable in container(name)["env"]:
            # One that is for the manifest itself: part of another value, or of a command.
            if f"${variable['name']}" in used or f"$({variable['name']})" in used:
                continue
            names.add(variable["name"])
    sources = [
        path for part in ("app", "telemetry", "workers") for path in Path(part).rglob("*.py")
    ]
    text = "\n".join((ROOT / path).read_text() for path in sources)
    known = {value for value in vars(environment_variables).values() if isinstance(value, str)}
    assert names <= known | set(re.findall(r'"([A-Z][A-Z_]+)"', text))


def test_they_export_to_the_agent_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", literals()["OTEL_EXPORTER_OTLP_ENDPOINT"])
    target = exporter_settings.otlp()
    assert target is not None
    outside, inside = service_port("otel-agent", "otlp")
    assert (target.endpoint, target.insecure) == (f"otel-agent:{outside}", True)
    listening = collector("agent")["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert listening.endswith(f":{inside}")
    assert one("Service", "otel-agent")["spec"]["internalTrafficPolicy"] == "Local"


def test_they_publish_to_the_broker_that_is_there() -> None:
    outside, _ = service_port("redis", "redis")
    assert literals()["CELERY_BROKER_URL"] == f"redis://redis:{outside}/0"


@pytest.mark.parametrize("name", OURS)
def test_what_waits_on_disk_outlives_the_container_and_fits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in literals().items():
        monkeypatch.setenv(variable, value)
    spool = settings.spool()
    assert spool is not None
    (mount,) = [m for m in container(name)["volumeMounts"] if m["name"] == "state"]
    assert mount["mountPath"] == str(settings.state_directory())
    assert f"QUEUEHOP_STATE_DIR={mount['mountPath']}" in (ROOT / "Dockerfile").read_text()
    (volume,) = [v for v in pod(name)["volumes"] if v["name"] == "state"]
    assert spool.max_bytes <= memory(volume["emptyDir"]["sizeLimit"]) // 2


def test_nobody_samples_before_the_gateway() -> None:
    assert not [name for name in literals() if name.startswith("OTEL_TRACES_SAMPLER")]


def test_a_task_may_end_before_its_worker_is_killed() -> None:
    # Then telemetry.shutdown waits up to 5 seconds for the delivery of its spans.
    assert pod("worker")["terminationGracePeriodSeconds"] > app.conf.task_time_limit + 5
    # Messages of a killed worker return later than that.
    visible = app.conf.broker_transport_options["visibility_timeout"]
    assert visible >= pod("worker")["terminationGracePeriodSeconds"]


def test_web_is_started_as_in_compose() -> None:
    services = load(ROOT / "compose.yaml")[0]["services"]
    command = services["web"]["command"].replace('"', "").split()
    assert " ".join(container("web")["args"]).replace("=", " ") == " ".join(command)


# The Collectors.


@every_collector
def test_a_collector_uses_what_it_defines_and_nothing_unknown(names: tuple[str, ...]) -> None:
    config = collector(*names)
    service = config["service"]
    pipelines = service["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines for name in pipeline[kind]} == config[kind].keys()
    assert set(service["extensions"]) == config["extensions"].keys()
    assert config.keys() == {*KNOWN, "service"}
    for kind, known in KNOWN.items():
        assert {name.partition("/")[0] for name in config[kind]} <= known
    for pipeline in pipelines:
        assert pipeline["processors"][0] == "memory_limiter"


@pytest.mark.parametrize(
    ("name", "pod_name"), [("agent", "otel-agent"), ("gateway", "otel-gateway")]
)
def test_a_collector_refuses_before_it_is_killed(name: str, pod_name: str) -> None:
    limit = collector(name)["processors"]["memory_limiter"]["limit_mib"] * 2**20
    assert limit < memory(container(pod_name)["resources"]["limits"]["memory"])


@pytest.mark.parametrize("name", ["otel-agent", "otel-gateway"])
def test_a_collector_has_the_files_that_it_is_started_with(name: str) -> None:
    generators = kustomization(COLLECTOR)["configMapGenerator"]
    (files,) = [generated["files"] for generated in generators if generated["name"] == name]
    (mount,) = container(name)["volumeMounts"]
    used = [arg.removeprefix("--config=") for arg in container(name)["args"]]
    assert used
    for path in used:
        directory, _, file = path.rpartition("/")
        assert directory == mount["mountPath"]
        assert file in files
    for file in files:
        assert (COLLECTOR / file).exists()
    health = collector(used[0].rpartition("/")[2].removesuffix(".yaml"))["extensions"]
    (port,) = [p["containerPort"] for p in container(name)["ports"] if p["name"] == "health"]
    assert health["health_check"]["endpoint"].endswith(f":{port}")


@pytest.mark.parametrize("name", ["otel-agent", "otel-gateway"])
def test_a_collector_has_the_variables_that_its_files_want(name: str) -> None:
    given = {variable["name"] for variable in container(name)["env"]}
    files = [arg.rpartition("/")[2] for arg in container(name)["args"]]
    text = "".join((COLLECTOR / file).read_text() for file in files)
    assert set(re.findall(r"\$\{env:(\w+)", text)) == given


def test_all_spans_of_a_trace_meet_in_one_gateway() -> None:
    balancing = collector("agent")["exporters"]["load_balancing"]
    assert balancing["routing_key"] == "traceID"
    variables = {v["name"]: v["value"] for v in container("otel-agent")["env"]}
    assert balancing["resolver"]["dns"]["hostname"] == "${env:GATEWAY_HOST}"
    service = one("Service", variables["GATEWAY_HOST"])
    assert service["spec"]["clusterIP"] == "None"
    outside, inside = service_port(variables["GATEWAY_HOST"], "otlp")
    # Headless: the caller reaches the container itself.
    assert outside == inside == int(balancing["resolver"]["dns"]["port"])
    listening = collector("gateway")["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert listening.endswith(f":{inside}")


def test_what_an_agent_cannot_deliver_stays_with_the_application() -> None:
    exporter = collector("agent")["exporters"]["load_balancing"]["protocol"]["otlp"]
    assert exporter["sending_queue"]["enabled"] is False
    assert exporter["retry_on_failure"]["enabled"] is False
    # The application still runs then, and gets the answer.
    assert exporter["timeout"] == "5s"
    assert "batch" not in collector("agent")["service"]["pipelines"]["traces"]["processors"]


def test_the_gateway_judges_what_the_worker_says() -> None:
    sampling = collector("gateway")["processors"]["tail_sampling"]
    policies = {policy["type"]: policy for policy in sampling["policies"]}
    assert policies.keys() == {"status_code", "ottl_condition", "probabilistic"}
    for name, policy in policies.items():
        assert policy.keys() == {"name", "type", name}
    (condition,) = policies["ottl_condition"]["ottl_condition"]["span"]
    assert set(re.findall(r'attributes\["([^"]+)"\]', condition)) == {waits.CELERY_WAIT_QUEUE}


def test_lightstep_is_reached_as_the_library_does() -> None:
    exporter = collector("gateway", "lightstep")["exporters"]["otlp_grpc"]
    assert f"https://{exporter['endpoint']}" == exporter_settings.LIGHTSTEP_ENDPOINT
    assert exporter["headers"].keys() == {exporter_settings.LIGHTSTEP_HEADER}
    assert "tls" not in exporter


def test_jaeger_is_where_the_gateway_sends_to() -> None:
    assert "--config=/etc/otelcol/jaeger.yaml" in container("otel-gateway")["args"]
    outside, _ = service_port("jaeger", "otlp")
    exporter = collector("gateway", "jaeger")["exporters"]["otlp_grpc"]
    assert exporter["endpoint"] == f"jaeger:{outside}"


# The number of workers.


def measured_wait() -> Metric:
    """Return the wait in the queue as it is exported for a run."""
    template = SpanTemplate("process ping", SpanKind.CONSUMER.value, {}, hop_scope())
    now = time.time()
    facts = RunFacts(message_facts({}), queue=QUEUE, sent_at=str(now - 0.5), received_at=now)
    record = Record(bytes(16), 1, int(now * 1e9), int(now * 1e9) + 1, facts=facts)
    measured = measurement(template, record, interpret(template, record).facts)
    assert measured is not None
    aggregation = Aggregation(Resource({}))
    aggregation.add(measured)
    data = aggregation.collect()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return next(metric for metric in metrics if metric.name == waits.CELERY_WAIT_QUEUE)


def normalized(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def trigger(kind: str) -> Object:
    (found,) = [t for t in one("ScaledObject", "worker")["spec"]["triggers"] if t["type"] == kind]
    return dict(found)


def test_keda_asks_for_the_wait_that_is_measured() -> None:
    metric = measured_wait()
    assert metric.unit == "s"
    exporter = collector("agent")["exporters"]["prometheus"]
    assert exporter["translation_strategy"] == "UnderscoreEscapingWithSuffixes"
    series = f"{normalized(metric.name)}_seconds_bucket"
    label = normalized(MESSAGING_DESTINATION_NAME)
    (point,) = metric.data.data_points
    assert point.attributes[MESSAGING_DESTINATION_NAME] == QUEUE
    query = " ".join(trigger("prometheus")["metadata"]["query"].split())
    assert re.findall(r"rate\((.+?)\[", query) == [f'{series}{{{label}="{QUEUE}"}}']
    assert query in " ".join((ROOT / "docs/scale.md").read_text().split())
    # A share of how many there are: KEDA's default would divide by the number of workers.
    assert trigger("prometheus")["metricType"] == "Value"


def test_keda_counts_the_list_that_is_the_queue() -> None:
    found = trigger("redis")["metadata"]
    outside, _ = service_port("redis", "redis")
    assert found["address"] == f"redis.{kustomization()['namespace']}.svc:{outside}"
    assert found["listName"] == QUEUE


def test_keda_scales_the_workers_and_nobody_else_does() -> None:
    scaled = one("ScaledObject", "worker")
    assert scaled["metadata"]["namespace"] == kustomization()["namespace"]
    assert scaled["spec"]["scaleTargetRef"] == {"name": "worker"}
    assert "replicas" not in workload("worker")["spec"]
    # KEDA's own schema takes text alone.
    values = [v for t in scaled["spec"]["triggers"] for v in t["metadata"].values()]
    assert all(isinstance(value, str) for value in values)
    # /healthz wants a worker, and a wait times none is none.
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_prometheus_finds_the_agents_and_their_port() -> None:
    (prometheus,) = load(DEPLOY / "prometheus.yaml")
    (job,) = prometheus["scrape_configs"]
    assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == ["queuehop"]
    name, port = (rule["regex"] for rule in job["relabel_configs"])
    assert workload("otel-agent")["spec"]["template"]["metadata"]["labels"] == {
        "app.kubernetes.io/name": name
    }
    (inside,) = [p["containerPort"] for p in container("otel-agent")["ports"] if p["name"] == port]
    assert collector("agent")["exporters"]["prometheus"]["endpoint"].endswith(f":{inside}")
