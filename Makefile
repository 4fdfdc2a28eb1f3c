# make demo    segment a bundled image offline; the picture is demo/overlay.png
# make test    all checks and all tests
# Each makes its own virtual environment; the other targets use that of the tests.

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal
# The constraint keeps pip from fetching gigabytes of CUDA with a newer torch.
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test coverage check napari bench bench-full docs system-packages clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/tiled-unet demo --out demo

# Tracing makes the viewer's tests half as long again, so only those of the core are measured.
test: system-packages check
	$(PYTEST) --cov --ignore tests/viewer
	$(PYTEST) tests/viewer

coverage: system-packages $(VENV)/.installed
	$(PYTEST) --cov --cov-report=
	$(BIN)/coverage report --omit=none

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@# On a busy machine its workers are given up before they have started; that is status 2, types are status 1.
	$(BIN)/mypy --num-workers 2 || { test $$? -eq 2 && $(BIN)/mypy; }
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-tiled-unet

napari: $(VENV)/.installed
	$(BIN)/napari --with napari-tiled-unet

# Meant to take twenty minutes at most on two cores that do nothing else.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.decode --repeats 1
	$(BIN)/python -m benchmarks.throughput --repeats 2
	$(BIN)/python -m benchmarks.half
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.strips
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.stardist
	$(BIN)/python -m benchmarks.responsiveness
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.report

bench-full: $(VENV)/.installed
	$(BIN)/python -m benchmarks.compare --full
	$(BIN)/python -m benchmarks.report

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

system-packages:
	.ci/system-packages

$(VENV)/.installed: EXTRAS := [dev]
$(VENV)/.installed $(DEMO_VENV)/.installed: %/.installed: pyproject.toml constraints.txt | %/bin/python
	@echo "installing into $*; the first time this takes some minutes"
	$*/bin/python $(INSTALL) ".$(EXTRAS)"
	touch $@

%/bin/python:
	$(PYTHON) .ci/make_venv.py $*

clean:
	rm -rf $(VENV) $(DEMO_VENV) .coverage* build demo dist site
