# One command per task; what takes more than a line lies in scripts/.
#   make run ARGS="--data /var/lib/corecast"    flags of `corecast up`
#   make run PROFILE=dev                        a quicker build, a slower server
#   make bench-gateway ARGS="--quick"           flags of `corecast-bench gateway`

PROFILE ?= release
ARGS ?=

.PHONY: run test bench-gateway web fmt clean

run: web
	cargo run --profile $(PROFILE) --bin corecast -- up $(ARGS)

test:
	scripts/test

# Floor, baseline and gateway in turn, one table per question; see benches/README.md.
bench-gateway:
	cargo build --release --bin corecast
	cargo build --release -p corecast-benches
	target/release/corecast-bench gateway $(ARGS)

web:
	scripts/install build
	scripts/web build

fmt:
	cargo fmt --all

# The data folder stays.
clean:
	cargo clean
	rm -rf web/dist web/node_modules
