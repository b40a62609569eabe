# A fresh machine needs Python 3.11 and make; everything else goes into $(VENV).
#   make train    install what a user needs, then learn experiment C (more flags: make train ARGS="--users=3")
#   make test     install what a developer needs, then lint, type checks and tests
#   make lint     ruff, mypy and the import contracts alone
#   make models   install what a local testbed needs, then build the MobileNets into models/
#   make certs    the same, then certificates for an inventory's nodes (ARGS="--inventory=machines.toml")
#   make messages generate edge_cloud/messages_pb2.py from edge_cloud/messages.proto
#   make clean    remove the environment and every cache (runs/ stays)

PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# A stamp is as new as the requirements that were installed, so that an unchanged file installs nothing.
CREATED := $(VENV)/.created
USER_STAMP := $(VENV)/.installed-user
TESTBED_STAMP := $(VENV)/.installed-testbed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: train test lint models certs messages clean
.DELETE_ON_ERROR:

train: $(USER_STAMP)
	$(BIN)/python -m launch.train --flagfile=expC.flags $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

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
	@command -v $(PYTHON) >/dev/null || { echo "error: expected Python 3.11, found no $(PYTHON) on PATH; set PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(USER_STAMP): requirements.txt $(CREATED)
	@echo "Installing requirements.txt into $(VENV) …"
	@$(PIP) -r requirements.txt
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
