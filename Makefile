# Every target works from a clean clone; `make setup` is redone only when pyproject.toml or constraints.txt change.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check lint types docs bench-foundation bench-experts bench-hover bench-recovery bench-deployment bench-peers interop clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := core datasets sims policies real_robot training configs commands
# Rooms that hold code: mypy refuses a package without any.
TYPED := $(foreach room,$(ROOMS),$(if $(wildcard $(room)/*.py),$(room)))
# Shapes and types of every annotated function are checked while the tests run; an int passes for a float, as in mypy.
RUNTIME_TYPES := '--jaxtyping-packages=alula,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'
# What to test: make test TESTS="tests/core -k reset"
TESTS ?= tests
# Processes that test side by side.
WORKERS ?= 2

ifeq ($(shell uname),Linux)
# Off-screen rendering without a display; needs libEGL.
MUJOCO_GL ?= egl
export MUJOCO_GL
endif

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-18s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## install alula with its development tools into .venv

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,suites,rosbag,jpeg2k,arms,drones]'
	touch $@

demo: setup ## demonstrations, cloning, fine-tuning, evaluation and a report, in minutes
	$(BIN)/alula demo

test: setup ## the quick tests, with shapes and types checked at run time
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not interop" $(RUNTIME_TYPES) $(TESTS)

test-all: setup ## all tests; the slow ones may need the network
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not interop" $(RUNTIME_TYPES) $(TESTS)

check: setup lint types ## style, types, import rules, packaging
	@$(BIN)/python -m pytest -q -m "not slow" tests/test_architecture.py tests/test_packaging.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers do not follow an editable install of mapped folders; a link named alula gives them the real files
# under their import names, whatever the checkout is called.
types: setup
	@mkdir -p .typing && ln -sfn .. .typing/alula
	MYPYPATH=.typing $(BIN)/mypy $(foreach room,$(TYPED),-p alula.$(room))

docs: setup ## the documentation, as a website in site/
	$(BIN)/mkdocs build --strict

bench-foundation: setup ## measurements behind the claims about the engine
	$(BIN)/python benchmarks/foundation/run.py

bench-experts: setup ## success of every task's expert; renews sims/experts.json
	$(BIN)/python benchmarks/experts/run.py

bench-hover: setup ## hover learned from scratch in minutes, flown in three engines
	$(BIN)/python benchmarks/hover/run.py

bench-deployment: setup ## policies on emulated robots against plain simulation; half an hour, in real time
	$(BIN)/python benchmarks/deployment/run.py

bench-recovery: setup ## what retrying, recovering and tuned recovering are worth
	$(BIN)/python benchmarks/recovery/run.py

# Each in an environment of its own: their requirements conflict with ours and with each other's.
bench-peers: setup ## install what `alula bench sims` and `datasets` compare with, in .peers/
	for peer in envpool crazyflow gym_pybullet_drones diffusion_policy; do \
		$(PYTHON) -m venv --clear .peers/$$peer; \
		.peers/$$peer/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/peers/$$peer.txt; \
	done

interop: setup $(foreach peer,interop crazyflie franka,.peers/$(peer)/.stamp) ## others' code on ours: LeRobot, robomimic (.peers/, 8 GB), robots' SDKs
	@$(BIN)/python -m pytest -q -m "interop or oracle" tests/interop tests/real_robot

# LeRobot 0.3 borrows what it needs from the environment of LeRobot 0.4 and robomimic.
.peers/interop/.stamp: $(foreach peer,interop robomimic lerobot21,benchmarks/peers/$(peer).txt)
	$(PYTHON) -m venv --clear .peers/interop
	.peers/interop/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/peers/interop.txt
	.peers/interop/bin/python -m pip install --disable-pip-version-check -q --no-deps -r benchmarks/peers/robomimic.txt
	$(PYTHON) -m venv --clear .peers/lerobot21
	.peers/interop/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$(.peers/lerobot21/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/interop.pth
	.peers/lerobot21/bin/python -m pip install --disable-pip-version-check -q --no-deps -r benchmarks/peers/lerobot21.txt
	touch $@

# Apart from our own environment: cflib for its licence (GPL), franky-sim for its size.
.peers/crazyflie/.stamp .peers/franka/.stamp: .peers/%/.stamp: benchmarks/peers/%.txt
	$(PYTHON) -m venv --clear .peers/$*
	.peers/$*/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

clean: ## remove everything that make and the tools made (not runs/)
	rm -rf $(VENV) .peers .typing build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
