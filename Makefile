# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Users may have any recent torch; the tests pin the build they were written on.
TORCH := torch==2.13.0
SOURCE ?= simulated

OWN := runs/own_default
BUNDLES := agent/asd_agent/bundles

.PHONY: demo encoder test test-all test-fast docs faults generated lint audit sbom system-packages clean

demo: $(VENV)/.edge
	$(BIN)/asd-agent demo --source "$(SOURCE)"

# The system tests one by one: they own brokers, sound servers and a container.
test: $(VENV)/.dev system-packages
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not system and not slow_client"
	$(BIN)/pytest -m "system and not slow_client"

# Real clients and another processor; minutes.
test-all: $(VENV)/.dev system-packages
	$(BIN)/pytest -m slow_client

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not system and not slow and not slow_client"

# The shipped encoder from its sounds (../shared): hours on two cores, goes on where it stopped.
encoder: $(VENV)/.dev
	$(BIN)/asd-train distil configs/train/own_default.yaml -o $(OWN) --resume
	$(BIN)/asd-export own $(OWN)/student --joined -o $(BUNDLES)/default --replace $(addprefix --include $(OWN)/student/student.,safetensors json) \
		--include $(BUNDLES)/default/MODEL_CARD.md

# What is made of the code and kept in the repository; tests compare.
generated: $(VENV)/.dev
	$(BIN)/asd-agent init --example > configs/agent/example.yaml
	for kind in config mqtt asyncapi; do $(BIN)/asd-agent schema $$kind > docs/schema/$$kind.json; done

# Half an hour of faults of all kinds, and ten minutes of all threads at once; FAULTS_MINUTES=360 for six hours, ASD_TEST_SEED for another order.
faults: $(VENV)/.dev system-packages
	cd tests && OMP_NUM_THREADS=1 PYTHONPATH=.:system ../$(BIN)/python -m faults.run \
		-o ../benchmarks/results/faults.json
	STRESS_MINUTES=10 $(BIN)/pytest -s tests/faults/test_stress.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory audit

# Known vulnerabilities of what is installed, where their database can be reached.
audit: $(VENV)/.dev
	@sh .ci/audit $(BIN)/pip-audit

# What container and Debian package are made of, the build backend included (CycloneDX).
sbom: $(VENV)/.dev
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/pip --python build/sbom/bin/python install --quiet --require-hashes -r packaging/requirements.txt
	$(BIN)/pip --python build/sbom/bin/python install --quiet --no-deps .
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json \
		build/sbom/bin/python

system-packages:
	@sh tests/system/packages.sh

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asd-agent needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.edge: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e ".[demo,web]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -e ".[archive,demo,fleet,web,plot,train,export,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
