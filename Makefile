# A fresh machine needs Python 3.11 to 3.14 and make; everything else goes into $(VENV).
#   make train    install what a user needs, then learn experiment C (more flags: make train ARGS="--users=3")
#   make check    install what a developer needs, then lint, and the tests that start no process and look at no clock
#   make test     the same with every test; one of them: make check ARGS="-k contention"
#   make lint     ruff, mypy and the import contracts alone
#   make smoke    install what a user needs, then the few tests for another version of Python
#   make models   install what a local testbed needs, then build the MobileNets into models/
#   make certs    the same, then certificates for an inventory's nodes (ARGS="--inventory=machines.toml")
#   make messages generate edge_cloud/messages_pb2.py from edge_cloud/messages.proto
#   make clean    remove the environment and every cache (runs/ stays)

# The newest that runs: a version manager's stand-in is on PATH also where its version isn't installed.
PYTHON ?= $(shell for one in python3.14 python3.13 python3.12 python3.11; do \
	$$one -c "" >/dev/null 2>&1 && echo $$one && break; done)
VENV ?= .venv
ARGS ?=
# Tests at the same time. Each worker keeps some 2 GiB.
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# A stamp is as new as the requirements that were installed, so that an unchanged file installs nothing.
CREATED := $(VENV)/.created
USER_STAMP := $(VENV)/.installed-user
TESTBED_STAMP := $(VENV)/.installed-testbed
DEV_STAMP := $(VENV)/.installed-dev
SMOKE_STAMP := $(VENV)/.installed-smoke

# What belongs together stays on one worker (tests/helpers/marks.py), in the order in which it was collected.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

# The compiler's own defaults, where tests are compiled in a hurry (tests/conftest.py).
AS_USERS := --xla_cpu_use_fusion_emitters=true --xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false

.PHONY: train check test lint ruff format types contracts smoke models certs messages clean
.DELETE_ON_ERROR:

train: $(USER_STAMP)
	$(BIN)/python -m launch.train --flagfile=expC.flags $(ARGS)

check: lint
	$(PYTEST) -m "not process and not clock" $(ARGS)

# What looks at a clock has the machine for itself. (5: none of them was asked for.)
test: lint
	$(BIN)/python -m pytest -m clock $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m "not clock" $(ARGS) || [ $$? -eq 5 ]

# .pre-commit-config.yaml runs each of these.
lint: ruff format types contracts

ruff: $(DEV_STAMP)
	$(BIN)/ruff check .

format: $(DEV_STAMP)
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

contracts: $(DEV_STAMP)
	$(BIN)/lint-imports --no-logo

smoke: $(SMOKE_STAMP)
	XLA_FLAGS="$(AS_USERS)" $(BIN)/python -m pytest -m smoke $(ARGS)

models: $(TESTBED_STAMP)
	$(BIN)/python -m launch.models $(ARGS)

certs: $(TESTBED_STAMP)
	$(BIN)/python -m launch.certs $(ARGS)

messages: $(TESTBED_STAMP)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. edge_cloud/messages.proto

clean:
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# --clear: an environment whose creation was interrupted is made anew.
$(CREATED):
	@"$(PYTHON)" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null || \
		{ echo "error: PYTHON: expected Python 3.11 to 3.14 that runs, found $(or $(PYTHON),none); set PYTHON=…" >&2; exit 2; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(USER_STAMP): requirements.txt $(CREATED)
	@echo "Installing requirements.txt into $(VENV) …"
	@$(PIP) -r requirements.txt
	@touch $@

$(SMOKE_STAMP): requirements-dev.txt $(USER_STAMP)
	@grep -E "^(pytest|hypothesis)==" requirements-dev.txt | xargs $(PIP)
	@touch $@

TESTBED_FILES := requirements-testbed.txt requirements-node.txt requirements-converter.txt requirements.txt

$(TESTBED_STAMP): $(TESTBED_FILES) $(CREATED)
	@echo "Installing requirements-testbed.txt into $(VENV) …"
	@$(PIP) -r requirements-testbed.txt
	@$(PIP) --no-deps -r requirements-converter.txt
	@touch $(USER_STAMP) $@

$(DEV_STAMP): requirements-dev.txt requirements-peer.txt requirements-sweep.txt $(TESTBED_FILES) $(CREATED)
	@echo "Installing requirements-dev.txt into $(VENV) (PyTorch included) …"
	@$(PIP) -r requirements-dev.txt
	@$(PIP) --no-deps -r requirements-converter.txt
	@touch $(USER_STAMP) $(TESTBED_STAMP) $@
