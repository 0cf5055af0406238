# make repro   set up .venv and rebuild every table and figure at the scale of params.yaml
# make test    set up .venv and run the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# make TORCH=cpu ...: torch without CUDA, and without the packages that only CUDA needs (several GB).
TORCH ?= default
CPU_INDEX := https://download.pytorch.org/whl/cpu
export PATH := $(CURDIR)/$(BIN):$(PATH)

# make CLUSTER=no test: do not install Debian's SLURM; the tests that need it are skipped where it is missing.
CLUSTER ?= yes

.PHONY: setup repro test test-fast lock bench bench-train bench-demo bench-slurm snapshot published theory

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "X-Nets needs Python 3.11 or newer; say which: make PYTHON=python3.11 repro"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	grep -vE '^(nvidia-|cuda-|triton)' requirements.lock > $(VENV)/requirements-cpu.lock
	$(BIN)/python -m pip install --quiet --index-url $(CPU_INDEX) $$(grep -E '^torch(vision)?==' requirements.lock)
	$(BIN)/python -m pip install --quiet --no-deps --requirement $(VENV)/requirements-cpu.lock
else
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
endif
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

repro: setup
	$(BIN)/dvc repro
	@results=results/$$(sed -n 's/^scale: *\([a-z0-9-]*\).*/\1/p' params.yaml); \
		echo "Tables: $$results/tables/all.md    Figures: $$results/figures/    Runs: $(BIN)/mlflow ui"

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
ifeq ($(CLUSTER),yes)
	-@[ "$$(id -u)" != 0 ] || slurm/local_cluster.sh install --accounting
endif
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

test-fast: setup
	$(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile --no-loadscope-reorder

# Resolve requirements.lock anew from pyproject.toml.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras pyproject.toml -o requirements.lock

# Time the kernels, whole networks and their memory on a quiet machine (about an hour): writes benchmarks/*.csv and
# kernels.md; benchmarks/reasons.md and conditions.md are then yours to write anew.
bench: setup
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.choice
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.report

# Images a second in training, against a usual loop and the authors' approach (quarter of an hour): benchmarks/train.csv.
bench-train: setup
	$(BIN)/python -m benchmarks.train

# Time the demo from a fresh clone of the last commit: writes benchmarks/demo.json.
bench-demo: setup
	$(BIN)/python benchmarks/demo.py

# Time the sweep, and the demo by SLURM, on slurm/local_cluster.sh: writes benchmarks/slurm.json.
bench-slurm: setup
	$(BIN)/python benchmarks/slurm.py

# Copy the demo's tables and figures to docs/demo, where the README shows them.
snapshot: setup
	mkdir -p docs/demo/studies
	cp results/demo/tables/all.md results/demo/figures/*.png docs/demo/
	cp results/demo/studies/*.md results/demo/studies/*.png results/demo/studies/*.csv docs/demo/studies/

# What published/ says: claims, rows, coverage and figures of studies, in docs/published.
published: setup
	$(BIN)/python -m paper_figures published

# Measure what the paper says of graphs, in full (some 20 minutes of one core), and draw it: docs/theory. The figure
# "constructions" shows benchmarks/graph_gaps.csv, of the second command (a minute; the same numbers every time).
theory: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.theory --size full --to docs/theory/measured
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.graphs
	for name in sensitivity mixing constructions gaps; do \
		$(BIN)/python -m paper_figures theory $$name --from docs/theory/measured --to docs/theory || exit; done
