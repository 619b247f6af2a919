# The commands of this repository; `make` alone lists them. Recipes of more than a few lines are scripts in scripts/,
# bench/, tests/ and .ci/. All build outputs and downloads are in target/.

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo run build test test-rust polyglot check lint-rust lint-docs lint-proto lint-shell lint-supply sbom fmt docs guard access-proof abuse bench bench-quick bench-against bench-access clean

# Arguments for `sentinelctl demo` and the server, as in: make demo ARGS=--json
ARGS ?=

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

bootstrap: ## install what is missing on this machine: redis-server or valkey-server, a C compiler
	@scripts/bootstrap

demo: bootstrap ## run a flash sale of 200,000 attempts against a real server (ARGS="--scenario rules" for one with every rule, --json for one line of JSON)
	@scripts/demo.sh $(ARGS)

run: bootstrap ## serve on 127.0.0.1:50051 until stopped, data in ./sentinel-data (ARGS are passed to the server)
	@scripts/run.sh $(ARGS)

build: bootstrap ## build the server and sentinelctl for release
	cargo build --release --locked --package inventory-sentinel-server --package sentinelctl

test: test-rust polyglot ## all tests: Rust against real Redis processes, then clients in other languages

test-rust: ## the Rust tests
	@scripts/bootstrap tests
	cargo build --workspace --locked
	RUST_BACKTRACE=1 cargo test --workspace --locked

polyglot: bootstrap ## clients in Python, Go and grpcurl and the checkouts of examples/, each against a real server
	cargo build --package inventory-sentinel-server --package sentinelctl --locked
	tests/polyglot/run

check: lint-rust lint-docs lint-proto lint-shell lint-supply ## formatting, lints, documentation and dependencies, warnings denied

lint-rust: bootstrap ## check the formatting of the Rust code and lint it
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

lint-docs: bootstrap ## build the Rust documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

lint-proto: ## lint proto/ with buf
	.ci/lint-proto

lint-shell: ## lint the shell scripts with shellcheck, if it is installed
	.ci/lint-shell

lint-supply: bootstrap ## check licences, sources, versions and, where they can be had, advisories of the dependencies with cargo-deny
	.ci/lint-supply

sbom: bootstrap ## list the dependencies of the server and of sentinelctl in CycloneDX files in target/sbom (ARGS="--target all": of every platform)
	@scripts/sbom $(ARGS)

fmt: ## format the Rust code and proto/
	cargo fmt --all
	.ci/tools/buf format --write proto

docs: bootstrap ## write the generated pages of docs/ and the code in docs/start/first-checkout.md, and the Rust documentation to target/doc
	UPDATE_DOCS=1 cargo test --workspace --lib --locked the_documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

guard: ## fail if an operation costs more commands or instructions than bench/guards.json expects (ARGS=--update: accept the current counts)
	@scripts/bootstrap guard
	cargo build --release --locked --package inventory-sentinel-server --package sentinel-bench
	$${CARGO_TARGET_DIR:-target}/release/sentinel-bench count --programs $${CARGO_TARGET_DIR:-target}/release $(ARGS)

access-proof: ## prove each claim about TLS, identities and roles: one row a claim, in about fifteen minutes after the builds
	@scripts/bootstrap guard
	@scripts/bootstrap tests
	cargo build --workspace --locked
	cargo build --release --locked --package inventory-sentinel-server --package sentinel-bench --package sentinelctl
	@scripts/access-proof

abuse: bootstrap ## attack each bound of the server while an honest caller uses it, in about 9 minutes; fails if a bound does not hold (ARGS="--short" for a minute, "--only NAME", --json)
	cargo build --release --locked --package inventory-sentinel-server --package sentinel-bench
	$${CARGO_TARGET_DIR:-target}/release/sentinel-bench abuse --server $${CARGO_TARGET_DIR:-target}/release/sentinel-server $(ARGS)

bench: ## measure this service, its alternatives and the cost of size, in half an hour; writes docs/benchmarks and the figures in README.md (ARGS are passed to the runner)
	@bench/run --full --seconds 3 --docs docs/benchmarks --readme README.md $(ARGS)

bench-quick: ## measure this service and its alternatives, in under eight minutes after the build (ARGS are passed to the runner)
	@bench/run $(ARGS)

bench-against: bootstrap ## compare this server with that of another commit (ARGS=COMMIT)
	@bench/compare $(ARGS)

bench-access: ## measure the cost of tokens and TLS beside an open server, in under five minutes after the build; fails if a form costs more than its limit (ARGS are passed on)
	@scripts/bootstrap guard
	cargo build --release --locked --package inventory-sentinel-server --package sentinel-bench
	$${CARGO_TARGET_DIR:-target}/release/sentinel-bench access --server $${CARGO_TARGET_DIR:-target}/release/sentinel-server --page docs/benchmarks/access.md $(ARGS)

clean: ## remove everything that was built; ./sentinel-data stays
	cargo clean
