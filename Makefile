# Tandem: `make help` lists the targets. `make demo` and `make test` each do their own set-up.
SHELL := /bin/bash
BUILD := build
COMMANDS := tandemd tandem tandem-bench
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/tandem-relay/tandem/cmd/internal/version.Version=$(VERSION)
DEMO_FLAGS ?=
TEST_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test test-long fuzz lint check generate bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the commands into ./build
	@scripts/setup.sh build
	@mkdir -p $(BUILD)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ $(COMMANDS:%=./cmd/%)

demo: build ## a real call through XDP in network namespaces; DEMO_FLAGS="--seconds 5 --calls 100"
	@$(BUILD)/tandem demo $(DEMO_FLAGS)

test: ## set up what is missing, then unit, program, lab and end-to-end tests
	@scripts/setup.sh test
	@scripts/test.sh short $(TEST_FLAGS)

test-long: ## test, then the race detector, longer fuzzing and the longer proofs
	@scripts/setup.sh test-long
	@scripts/test.sh long $(TEST_FLAGS)

lint: ## vet, staticcheck, errcheck, errorlint, ineffassign and the import rules
	@scripts/setup.sh build
	@scripts/lint.sh

check: lint ## lint, and: the committed BPF objects are what the sources give (needs clang-19)
	@scripts/setup.sh generate
	@scripts/check-generated.sh

generate: ## compile the BPF programs and their Go (needs clang-19)
	@scripts/setup.sh generate
	go generate ./bpf/...

bench: build ## figures of this machine: the program per packet, and the demo with 100 calls on both data planes
	@scripts/bench.sh

clean: ## remove what was built
	rm -rf $(BUILD)
