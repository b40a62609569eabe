# A fresh machine needs Python 3.11 and make; everything else goes into $(VENV).
#   make train    install what a user needs, then learn experiment C (more flags: make train ARGS="--users=3")
#   make test     install what a developer needs, then lint, type checks and tests
#   make lint     ruff and mypy alone
#   make clean    remove the environment and every cache (runs/ stays)

PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# A stamp is as new as the requirements that were installed, so that an unchanged file installs nothing.
CREATED := $(VENV)/.created
USER_STAMP := $(VENV)/.installed-user
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: train test lint clean
.DELETE_ON_ERROR:

train: $(USER_STAMP)
	$(BIN)/python -m launch.train --flagfile=expC.flags $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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

$(DEV_STAMP): requirements-dev.txt requirements-peer.txt requirements.txt $(CREATED)
	@echo "Installing requirements-dev.txt into $(VENV) (PyTorch included) …"
	@$(PIP) -r requirements-dev.txt
	@touch $(USER_STAMP) $@
