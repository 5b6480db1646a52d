# One command per task; what takes more than a line lies in scripts/.
#   make run ARGS="--data /var/lib/corecast"    flags of `corecast up`
#   make run PROFILE=dev                        a quicker build, a slower server

PROFILE ?= release
ARGS ?=

.PHONY: run test web fmt clean

run: web
	cargo run --profile $(PROFILE) --bin corecast -- up $(ARGS)

test:
	scripts/test

web:
	scripts/install build
	scripts/web build

fmt:
	cargo fmt --all

# The data folder stays.
clean:
	cargo clean
	rm -rf web/dist web/node_modules
