PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Bytecode is made of what is imported, when it is: without it each of the hundreds of processes of the tests would
# compile torch anew.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile

.PHONY: demo test coverage stress golden lint speed audit lock clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# One worker more than the two cores they are written for: a quarter of the time tests wait for processes they started.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 3 --dist loadfile --cov --cov-report term

# What commands in processes of their own run is counted, too, which takes half as long again.
coverage: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-config tests/coverage.toml --cov-report term

# Faults and load at full size, some minutes; -s shows the figures (docs/reliability.md).
stress: $(VENV)/.installed-test
	$(BIN)/python -m pytest -s --full-size tests/test_faults.py tests/test_load.py tests/test_weights.py tests/test_onnxexport.py

# After a checkpoint was replaced: what the bundled checkpoints make of two small pictures.
golden: $(VENV)/.installed-test
	$(BIN)/python tests/golden_outputs.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The peers are measured where they are installed: pip install bm3d scikit-image PyWavelets.
speed: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py speed

# Known vulnerabilities of the locked packages; CI passes AUDIT=--unless-offline.
audit: $(VENV)/.installed-tools
	$(BIN)/python tools/audit.py $(AUDIT)

# Every package of the development environment, for all supported versions of Python, with hashes.
# Not what the lock before it has: it may be of versions that are too old by now.
lock: $(BIN)/uv
	$(BIN)/uv pip compile pyproject.toml --extra test -c constraints.txt --universal --python-version 3.10 \
	  --generate-hashes --upgrade --no-emit-index-url --no-annotate --no-header --quiet -o requirements-dev.txt

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(BIN)/pip
	$(PIP_INSTALL) uv

# After the other, for two of pip's in one environment would not get on with each other.
$(VENV)/.installed-tools: | $(VENV)/.installed-test
	$(PIP_INSTALL) pip-audit uv
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) -c constraints.txt -e .
	touch $@

# The versions of the lock for pip to keep to, so that what is tested is what is audited. Without hashes, which a build of
# torch for the CPU alone would not have.
$(VENV)/locked.txt: requirements-dev.txt | $(BIN)/pip
	sed -n '/^[^ ]/s/ *\\$$//p' $< > $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/locked.txt | $(BIN)/pip
	$(PIP_INSTALL) -c $(VENV)/locked.txt -e '.[test]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist
