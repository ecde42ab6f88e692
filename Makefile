# `make` prints this list. A target's work of more than three lines is a file in scripts/.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/redoubt
export PATH := $(CACHE)/bin:$(PATH)
SECONDS ?= 20
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test)
.DEFAULT_GOAL := help
.PHONY: help deps postgres build guard run test fmt lint unit audit doc deny tidy servers system bench fuzz mutants oracle clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

deps: ## install the Debian packages that are missing (root)
	@scripts/install-deps

postgres: ## install the PostgreSQL releases that redo is proved against
	@scripts/postgres

build: deps ## build everything, release
	cargo build --release --locked --workspace
	$(MAKE) -C compute/guard

guard: ## the module that holds commits in PostgreSQL, against a real one
	$(MAKE) -C compute/guard check

run: build ## install, build, start a local system; TOUR=1 walks through the tour too
	@scripts/tour

test: deps postgres fmt lint unit guard audit doc deny tidy servers system ## everything that must hold before a change lands

fmt: ## formatting
	cargo fmt --all --check

lint: ## clippy, warnings are errors
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: postgres ## tests of every crate
	cargo $(NEXTEST) --locked --workspace
	cargo test --quiet --locked --workspace --doc

audit: ## tests of what seals, stopped where a key and nonce repeat
	cargo $(NEXTEST) --locked --package sealed --package safekeeper --features nonce-audit

doc: ## the reference builds without a warning
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny: ## licences, bans, sources of dependencies
	@scripts/cargo-tool deny 0.20.2
	cargo deny --locked check bans licenses sources

tidy: ## arrows, fences and promises about the tree itself
	cargo build --quiet --locked --package redoubt
	scripts/pytest tidy

servers: ## the parts that speak to servers which are not ours: S3, KMS
	scripts/pytest servers

system: ## a whole system with a real Postgres: kills, drills, damage, plaintext (root)
	cargo build --locked --workspace
	$(MAKE) -C compute/guard
	REDOUBT_GUARD=$(CURDIR)/compute/guard/redoubt_guard.so scripts/pytest system

bench: ## speed of decoding and redo against stock recovery, CPU time; makes 3 GB of WAL once
	@scripts/bench

fuzz: ## every fuzz target, SECONDS=20 each
	@scripts/cargo-tool fuzz 0.13.2
	scripts/fuzz $(SECONDS)

mutants: ## change redo in every small way, and tell what no test notices
	@scripts/mutants

oracle: ## redo held to PostgreSQL in full, on every release: hours; PART=cuts ONLY=of_17 for less
	scripts/oracle "$(PART)" "$(ONLY)"

clean: ## remove what a build left in the checkout
	cargo clean
