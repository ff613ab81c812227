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
# Where it is set, each process of the tests would compile all of them, which takes half its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## run the whole system on free ports, ping, and print the traces
	@exec $(RUN) app.demo $(ARGS)

.PHONY: setup
setup: $(VENV)/.installed ## install the locked packages of the demo into .venv

.PHONY: test
test: $(VENV)/.installed-dev ## run all the tests; ARGS="tests/telemetry -k retry" runs some
ifdef ARGS
	$(RUN) pytest $(ARGS)
else
	@$(RUN) pytest --collect-only -qq >/dev/null || :  # compiles them, once
	$(RUN) pytest --numprocesses=6 --dist=worksteal
endif

.PHONY: quick
quick: $(VENV)/.installed-dev ## run the tests that start no process, in under a minute
	$(RUN) pytest -m quick --numprocesses=4 -q

.PHONY: pythons
pythons: ## run the demo and some tests on each Python; debootstrap adds a missing 3.14 or 3.15
	@tests/pythons.sh $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed-dev ## kill parts at random for ten minutes, and count lost spans; ARGS="--minutes 3"
	@exec $(RUN) tests.soak $(ARGS)

.PHONY: pages
pages: $(VENV)/.installed-dev ## write the parts of docs/ that the tests write
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest -m conformance
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest -m interop
	QUEUEHOP_WRITE_PAGES=1 $(RUN) pytest tests/docs

.PHONY: monitoring
monitoring: $(VENV)/.installed-dev ## write Prometheus' rules and Grafana's dashboard in deploy/
	$(RUN) deploy.monitoring

.PHONY: backends
backends: ## build the Collector, Jaeger, Prometheus and VictoriaLogs into .backends, with Go
	@deploy/backends/build.sh

.PHONY: test-backends
test-backends: $(VENV)/.installed-dev backends ## run the files of deploy/ and compose.yaml with them
	QUEUEHOP_BACKENDS=.backends $(RUN) pytest tests/deploy/test_backends.py --numprocesses=0 $(ARGS)

.PHONY: check
check: $(VENV)/.installed-dev format-check lint types audit test ## run the checks of CI: format-check, lint, types, audit, test

.PHONY: format
format: $(VENV)/.installed-dev ## format the code in place
	$(RUN) ruff format $(SOURCES)
	$(RUN) ruff check --fix $(SOURCES)

.PHONY: format-check
format-check: $(VENV)/.installed-dev
	$(RUN) ruff format --check $(SOURCES)

.PHONY: lint
lint: $(VENV)/.installed-dev ## check code (ruff), spelling (codespell), prose (proselint) and Markdown
	$(RUN) ruff check $(SOURCES)
	$(VENV)/bin/codespell $(PAGES) $(SOURCES) deploy Makefile compose.yaml
	@if [ -x $(VENV)/bin/pymarkdown ]; then $(VENV)/bin/pymarkdown scan $(PAGES); \
		else echo "The Markdown is not checked: pymarkdown cannot be installed on this Python."; fi
	$(VENV)/bin/python .ci/prose.py

.PHONY: types
types: $(VENV)/.installed-dev ## check the types with mypy, strict
	$(RUN) mypy

.PHONY: bench
bench: $(BENCH)/.installed ## measure what tracing costs; QUICK=1 for a rough idea
	@exec $(BENCH)/bin/python -m bench $(if $(QUICK),--quick) $(ARGS)

.PHONY: instructions
instructions: $(BENCH)/.installed $(OTHERS)/.installed ## count the CPU cycles that tracing costs, with Valgrind
	@exec $(BENCH)/bin/python -m bench.instructions $(ARGS)

.PHONY: audit
audit: $(VENV)/.installed-dev ## check that the packages fit together and are pinned by hash
	$(RUN) pip --disable-pip-version-check check
	@! grep -nE '^[a-z].*[^\\]$$' requirements.lock requirements-dev.lock || { echo "not pinned by hash" >&2; exit 1; }

.PHONY: lock
lock: $(VENV)/.installed-dev ## write the lock files from pyproject.toml
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
clean: ## remove .venv and the files of tools
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
