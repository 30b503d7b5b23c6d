# SPDX-License-Identifier: Apache-2.0
# The front door. Everything is built by CMake and Ninja; these are only the commands worth remembering.
# `make demo` and `make test` need nothing before them: they install what is missing, build and run.

BUILD ?= build
CMAKE = cmake -S . -G Ninja

.DEFAULT_GOAL := build
.PHONY: deps build install demo test asan tsan fuzz bench parity format clean help

help:
	@echo "make deps     install what is missing (Debian 12) or name it (elsewhere)"
	@echo "make build    $(BUILD)/soma and the libraries (the default)"
	@echo "make install  the program, libsoma, headers and the Python binding to PREFIX (/usr/local)"
	@echo "make demo     record, train, serve, evaluate; leaves demo/report.html"
	@echo "make test     all tests; ends with 'N passed, N failed, N skipped'"
	@echo "make asan     the tests under address and undefined-behaviour sanitizers"
	@echo "make tsan     the tests under the thread sanitizer"
	@echo "make fuzz     every parser's fuzzer for SECONDS (30) seconds each"
	@echo "make bench    step rates and kernel rates of this machine"
	@echo "make parity   every golden in ../shared/golden: one table, an error and a tolerance per tensor"
	@echo "make format   clang-format over all sources"
	@echo "make clean    remove the build folders"

deps:
	@scripts/deps.sh

build: deps
	@$(CMAKE) -B $(BUILD) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@ninja -C $(BUILD)

install: build
	@cmake --install $(BUILD) --prefix $(or $(PREFIX),/usr/local)

demo: build
	@scripts/demo.sh $(BUILD)

# where clang and its fuzzer are, every parser is fuzzed for 20 s first; elsewhere the corpora are replayed, as tests
fuzzer := $(and $(shell command -v clang),$(wildcard /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a))
test: build
	@$(if $(fuzzer),$(MAKE) --no-print-directory fuzz SECONDS=20,echo "fuzz: left out, because clang's fuzzer is not here")
	@scripts/test.sh $(BUILD)

asan: deps
	@$(CMAKE) -B build-asan -DSOMA_ASAN=ON
	@ninja -C build-asan
	@scripts/test.sh build-asan

tsan: deps
	@$(CMAKE) -B build-tsan -DSOMA_TSAN=ON
	@ninja -C build-tsan
	@scripts/test.sh build-tsan

fuzz:
	@scripts/deps.sh fuzz
	@CC=clang CXX=clang++ $(CMAKE) -B build-fuzz -DSOMA_FUZZ=ON
	@ninja -C build-fuzz fuzzers
	@scripts/fuzz.sh build-fuzz $(or $(SECONDS),$(FUZZ_SECONDS),30)

bench: build
	@$(BUILD)/soma bench

parity: build
	@scripts/parity.sh $(BUILD)

format:
	@scripts/deps.sh format
	@git ls-files -co --exclude-standard '*.c' '*.h' '*.cc' | xargs clang-format -i

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz
