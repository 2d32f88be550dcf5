# What a newcomer types: make demo, make test, make lint, make bench, make cluster, make cluster-down.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
SYSTEM_PACKAGES = slurmctld slurmd slurmdbd slurm-client munge mariadb-server debootstrap gcc libc6-dev \
  chromium prometheus openssl

.PHONY: demo test lint bench cluster cluster-down system-packages clean

# A virtual environment with the extras of a target; made again when pyproject.toml changes.
$(VENV)/.admin: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[admin]'
	@touch $@

$(VENV)/.test: $(VENV)/.admin
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[admin,test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.admin
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[admin,test,lint]'
	@touch $@

demo: $(VENV)/.admin
	@$(BIN)/senergy demo

# The whole suite, real Slurm included. System packages come where this may install them (RUNLEVEL=1: their services are
# not started); elsewhere those tests skip and say so.
test: $(VENV)/.test system-packages
	$(BIN)/pytest

system-packages:
	@if command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null && command -v munged >/dev/null \
	    && command -v slurmd >/dev/null && command -v debootstrap >/dev/null && command -v chromium >/dev/null \
	    && command -v promtool >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $(SYSTEM_PACKAGES) ..."; \
	  apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $(SYSTEM_PACKAGES) >/dev/null || echo "could not install them: the tests on a real Slurm will skip"; \
	else echo "not installed and not root: the tests on a real Slurm will skip ($(SYSTEM_PACKAGES))"; fi

lint: $(VENV)/.lint
	$(BIN)/ruff check slurm_energy exporters tests benchmarks deploy docs
	$(BIN)/ruff format --check slurm_energy exporters tests benchmarks deploy docs
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python benchmarks/aggregate.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/hooks.py
	$(BIN)/python benchmarks/agent_tick.py
	@if command -v prometheus-node-exporter >/dev/null; then $(BIN)/python benchmarks/node_exporter.py; \
	else echo "benchmarks/node_exporter.py: prometheus-node-exporter is not installed"; fi

# A real Slurm cluster of two nodes on this machine (as root): slurmctld, slurmd, slurmdbd, MariaDB; nothing in /etc.
cluster: system-packages
	$(PYTHON) deploy/devcluster/devcluster.py up

cluster-down:
	$(PYTHON) deploy/devcluster/devcluster.py down

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
