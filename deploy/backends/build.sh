#!/bin/sh
# Build the OpenTelemetry Collector, Jaeger, Prometheus, VictoriaLogs and the check of the dashboard
# from Go modules into .backends, for `make test-backends`.
#
# Jaeger's module path does not end in /v2, which Go requires from version 2 on. 1.76.0 is the newest
# version that Go can download: the same commit as 2.13.0. The web pages of Jaeger and Prometheus are
# not part of their modules.
set -eu

cd "$(dirname "$0")/../.."
manifest=deploy/backends/collector.yaml
collector=$(sed -n 's/^  version: //p' "$manifest")
out=$PWD/.backends

command -v go >/dev/null || {
    echo "Go was not found." >&2
    echo "Install 1.26 or newer: https://go.dev/dl" >&2
    exit 1
}
mkdir -p "$out"

# Return whether $1 was built from $2.
built() { [ -x "$out/$1" ] && [ "$(cat "$out/$1.from" 2>/dev/null)" = "$2" ]; }

failed() {
    echo "$1 could not be built (see above)." >&2
    echo "Check the network and GOPROXY, then run make backends again." >&2
    exit 1
}

# Build the program $1 from the package and version $2, with the build tags $3. It is a dependency of
# a module of its own, since `go install` refuses a module with replace directives, such as Jaeger's.
program() {
    built "$1" "$2" && return
    echo "building $2"
    rm -rf "$out/module"
    mkdir "$out/module"
    (
        cd "$out/module" && go mod init backend && go get "$2" &&
            go build -trimpath -tags "${3:-}" -o "$out/$1" "${2%@*}"
    ) >"$out/$1.log" 2>&1 || {
        tail -n 5 "$out/$1.log" >&2
        failed "$1"
    }
    echo "$2" >"$out/$1.from"
}

program jaeger github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0
program victoria-logs github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@v1.52.1
# Of the service discoveries only the one in deploy/prometheus.yaml.
for name in prometheus promtool; do
    program $name github.com/prometheus/prometheus/cmd/$name@v0.316.0 remove_all_sd,enable_kubernetes_sd
done

from=$(cksum <"$manifest")
if ! built otelcol "$from"; then
    echo "building the Collector $collector"
    GOBIN=$out go install "go.opentelemetry.io/collector/cmd/builder@v$collector" || failed builder
    "$out/builder" --config "$manifest" --skip-compilation >"$out/builder.log" 2>&1 || {
        tail -n 5 "$out/builder.log" >&2
        failed otelcol
    }
    (cd "$out/collector" && go build -trimpath -o "$out/otelcol" .) || failed otelcol
    echo "$from" >"$out/otelcol.from"
fi

(cd deploy/backends/dashboard && go build -trimpath -o "$out/dashboard" .) || failed dashboard
