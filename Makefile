# The commands of the README. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench perf perf-vm perf-quick fuzz deb clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## Install what building and testing need, only if it is missing
	@.ci/setup test

demo: ## Publish a file on a node of this machine, fetch it over HTTP/3 with many devices at once, verify every byte
	@.ci/setup build
	@cargo build --release --quiet -p engine -p control-plane
	@.ci/demo target/release

test: ## Run every test (real sockets, third-party HTTP/3 clients)
	@.ci/setup test
	cargo test --workspace --no-fail-fast

lint: ## Formatting and clippy, warnings are errors
	@.ci/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: ## Criterion and instruction-count benchmarks of the pure code
	@.ci/setup bench
	cargo bench -p benches

perf: ## Measure ioex beside other servers; exit status 0 only if every promise holds (about 45 minutes)
	@.ci/setup perf
	cargo run --release -p perf -- serve --json perf/results/serve.json
	cargo run --release -p perf -- relay --json perf/results/relay.json
	cargo run --release -p perf -- import --json perf/results/import.json
	cargo run --release -p perf -- open --json perf/results/open.json
	cargo run --release -p perf -- token --json perf/results/token.json
	cargo run --release -p perf -- chain --json perf/results/chain.json
	cargo run --release -p perf -- dht --json perf/results/dht.json
	cargo run --release -p perf -- message --json perf/results/message.json
	cargo run --release -p perf -- join --json perf/results/join.json
	cargo run --release -p perf -- mailbox --json perf/results/mailbox.json
	cargo run --release -p perf -- policy --json perf/results/policy.json
	cargo run --release -p perf -- report

perf-vm: ## Open 100,000 TURN allocations on one node, in a virtual machine whose limits allow them
	@.ci/setup vm
	cargo build --release -p perf -p engine -p control-plane
	perf/vm/run --memory 6144 -- perf relay-allocations --engine /usr/bin/ioex-engine --json /out/relay-allocations.json
	cp target/vm/out/relay-allocations.json perf/results/
	cargo run --release -p perf -- report

perf-quick: ## Prove that every perf scenario runs, judging nothing
	@.ci/setup perf
	cargo build --workspace
	target/debug/perf serve --quick --engine target/debug/ioex-engine
	timeout 120 target/debug/perf serve --quick --engine target/debug/ioex-engine --driver epoll --subjects ioex
	timeout 120 target/debug/perf relay --quick --engine target/debug/ioex-engine
	target/debug/perf relay-allocations --quick --engine target/debug/ioex-engine
	target/debug/perf import --quick
	target/debug/perf open --quick
	target/debug/perf chain --quick
	target/debug/perf dht --quick
	target/debug/perf message --quick --engine target/debug/ioex-engine
	target/debug/perf join --quick --engine target/debug/ioex-engine --ioex target/debug/ioex
	target/debug/perf mailbox --quick --engine target/debug/ioex-engine
	target/debug/perf policy --quick --engine target/debug/ioex-engine
	target/debug/perf publish --quick
	target/debug/perf token --quick --engine target/debug/ioex-engine
	target/debug/perf fetch --quick --engine target/debug/ioex-engine --ioex target/debug/ioex

fuzz: ## Fuzz every target for FUZZ_SECONDS each (default 30)
	@.ci/setup fuzz
	@.ci/fuzz

deb: ## Build the Debian package of both programs into target/debian
	@.ci/setup deb
	cargo build --release -p engine -p control-plane
	rm -rf target/man
	cargo run --release --quiet -p control-plane --example man_pages -- target/man
	cargo deb --no-build -p control-plane

clean: ## Remove everything that was built
	cargo clean
