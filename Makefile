# `make demo` and `make test` do everything on a fresh Debian machine: packages, .venv, build, run.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
JOBS := $(shell nproc)
BUILD := build/editable
# One compiler cache for all clones and work trees: paths relative to the project, no hash of its folder.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
PY := .venv/bin/python
SOURCES = $(shell find csrc tests benchmarks -name '*.h' -o -name '*.cc')

.PHONY: help build build-tests demo picture examples notebooks test test-avx2 interpreters wheel slow generators parity parity-sample asan tsan fuzz bench bench-compare lint format types clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# Packages first, so that a fresh machine has an interpreter to ask. sys.executable looks through launcher scripts.
.venv/ready: pyproject.toml .ci/debian-packages .ci/requirements.py
	.ci/debian-packages
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(PY) || "$$($(PYTHON) -c 'import sys; print(sys.executable)')" -m venv .venv
	$(PY) .ci/requirements.py dev > .venv/requirements.txt
	@echo "installing Python packages in .venv"
	$(PY) -m pip install --disable-pip-version-check -q -r .venv/requirements.txt
	touch $@

# Both in one folder with the same configuration, so that going from one to the other compiles nothing again.
install_editable = PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) .ci/progress.py $(BUILD).log $(PY) -m pip install \
  --disable-pip-version-check -v --no-deps --no-build-isolation -Cbuild-dir=$(BUILD) -Ccmake.define.DEEPSEEK_TESTS=ON

build: .venv/ready ## build and install in .venv, editable; incremental, without the GoogleTests
	@$(install_editable) -Cbuild.targets=_C -e .

build-tests: .venv/ready ## the same with the GoogleTests and the library for C++
	@$(install_editable) -e .

demo: build ## train a small language model, about two minutes
	.venv/bin/deepseek demo

picture: build ## train as the demo does and draw docs/images/demo.svg
	$(PY) benchmarks/demo_picture.py

examples: build ## the programs of examples/, at full length
	$(PY) .ci/requirements.py examples > .venv/examples.txt
	$(PY) -m pip install --disable-pip-version-check -q -r .venv/examples.txt
	$(PY) examples/digits.py
	$(PY) examples/vae.py
	$(PY) examples/gpt.py --out build/gpt.ds
	$(PY) examples/finetune.py build/gpt.ds

notebooks: build ## run the notebooks and store what they print
	$(PY) .ci/requirements.py notebooks > .venv/notebooks.txt
	$(PY) -m pip install --disable-pip-version-check -q -r .venv/notebooks.txt
	$(PY) .ci/notebooks.py --write

test: build-tests ## GoogleTest and pytest
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS) --no-tests=error
	$(PY) -m pytest -q -m "not slow and not parity"

test-avx2: build ## pytest as on a CPU without AVX-512
	DEEPSEEK_ISA=avx2 $(PY) -m pytest -q -m "not slow and not parity"

PYTHONS ?=
export PYTHONS
wheel: .venv/ready ## a manylinux wheel in dist/ for each Python from 3.11 on that PATH and pyenv have, PYTHONS="3.12 3.13" for some
	.ci/wheels

interpreters: .venv/ready ## those wheels, and pytest on each of these Pythons
	.ci/wheels -q -m "not slow and not parity"

slow: build ## the long tests
	$(PY) -m pytest -q -m "slow and not parity"

CASES ?= 20000
generators: build ## random programs and arguments, each against its slow twin, CASES=20000 of each sort
	DEEPSEEK_CASES=$(CASES) $(PY) -m pytest -q -m "not parity" --timeout 0 pytests/generators

ORACLES := torch==2.13.0 transformers==5.24.0
parity: build ## compare with PyTorch and transformers: all samples of their databases, long state machines
	$(PY) -m pip install --disable-pip-version-check -q $(ORACLES)
	$(PY) -m pytest -q -m parity

parity-sample: build ## compare with PyTorch and transformers: a fixed sample, what CI runs
	$(PY) -m pip install --disable-pip-version-check -q $(ORACLES)
	$(PY) -m pytest -q -m "parity and not slow"

