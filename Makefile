# xen2kvm: set-up, demo, tests. Debian 12 or 13, as root.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CORE := $(wildcard src/blocksync/*.pyx src/blocksync/*.pxd src/blocksync/native/*) setup.py pyproject.toml

RUN_PACKAGES := arping grub-common grub-pc-bin qemu-system-x86 qemu-utils util-linux e2fsprogs fdisk
BUILD_PACKAGES := gcc libc6-dev libxxhash-dev python3-dev python3-venv make
GUEST_PACKAGES := debootstrap
TEST_PACKAGES := btrfs-progs cpio groff-base iproute2 libvirt-clients libvirt-daemon-driver-qemu libvirt-daemon-system libxml2-utils \
	openssh-client openssh-server xfsprogs

PROOFS := tests/blocksync/proofs tests/blocksync/changes tests/blocksync/test_man_pages.py tests/blocksync/test_tune.py \
	tests/benchmarks
HOSTS := tests/blocksync/transports tests/blocksync/wire tests/blocksync/remote tests/orchestrate/steps

WORKERS := -n 2 --dist loadfile

.PHONY: help install install-test demo test test-fast test-hosts test-proofs test-boot test-long test-asan lint lab test-lab bench bench-remote bench-live bench-kernels bytecode man clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

install: .venv/installed ## System packages and .venv with the native core built

.cache/packages: Makefile
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
		$(RUN_PACKAGES) $(BUILD_PACKAGES) $(GUEST_PACKAGES) > /dev/null
	mkdir -p .cache && touch $@

$(BIN)/python: | .cache/packages
	$(PYTHON) -m venv .venv

.venv/installed: .cache/packages $(CORE) | $(BIN)/python
	$(BIN)/pip install -q -e .
	touch $@

install-test: .venv/test-tools .cache/test-packages

# The same with the tools of tests, in one go: the core is built once.
.venv/test-tools: .cache/packages $(CORE) | $(BIN)/python
	$(BIN)/pip install -q -e '.[test]'
	touch .venv/installed $@

.cache/test-packages: Makefile
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(TEST_PACKAGES) > /dev/null
	mkdir -p .cache && touch $@

demo: install ## Migrate a demo guest from three bare volumes to a disk that boots
	$(BIN)/python demo/migrate.py

test: install-test lint test-fast test-hosts test-proofs test-boot ## Set up and run every test

lint: .venv/test-tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test-fast: install-test ## The tests that take seconds, two minutes together
	$(BIN)/pytest $(WORKERS) $(addprefix --ignore=,$(PROOFS) $(HOSTS) tests/lab) -m "not boots and not long"

test-hosts: install-test ## Whole commands on small guests, and passes between two ends with a real sshd
	$(BIN)/pytest $(WORKERS) $(HOSTS) -m "not long and not boots"

test-proofs: install-test ## The engine under faults (kill -9, errors at every call, crash states), and what measures
	$(BIN)/pytest $(PROOFS) -m "not long"

# A machine has one libvirt: its tests follow each other, beside the others.
test-boot: install-test ## The tests that boot guests
	$(BIN)/pytest --ignore=tests/lab -m "boots and libvirt and not long" & beside=$$!; \
	$(BIN)/pytest --ignore=tests/lab -m "boots and not libvirt and not long"; status=$$?; \
	wait $$beside && exit $$status

test-long: install-test ## The proofs and fuzzers with larger budgets than CI has (an hour)
	$(BIN)/pytest --ignore=tests/lab --timeout 3600 -m "long and not boots"

# Built beside the installed core, never over it.
ASAN := $(CURDIR)/.cache/asan
ASAN_ENVIRONMENT = PYTHONPATH=$(ASAN)/lib PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"

test-asan: install-test ## The engine's tests with its core built under AddressSanitizer and UBSan
	rm -rf $(ASAN)
	BLOCKSYNC_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(ASAN)/build --build-lib $(ASAN)/lib
	$(ASAN_ENVIRONMENT) $(BIN)/python -c "import sys, blocksync._copy as core; sys.exit('asan' not in core.__file__)"
	$(ASAN_ENVIRONMENT) $(BIN)/pytest $(addprefix --ignore=,$(filter-out tests/blocksync/wire,$(HOSTS)) tests/blocksync/test_man_pages.py) -m "not long" \
		tests/blocksync

lab: install-test ## Build a real Xen host under emulation, with LVM and a guest that writes (minutes; kept in .cache/lab)
	PYTHONPATH=demo $(BIN)/python tests/lab/lab_build.py

test-lab: lab ## The tests on the real Xen host
	$(BIN)/pytest --timeout 3000 tests/lab

# What pip does for a package that it installs; a start would else compile what was edited.
bytecode:
	$(BIN)/python -m compileall -q src

bench: .venv/installed bytecode ## Measure passes beside every peer on PATH, into docs/benchmarks (BENCH="--size 512MiB --rounds 1")
	$(BIN)/python -m benchmarks.passes $(BENCH)

bench-remote: install-test bytecode ## Measure passes between two hosts beside their peers, into docs/benchmarks (BENCH as above)
	$(BIN)/python -m benchmarks.remote $(BENCH)

bench-live: .venv/installed bytecode ## Measure the last pass of a live migration by disk size, into docs/benchmarks
	$(BIN)/python -m benchmarks.live $(BENCH)

bench-kernels: .venv/test-tools ## Measure hashing, comparing and coalescing by block size
	$(BIN)/pytest --override-ini addopts= --benchmark-only --benchmark-columns=min,median,rounds benchmarks/kernels

man: .venv/installed ## Write the man pages and the JSON schemas from the commands' own help and structs
	$(BIN)/python docs/man/pages.py

clean: ## Remove what was built
	git clean -xdf
