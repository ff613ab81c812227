#!/bin/sh
# Build the OpenTelemetry Collector and Jaeger from source into .backends, for `make test-backends`.
#
#   JAEGER_SOURCE  a git repository with Jaeger's tags, instead of the one on GitHub
#
# Jaeger is built from its repository. Its module path does not end in /v2, which Go requires from
# version 2 on, so Jaeger 2 is not available as a module. Its web pages are in another repository
# and are not built.
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

# Return whether $1 was built from $2.
built() { [ -x "$out/$1" ] && [ "$(cat "$out/$1.from" 2>/dev/null)" = "$2" ]; }

from=$(cksum <"$manifest")
if ! built otelcol "$from"; then
    echo "building the Collector $collector"
    GOBIN=$out go install "go.opentelemetry.io/collector/cmd/builder@v$collector"
    "$out/builder" --config "$manifest" --skip-compilation >"$out/builder.log" 2>&1 || {
        tail -n 5 "$out/builder.log" >&2
        echo "A module could not be downloaded (see above)." >&2
        echo "Check the network and GOPROXY, then run make backends again." >&2
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
