# Two commands matter: `make demo` and `make test`. Each sets everything up by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := $(shell $(PYTHON) -c 'import hashlib; print(hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest())')
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-cluster soak check bench calibrate audit token up clean FORCE

demo: $(READY)
	$(BIN)/orchestrator run experiments/demo.yaml

test: $(READY)
	$(BIN)/python -m pytest

# Three hosts of its own on this machine, S3 and PostgreSQL, and every fault: as root, once after
# apt-get install --yes openssh-server openssh-client rsync iproute2 postgresql memcached liberasurecode1
RESULTS := benchmarks/results/$$(date +%F)
BENCH := $(RESULTS)-$$(uname -m)-cpu.jsonl

test-cluster: $(READY)
	CLUSTER_RESULTS=$(CURDIR)/$(RESULTS)-cluster-matrix.jsonl $(BIN)/python -m pytest -m cluster -rs \
		tests/cluster/test_up_and_sweep.py tests/cluster/test_refusals.py tests/cluster/test_faults.py

soak: $(READY)
	@$(BIN)/python tests/cluster/soak.py --minutes 20 --seed 0 > $(RESULTS)-soak.jsonl; status=$$?; \
		cat $(RESULTS)-soak.jsonl; exit $$status

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

bench: $(READY)
	@mkdir -p benchmarks/results
	@set -e; for script in $(wildcard benchmarks/*.py); do $(BIN)/python $$script; done > $(BENCH); status=$$?; \
		cat $(BENCH); exit $$status

# False positives and power of the EEG tests: writes docs/results/calibration.md. Hours, of which a kill loses minutes:
# results are kept in KEEP, and a second call goes on. A look: make calibrate DATA_SETS=50 POWER_DATA_SETS=0
DATA_SETS ?= 1000
POWER_DATA_SETS ?= 20
JOBS ?= 1
KEEP ?= .calibration
calibrate: $(READY)
	$(BIN)/python tests/statistics/calibrate.py --data-sets $(DATA_SETS) --power-data-sets $(POWER_DATA_SETS) \
		--jobs $(JOBS) --keep $(KEEP)

# Known vulnerabilities of the locked packages. Asks a service on the internet, so it is not part of the tests.
audit: $(READY)
	@$(BIN)/pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip --progress-spinner off || { \
		echo "make audit: not passed. Either the packages above have known vulnerabilities, or (could not be audited," >&2; \
		echo "connection) the service that knows them was not reached, and nothing is known about any package." >&2; exit 1; }

# A cluster: everybody who has the token may run code on it.
CLUSTER ?= cluster.yaml
TOKEN := $(HOME)/.ray/auth_token

up: $(READY) token .commit
	$(BIN)/ray up $(CLUSTER)

token:
	@umask 077 && mkdir -p $(dir $(TOKEN)) && test -s $(TOKEN) || \
		$(PYTHON) -c 'import secrets; print(secrets.token_hex(32), end="")' > $(TOKEN)
	@chmod 600 $(TOKEN)

.commit: $(READY) FORCE
	@$(BIN)/python -c 'from orchestrator.provenance import note; print(note())' > $@

# Results are not cleaned: delete the ledger (./results) yourself.
clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Made from this very lock, whatever its date: a copy by rsync keeps dates.
$(READY): pyproject.toml $(if $(filter $(LOCK),$(shell cat $(READY) 2>/dev/null)),,FORCE)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo $(LOCK) > $@
