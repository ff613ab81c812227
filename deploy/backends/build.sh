#!/bin/sh
# Build the OpenTelemetry Collector and Jaeger from source into .backends, for `make test-backends`.
#
#   JAEGER_SOURCE  a git repository with Jaeger's tags, instead of the one on GitHub
#   WITHOUT        a module of collector.yaml that cannot be downloaded, such as
#                  loadbalancingexporter: the tests that need it are skipped
#
# Jaeger comes from its repository: its module path does not end in /v2, as Go wants it from version
# 2 on, so that no release of Jaeger 2 can be downloaded as a module. Its pages are another
# repository and are not built.
set -eu

cd "$(dirname "$0")/../.."
manifest=deploy/backends/collector.yaml
collector=$(sed -n 's/^  version: //p' "$manifest")
jaeger=$(sed -n 's/^ *image: .*\/jaeger:\(.*\)$/v\1/p' compose.yaml)
out=$PWD/.backends

command -v go >/dev/null || {
    echo "Go was not found." >&2
    echo "Install 1.26 or newer: https://go.dev/dl" >&2
    exit 1
}
mkdir -p "$out"

# Whether $1 was built from what $2 describes.
built() { [ -x "$out/$1" ] && [ "$(cat "$out/$1.from" 2>/dev/null)" = "$2" ]; }

from="$(cksum <"$manifest")${WITHOUT:+ without $WITHOUT}"
if ! built otelcol "$from"; then
    echo "building the Collector $collector"
    GOBIN=$out go install "go.opentelemetry.io/collector/cmd/builder@v$collector"
    grep -v "/${WITHOUT:-nothing} v" "$manifest" >"$out/collector.yaml"
    "$out/builder" --config "$out/collector.yaml" --skip-compilation >"$out/builder.log" 2>&1 || {
        tail -n 5 "$out/builder.log" >&2
        echo "A module could not be downloaded (see above)." >&2
        echo "To leave it out: make backends WITHOUT=its-last-name" >&2
        exit 1
    }
    (cd "$out/collector" && go build -trimpath -o "$out/otelcol" .)
    echo "$from" >"$out/otelcol.from"
fi

if ! built jaeger "$jaeger"; then
    echo "building Jaeger $jaeger"
    rm -rf "$out/source"
    git -c advice.detachedHead=false clone --quiet --depth 1 --branch "$jaeger" \
        "${JAEGER_SOURCE:-https://github.com/jaegertracing/jaeger.git}" "$out/source"
    (cd "$out/source" && go build -trimpath -o "$out/jaeger" ./cmd/jaeger)
    echo "$jaeger" >"$out/jaeger.from"
fi
