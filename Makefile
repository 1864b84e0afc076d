PYTHON ?= python

.PHONY: dev test test-fast lint format types bench

dev: .typing/hicom_edge
	$(PYTHON) -m pip install -e ".[dev]" -c constraints.txt

# type checkers do not follow setuptools' package-dir: this link shows them the package
.typing/hicom_edge:
	mkdir -p .typing
	ln -sfn .. .typing/hicom_edge

# a process per core, each file's tests in one; more threads in each would only wait for one another
test:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile

# all but the tests marked slow
test-fast:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile -m "not slow"

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types: .typing/hicom_edge
	$(PYTHON) -m mypy

bench:
	$(PYTHON) benchmarks/compressor.py
