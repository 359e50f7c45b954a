# make quickstart: set up and compare five methods on real pictures.  make test: set up and pass the tests.
# make test-long: those that take long: whole processes, real sizes, what other commands below do in full. CI runs both.
# make test-portable: those that compare the numbers of kernels, with the kernels of a processor without AVX.
# make faults: kill, interrupt and starve runs, feed them damaged and hostile files, and print what held.
# make breadth: look at every model of open_clip and timm, and adapt one of each family for real: hours, resumable.
# make rehearsal: run the shipped commands at their real numbers of classes and images, on small pictures.
# make gpu: on a machine with a GPU, the tests marked gpu, then the benchmarks and their section of benchmarks/README.md.
# make benchmarks: every benchmark of a CPU at this commit, their records and benchmarks/README.md: hours, resumable.
# make docs: the documentation as a site in build/docs.
# make docs-version VERSION=0.1: the same as a version, with a choice of versions, on the local branch gh-pages (BRANCH=...).
# make peft-tests: hold kravl.peft, and methods of PEFT as controls, to the tests of the installed PEFT.
PYTHON ?= python3
BIN := .venv/bin
BRANCH ?= gh-pages

.PHONY: quickstart test test-long test-portable faults breadth rehearsal peft-tests benchmarks gpu docs docs-version lint clean

quickstart: .venv/installed
	$(BIN)/kravl quickstart

test: .venv/installed
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: .venv/installed
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m long

test-portable: .venv/installed
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
		$(BIN)/python -m pytest -n logical --maxprocesses 8 -k "not compiles and not description and not refused" \
		tests/adapters/test_*attention*.py tests/adapters/test_contract*.py tests/backbones/test_cls_token.py \
		tests/backbones/test_text_tower.py tests/backbones/test_clip.py tests/analysis/test_measure.py

faults: .venv/installed
	$(BIN)/python -m tests.faults

breadth: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,text]"
	$(BIN)/python -m tests.breadth

rehearsal: .venv/installed
	$(BIN)/python -m tests.rehearsal

peft-tests: .venv/installed
	$(BIN)/python -m tests.peft.upstream

benchmarks: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,bench]"
	$(BIN)/python benchmarks/suite.py

gpu: .venv/installed
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make gpu: no CUDA device is here")'
	$(BIN)/python -m pytest -m gpu; tested=$$?; $(BIN)/python benchmarks/gpu.py && $(BIN)/python benchmarks/report.py && exit $$tested

docs: .venv/installed
	$(BIN)/python -m mkdocs build --strict

docs-version: .venv/installed
	$(BIN)/python -c 'import sys; sys.exit(not "$(VERSION)" and "pass VERSION=0.1, as readers will see it")'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mike deploy --branch $(BRANCH) --update-aliases $(VERSION) latest
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mike set-default --branch $(BRANCH) latest

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kravl needs Python 3.11 or later; pass PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m tests.peft.upstream.archive .venv/peft-tests  # 1 MB; a part of PEFT's tests is among ours
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .mypy_cache
