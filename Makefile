# make help lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BENCH := bench/.venv
OTHERS := bench/.venv-others
PYTHON ?= $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$p .ci/suitable.py >/dev/null 2>&1 && { echo $$p; break; }; done)
RUN := $(VENV)/bin/python -m
SOURCES := app bench deploy docs telemetry tests workers
PAGES := $(wildcard *.md docs/*.md docs/*/*.md)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## start every part on free ports, ping, and print the traces
	@exec $(RUN) app.demo $(ARGS)

.PHONY: setup
setup: $(VENV)/.installed ## make .venv with what the system needs, exactly as locked

.PHONY: test
test: $(VENV)/.installed-dev ## run all the tests
ifdef ARGS
	$(RUN) pytest $(ARGS)
else
	$(RUN) pytest --numprocesses=8 --dist=worksteal
endif

.PHONY: quick
quick: $(VENV)/.installed-dev ## the tests that need no process of their own, in under a minute
	$(RUN) pytest -m quick --numprocesses=2 -q

.PHONY: pythons
pythons: ## try every supported Python; 3.14 and 3.15 come from debootstrap where they are missing
	@tests/pythons.sh $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed-dev ## kill every part at random for ten minutes, and say what was lost; ARGS="--minutes 3"
	@exec $(RUN) tests.soak $(ARGS)

.PHONY: pages
pages: $(VENV)/.installed-dev ## write anew what the tests write of docs/
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest -m conformance
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest -m interop
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest tests/docs

.PHONY: monitoring
monitoring: $(VENV)/.installed-dev ## write anew Prometheus' rules and Grafana's dashboard in deploy/
	$(RUN) deploy.monitoring

.PHONY: backends
backends: ## build the OpenTelemetry Collector and Jaeger into .backends, with Go
	@deploy/backends/build.sh

.PHONY: test-backends
test-backends: $(VENV)/.installed-dev backends ## run deploy/ and compose.yaml's files against them
	QUEUEHOP_BACKENDS=.backends $(RUN) pytest tests/deploy/test_backends.py --numprocesses=0 $(ARGS)

.PHONY: check
check: $(VENV)/.installed-dev format-check lint types audit test ## format, lint, types, audit and tests

.PHONY: format
format: $(VENV)/.installed-dev ## format the code in place
	$(RUN) ruff format $(SOURCES)
	$(RUN) ruff check --fix $(SOURCES)

.PHONY: format-check
format-check: $(VENV)/.installed-dev
	$(RUN) ruff format --check $(SOURCES)

.PHONY: lint
lint: $(VENV)/.installed-dev ## the code by ruff; the prose by codespell, proselint and the Markdown linter
	$(RUN) ruff check $(SOURCES)
	$(VENV)/bin/codespell $(PAGES) $(SOURCES) deploy Makefile compose.yaml
	@if [ -x $(VENV)/bin/pymarkdown ]; then $(VENV)/bin/pymarkdown scan $(PAGES); \
		else echo "The Markdown is not checked: pymarkdown cannot be installed on this Python."; fi
	$(VENV)/bin/python .ci/prose.py

.PHONY: types
types: $(VENV)/.installed-dev ## mypy, strict
	$(RUN) mypy

.PHONY: bench
bench: $(BENCH)/.installed ## say what tracing costs; QUICK=1 for a rough idea
	@exec $(BENCH)/bin/python -m bench $(if $(QUICK),--quick) $(ARGS)

.PHONY: instructions
instructions: $(BENCH)/.installed $(OTHERS)/.installed ## count what tracing costs, with Valgrind
	@exec $(BENCH)/bin/python -m bench.instructions $(ARGS)

.PHONY: audit
audit: $(VENV)/.installed-dev ## what is installed fits together, and all of it is pinned by hash
	$(RUN) pip --disable-pip-version-check check
	@! grep -nE '^[a-z].*[^\\]$$' requirements.lock requirements-dev.lock || { echo "not pinned by hash" >&2; exit 1; }

.PHONY: lock
lock: $(VENV)/.installed-dev ## write the lock files anew from pyproject.toml
	$(VENV)/bin/python -m pip install --quiet uv
	$(RUN) uv pip compile $(LOCK) --extra celery --extra flask --extra requests --extra viewer \
		--extra mongo --extra sql --group demo -o requirements.lock pyproject.toml
	$(RUN) uv pip compile $(LOCK) --all-extras --group demo --group test --group lint -c requirements.lock \
		-o requirements-dev.lock pyproject.toml
	$(RUN) uv pip compile $(LOCK) --group bench -o bench/requirements.lock pyproject.toml
	$(RUN) uv pip compile $(LOCK) --group bench-others -c bench/requirements.lock \
		-o bench/requirements-others.lock
	for group in tracers batches; do \
		$(RUN) uv pip compile $(LOCK) --extra celery --extra flask --extra requests --group $$group \
			-o tests/interop/requirements-$$group.lock pyproject.toml || exit; done
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

.PHONY: clean
clean: ## remove .venv and what tools left
	rm -rf $(VENV) $(BENCH) $(OTHERS) tests/interop/.venv .pythons .backends .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.installed: requirements.lock
	@$(call install,requirements.lock)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock
	@$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/.installed

# Versions of its own: see the group in pyproject.toml.
$(BENCH)/.installed: VENV := $(BENCH)
$(BENCH)/.installed: bench/requirements.lock
	@$(call install,bench/requirements.lock)
	@touch $@

$(OTHERS)/.installed: VENV := $(OTHERS)
$(OTHERS)/.installed: bench/requirements-others.lock
	@$(call install,bench/requirements-others.lock)
	@touch $@

# The first line of each error says what is missing, the second what to do.
define install
	if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer was found; free-threaded builds are not supported." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if [ ! -x $(VENV)/bin/pip ]; then \
		$(PYTHON) .ci/suitable.py || { \
			echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }; \
		echo "making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV) || { \
			echo "The virtual environment could not be made." >&2; \
			echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; fi; \
	total=$$(grep -c '^[a-z].*==' $(1)); echo "installing $$total packages from $(1), once"; \
	tty=$$([ -t 1 ] && echo 1 || echo 0); \
	{ $(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps \
		--progress-bar off -r $(1); echo $$? > $(VENV)/.status; } | awk -v total=$$total -v tty=$$tty ' \
		/^Collecting/ { n++; if (tty) printf "\r  %3d/%d %-50s", n, total, $$2; \
			else if (n % 20 == 0) print "  " n "/" total; fflush() } \
		/^Installing collected/ { if (tty) printf "\r  unpacking%-52s", ""; fflush() } \
		END { if (tty) printf "\r%-62s\r", "" }'; \
	[ "$$(cat $(VENV)/.status)" = 0 ] || { \
		echo "The packages could not be installed (see above)." >&2; \
		echo "Check the network and pip's settings, then run make again." >&2; exit 1; }
endef
