# One command per task; what takes more than a line lies in scripts/.
#   make run ARGS="--data /var/lib/corecast"    flags of `corecast up`
#   make run PROFILE=dev                        a quicker build, a slower server
#   make cluster BROKERS=3 PORT_BASE=9000       variables of scripts/cluster
#   make bench-gateway ARGS="--quick"           flags of `corecast-bench gateway`
#   make chaos ARGS="--short --seed 7"          flags of `corecast-bench chaos`

PROFILE ?= release
ARGS ?=

.PHONY: run test cluster cluster-down cluster-clean bench-gateway chaos web fmt clean

run: web
	cargo run --profile $(PROFILE) --no-default-features --bin corecast -- up $(ARGS)

test:
	scripts/test

# Every tier twice, on MariaDB, Redis, Kafka and etcd, nginx in front: http://localhost:8000.
cluster: web
	scripts/install cluster
	PROFILE=$(PROFILE) scripts/cluster up

cluster-down:
	scripts/cluster down

# And forgets everything.
cluster-clean:
	scripts/cluster clean

# Floor, baseline and gateway in turn, one table per question; see benches/README.md.
bench-gateway:
	cargo build --release --bin corecast
	cargo build --release -p corecast-benches
	target/release/corecast-bench gateway $(ARGS)

# Kill, pause and cut off parts of a cluster while clients talk; see benches/src/chaos/README.md.
chaos:
	scripts/install cluster
	cargo build --release --bin corecast
	cargo build --release -p corecast-benches
	CORECAST_BIN=target/release/corecast target/release/corecast-bench chaos $(ARGS)

web:
	scripts/install build
	scripts/web build

fmt:
	cargo fmt --all

# The data folder stays.
clean:
	scripts/cluster down
	cargo clean
	rm -rf web/dist web/node_modules
