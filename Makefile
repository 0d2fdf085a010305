# The commands of the project; each does its own set-up. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help demo demo-up demo-down test check bench deb fuzz soak

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s '	'

demo: ## three hosts form a mesh and carry four exercises (MODE=root|user|loopback)
	@exec bash scripts/demo.sh run

demo-up: ## the same mesh, kept for exploring
	@bash scripts/demo.sh up

demo-down: ## ends what demo-up keeps
	@bash scripts/demo.sh down

test: ## every suite, with its set-up; the last line is the sum
	@bash scripts/setup.sh test
	@. scripts/environment.sh && cargo xtask test $(ONLY)

check: ## format, lints, laws, documents, unit tests
	@bash scripts/setup.sh build
	@. scripts/environment.sh && cargo xtask check

bench: ## meshd beside Envoy, HAProxy and nginx (SCENARIO=hop ROUNDS=3 SECONDS_EACH=3 BENCH_QUICK=1)
	@bash scripts/setup.sh bench
	@. scripts/environment.sh && cargo build --release -p meshd -p meshctl -p mesh-bench -p mesh-tests \
		&& bash scripts/private.sh "$${CARGO_TARGET_DIR:-target}/release/mesh-bench"

deb: ## target/packages/meshd_*.deb
	@bash scripts/setup.sh build
	@. scripts/environment.sh && cargo xtask package

fuzz: ## each decoder of outside bytes for FUZZ_SECONDS (60) each, or FUZZ_TARGETS="http1_differential" alone
	@bash scripts/fuzz.sh

soak: ## mixed load with killed instances, faults and new routes for SOAK_SECONDS (1800); registries away for OUTAGE_SECONDS (600)
	@bash scripts/setup.sh test
	@. scripts/environment.sh && SOAK_SECONDS=$${SOAK_SECONDS:-1800} cargo xtask test "hosts: soak" \
		&& OUTAGE_SECONDS=$${OUTAGE_SECONDS:-600} cargo xtask test "hosts: registries"