# The sanitized build stands beside the editable one. The base interpreter does not read the .pth files of .venv, so the
# editable package cannot get in the way, while pytest and numpy come from there. libstdc++ has to be preloaded too, or
# the first C++ exception ends the process.
SANITIZED_PYTHON = PYTHONPATH="$(CURDIR)/build/$@-site:$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
  "$$($(PY) -c 'import sys; print(sys._base_executable)')"
define install_sanitized
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m pip install --disable-pip-version-check -v --no-deps --no-build-isolation \
	  --upgrade --target build/$@-site -Cbuild-dir=build/$@ -Ccmake.build-type=Debug -Cinstall.strip=false \
	  -Ccmake.define.DEEPSEEK_TESTS=ON -Ccmake.define.DEEPSEEK_SANITIZE=$(1) .
endef

asan: export ASAN_OPTIONS := strict_init_order=1:allocator_may_return_null=1
asan: export UBSAN_OPTIONS := halt_on_error=1:print_stacktrace=1
asan: .venv/ready ## GoogleTest and pytest under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call install_sanitized,address$(COMMA)undefined)
	ctest --test-dir build/asan --output-on-failure -j $(JOBS) --no-tests=error
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS="$$ASAN_OPTIONS:detect_leaks=0" $(SANITIZED_PYTHON) -m pytest -q -s -p no:cacheprovider \
	  -m "not slow and not parity and not nosan" --timeout 1800

tsan: export TSAN_OPTIONS := halt_on_error=1
tsan: .venv/ready ## GoogleTest and the threaded part of pytest under ThreadSanitizer
	$(call install_sanitized,thread)
	ctest --test-dir build/tsan --output-on-failure -j $(JOBS) --no-tests=error
	LD_PRELOAD="$$(g++ -print-file-name=libtsan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  $(SANITIZED_PYTHON) -m pytest -q -s -p no:cacheprovider -m "threads and not slow and not parity" --timeout 1800

FUZZ_SECONDS ?= 60
fuzz: ## libFuzzer on the parsers of files and schemas, FUZZ_SECONDS=60 each
	.ci/debian-packages clang-14 libclang-rt-14-dev libomp-14-dev
	cmake -S . -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++-14 -DDEEPSEEK_PYTHON=OFF -DDEEPSEEK_FUZZ=ON
	cmake --build build/fuzz
	$(PYTHON) tests/fuzz/seeds.py build/fuzz/corpus
	for name in safetensors json schema; do \
	  build/fuzz/tests/fuzz/$${name}_fuzz -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=10 -max_len=4096 \
	    -dict=build/fuzz/corpus/$$name.dict -artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name; \
	done

# Values of DEEPSEEK_ISA: all that this machine has, and AVX2 where that is less.
for_each_isa = for isa in "" $$(grep -qm 1 avx512f /proc/cpuinfo && echo avx2); do export DEEPSEEK_ISA=$$isa;

# What is printed is stored too, JSON lines. The tables of the pages are those of the first set of instructions.
bench: build ## every program in benchmarks/, also with AVX2 alone; BENCH_FLAGS=--write writes the tables of the pages
	mkdir -p build/bench
	$(for_each_isa) for program in benchmarks/bench_*.py; do \
	  echo "== $$program $$isa"; \
	  $(PY) "$$program" $$([ -n "$$isa" ] || echo $(BENCH_FLAGS)) \
	    | tee "build/bench/$$(basename "$$program" .py)-$${isa:-best}.jsonl"; \
	done; done

bench-compare: build ## every op beside the same op of another commit, COMMIT=174ce56
	$(for_each_isa) $(PY) benchmarks/compare_commits.py "$(COMMIT)" $(BENCH_FLAGS); done

lint: .venv/ready ## ruff and clang-format
	.ci/debian-packages clang-format-14
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	clang-format-14 --dry-run -Werror $(SOURCES)

format: .venv/ready ## let ruff and clang-format rewrite the files
	.ci/debian-packages clang-format-14
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	clang-format-14 -i $(SOURCES)

types: build ## mypy, and the stub of the C++ module against the module
	$(PY) -m mypy
	test -f python/deepseek/_C.pyi  # stubtest passes silently without one
	$(PY) -m mypy.stubtest deepseek._C

clean: ## remove what was built
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## and the virtual environment
	rm -rf .venv

COMMA := ,
