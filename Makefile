# make demo    segment a bundled image offline; a picture to look at in demo/
# make test    all checks and tests
# Both make their own environment; everything else builds on the one for tests.

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
RUN := $(VENV)/bin
# Installing with the pin keeps pip from fetching a CUDA build of torch.
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check napari bench docs system-packages clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/tiled-unet demo --out demo

test: system-packages check
	$(RUN)/python -m pytest --cov --cov-report=term --cov-report=xml

check: $(VENV)/.installed
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/npe2 validate src/napari_tiled_unet/napari.yaml

napari: $(VENV)/.installed
	$(RUN)/napari --with napari-tiled-unet

bench: $(VENV)/.installed
	$(RUN)/python benchmarks/decode.py
	$(RUN)/python benchmarks/throughput.py

docs: $(VENV)/.docs
	$(RUN)/mkdocs build --strict

system-packages:
	sh .ci/system-packages

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) .ci/make_venv.py $(VENV)
	$(RUN)/python $(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(RUN)/python $(INSTALL) --editable ".[docs]"
	touch $@

$(DEMO_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) .ci/make_venv.py $(DEMO_VENV)
	$(DEMO_VENV)/bin/python $(INSTALL) --editable .
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) demo site dist build .coverage coverage.xml
