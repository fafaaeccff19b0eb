# The lanes of the project. .ci/run calls them in order; each works by itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

FUZZTIME ?= 30s
VERIFYTIME ?= 10s
# go test flags of the lanes that run under an emulator, which is slow. A peer
# is a program of the other architecture, which only -exec knows how to start, and
# what the system's C compiler makes is of this one.
CROSS_FLAGS ?= -short -timeout 20m -skip '^(TestPeer|TestLoad$$)'
CROSS_PACKAGES ?= ./topk/... ./sampling/... ./internal/...

PYTHON_ENV := .build/python
PYTHON_READY := $(PYTHON_ENV)/ready

.PHONY: help
help:
	@echo 'Lanes:' $$(sed -n 's/^.PHONY: \([a-z0-9-]*\).*/\1/p' Makefile)

.PHONY: test
test:
	go test ./...

# The race detector needs a C compiler. It does not see into the kernels that
# package shim tests.
.PHONY: race
race:
	CGO_ENABLED=1 go test -short -race $$(go list ./... | grep -v /kernels/shim$$)

.PHONY: vet
vet:
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l)
	[ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	cd _asm && go vet ./...

# Build and vet for every platform that is supported, and a big-endian one.
PLATFORMS := linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64 windows-arm64 linux-s390x

.PHONY: vet-all $(PLATFORMS:%=vet-%)
vet-all: $(PLATFORMS:%=vet-%)

$(PLATFORMS:%=vet-%): export CGO_ENABLED = 0
$(PLATFORMS:%=vet-%): export GOOS = $(word 2,$(subst -, ,$@))
$(PLATFORMS:%=vet-%): export GOARCH = $(word 3,$(subst -, ,$@))
$(PLATFORMS:%=vet-%):
	go build ./...
	go vet ./...

# Assembly for amd64: each folder of _asm writes the one of the same name in
# internal/cpu/simd.
GENERATED := $(patsubst _asm/%/main.go,%,$(wildcard _asm/*/main.go))

.PHONY: generate $(GENERATED:%=generate-%)
generate: $(GENERATED:%=generate-%)

$(GENERATED:%=generate-%): generate-%:
	cd _asm
	to=../internal/cpu/simd/$*
	go run ./$* -out $$to/impl_amd64.s -stubs $$to/stubs.go -pkg $*

.PHONY: generate-check
generate-check: generate
	git diff --exit-code -- internal/cpu/simd

# The kernels for GPUs, compiled by a pinned NVRTC, which needs no GPU. Python's
# pip brings it; nothing of its package is used but the library.
NVRTC := .build/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12

.PHONY: nvrtc
nvrtc: $(NVRTC)

$(NVRTC): cuda/kernels/build/requirements.txt
	python3 -m pip --disable-pip-version-check install --quiet --no-deps --upgrade \
		--root-user-action ignore --only-binary :all: --require-hashes -r $< --target .build/nvrtc
	touch $@

.PHONY: kernels
kernels: nvrtc
	go run ./cuda/kernels/build -nvrtc $(NVRTC)

.PHONY: kernels-check
kernels-check: nvrtc
	go run ./cuda/kernels/build -nvrtc $(NVRTC) -check

# A second opinion on the kernels' sources: another compiler, all warnings on but that it could not unroll
# a loop, since nobody runs its code.
CLANG ?= clang-19

.PHONY: kernels-clang
kernels-clang:
	@for source in cuda/kernels/*.cu; do
		for target in sm_80 sm_90; do
			echo "$(CLANG), $$target: $$source"
			$(CLANG) -x cuda --cuda-device-only --cuda-gpu-arch=$$target -Xclang -target-feature -Xclang +ptx80 \
				-nocudainc -nocudalib -include cuda/kernels/build/clang.h -std=c++17 -ffp-contract=off -O2 \
				-Wall -Wextra -Wno-unused-parameter -Wno-pass-failed -Werror -S -o /dev/null $$source
		done
	done

# The kernels on random batches, on the CPU, under the address and the
# undefined-behaviour sanitizer, with arrays of exactly the bytes that count.
SANITIZETIME ?= 30

.PHONY: shim-sanitize
shim-sanitize:
	@mkdir -p .build
	$(CXX) -std=c++17 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=off \
		-Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-variable -DAIKF_SHIM -Icuda/kernels -o .build/shim-sanitize \
		-x c++ cuda/kernels/*.cu cuda/kernels/shim/fibers/fibers.cc cuda/kernels/shim/sanitize/sanitize.cc
	ASAN_OPTIONS=detect_leaks=0 .build/shim-sanitize $(SANITIZETIME)

# The PyTorch package: a wheel with the kernels inside, in dist/, for any Python from
# 3.10 on. Its version is that of the newest tag.
.PHONY: wheel
wheel: $(PYTHON_READY)
	@rm -rf dist python/build
	$(PYTHON_ENV)/bin/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist ./python
	ls -l dist

# An environment with torch and without a GPU: torch is PyPI's, and of the libraries
# of CUDA that it brings, the large ones have stand-ins.
.PHONY: python-deps
python-deps: $(PYTHON_READY)

$(PYTHON_READY): python/requirements.txt python/requirements-torch.txt python/standins.py
	rm -rf $(PYTHON_ENV)
	python3 -m venv $(PYTHON_ENV)
	export PIP_DISABLE_PIP_VERSION_CHECK=1
	$(PYTHON_ENV)/bin/pip install --quiet --only-binary :all: -r python/requirements.txt
	$(PYTHON_ENV)/bin/pip install --quiet --only-binary :all: --no-deps --no-cache-dir -r python/requirements-torch.txt
	$(PYTHON_ENV)/bin/python python/standins.py
	touch $@

# A driver over host memory, which the tests of launches load.
FAKE_DRIVER := .build/fakedriver.so
FAKE_DRIVER_SOURCES := $(wildcard cuda/kernels/*.cu) cuda/kernels/shim/fibers/fibers.cc \
	$(addprefix cuda/internal/fakedriver/library/,driver.cc standin.cc busy.cc)

.PHONY: python-fakedriver
python-fakedriver: $(FAKE_DRIVER)

$(FAKE_DRIVER): $(FAKE_DRIVER_SOURCES) $(wildcard cuda/kernels/*.cuh cuda/kernels/*.h cuda/kernels/shim/*.h cuda/kernels/shim/fibers/*.h)
	@mkdir -p .build
	$(CXX) -std=c++17 -O2 -fPIC -shared -pthread -DAIKF_SHIM -ffp-contract=off -fno-strict-aliasing -Wno-unknown-pragmas \
		-Icuda/kernels -o $@ -x c++ $(FAKE_DRIVER_SOURCES)

# The wheel, installed where torch is, and its tests, which need no GPU; those that
# do say so.
PYTEST_FLAGS ?=

.PHONY: test-python
test-python: wheel $(FAKE_DRIVER)
	$(PYTHON_ENV)/bin/pip install --quiet --force-reinstall --no-deps dist/*.whl
	cd python
	AIKF_TEST_REQUIRE=fakecuda,wheel,golden,readelf ../$(PYTHON_ENV)/bin/python -m pytest -q $(PYTEST_FLAGS)

# On a machine with a GPU, where PYTHON has torch: bin/python holds the package and
# pytest, for any Python from 3.11 on, so that nothing is installed there.
PYTHON ?= python3
PYTHON_RECORD ?= bin/python-bench.json
GO_RECORD ?= bin/cuda-python-bench.json

.PHONY: gpu-python
gpu-python: wheel
	rm -rf bin/python
	$(PYTHON_ENV)/bin/pip install --quiet --target bin/python $$(sed -n '/^pytest==/p' python/requirements.txt) dist/*.whl

.PHONY: test-python-gpu
test-python-gpu:
	cd python
	AIKF_TEST_REQUIRE=cuda PYTHONPATH=../bin/python $(PYTHON) -m pytest -q $(PYTEST_FLAGS)

.PHONY: bench-python-gpu
bench-python-gpu:
	[ ! -x bin/aikf ] || PYTHONPATH=bin/python AIKF_PYTHON=$(PYTHON) \
		bin/aikf bench --device cuda --mode graph --cache warm --against python:aikf:topk --out $(GO_RECORD)
	[ ! -e $(GO_RECORD) ] || compare="--go $(GO_RECORD)"
	PYTHONPATH=bin/python $(PYTHON) python/bench/bars.py $${compare-} --out $(PYTHON_RECORD)

.PHONY: sanitize-python-gpu
sanitize-python-gpu:
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH=bin/python $(COMPUTE_SANITIZER) --tool memcheck --error-exitcode 1 \
		$(PYTHON) -m pytest -q python/tests/test_cuda.py -k 'plan or strides'

# Every native fuzz target, one after the other.
.PHONY: fuzz
fuzz:
	@targets=$$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { while (n) print $$2, names[n--] }')
	while read -r package target; do
		echo "$$target of $$package, $(FUZZTIME)"
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package"
	done <<< "$$targets"

# The suite on arm64, with the NEON tier and the pure one. What imports package
# cuda is linked with the C library there, to load a driver.
ARM64_ROOT ?= /usr/aarch64-linux-gnu

.PHONY: test-arm64
test-arm64:
	AIKF_TEST_REQUIRE=neon GOARCH=arm64 go test $(CROSS_FLAGS) -exec 'qemu-aarch64 -L $(ARM64_ROOT)' $(CROSS_PACKAGES)

# The suite on s390x, which is big-endian.
.PHONY: test-s390x
test-s390x:
	AIKF_TEST_REQUIRE= GOARCH=s390x go test $(CROSS_FLAGS) -exec qemu-s390x $(CROSS_PACKAGES)

# Some commands take a GPU where there is one; these lanes mean the CPU.
.PHONY: bench-short
bench-short:
	go run ./cmd/aikf bench --device cpu --iters 3

.PHONY: verify-short
verify-short:
	go run ./cmd/aikf verify --device cpu --duration $(VERIFYTIME)

# Every figure that has a bar; it wants a machine that is idle.
.PHONY: acceptance
acceptance:
	go run ./cmd/aikf bench --acceptance --device cpu

# New records of this machine, in results/, and the Markdown that shows them.
# The markers in README.md name the records.
MACHINE ?= $(shell sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9\n' - | tr A-Z a-z)
RECORD ?= $(shell date +%F)-$(MACHINE)
TUNETIME ?= 3m

.PHONY: results
results:
	go build -buildvcs=false -o bin/aikf ./cmd/aikf
	bin/aikf bench --device cpu --format json > results/$(RECORD)-bench.json
	bin/aikf bench --acceptance --device cpu --against torch,numpy --format json > results/$(RECORD)-acceptance.json || [ $$? = 1 ] # a bar that is missed is a result
	bin/aikf profile --device cpu --batch 1,32 --top-k 50,1024 --format json > results/$(RECORD)-cpu-profile.json
	rm -f results/$(RECORD)-plans.json
	bin/aikf tune --device cpu --budget $(TUNETIME) --out results/$(RECORD)-plans.json
	$(MAKE) docs

# The lanes that need a GPU; .ci/run leaves them out. What they measure or compare
# is DEVICE, cuda or cuda:N; the tests take the first device.
DEVICE ?= cuda
GPU_TEST_FLAGS ?= -timeout 60m
VERIFYROWS ?= 100000000
VERIFYSAMPLED ?= 1000000
VERIFYDRAWS ?= 200000000

.PHONY: test-gpu
test-gpu:
	AIKF_TEST_REQUIRE=cuda go test -count=1 -run '^TestGPU' $(GPU_TEST_FLAGS) ./cuda

# What test-gpu and the commands below are, for a machine without Go and without a
# checkout: carry bin/ there. Built from a clone, aikf knows its commit.
.PHONY: gpu-binaries
gpu-binaries: export CGO_ENABLED = 0
gpu-binaries:
	go build -buildvcs=auto -o bin/aikf ./cmd/aikf
	go test -c -o bin/cuda.test ./cuda
	mkdir -p bin/testdata
	cp cuda/testdata/launch_loop.c bin/testdata

# Kernels under the tools of a CUDA toolkit: memory that is not theirs,
# hazards in shared memory, barriers that not all threads reach. The tools are
# slow: each sees SANITIZEROWS rows of selections, and SANITIZESAMPLED of samplings.
COMPUTE_SANITIZER ?= compute-sanitizer
SANITIZERS ?= memcheck racecheck synccheck
SANITIZEROWS ?= 50000
SANITIZESAMPLED ?= 20000

.PHONY: sanitize-gpu
sanitize-gpu: gpu-binaries
	@for tool in $(SANITIZERS); do
		echo "$(COMPUTE_SANITIZER), $$tool"
		$(COMPUTE_SANITIZER) --tool $$tool --report-api-errors no --error-exitcode 1 \
			bin/aikf verify --device $(DEVICE) --seed 1 --rows $(SANITIZEROWS)
		$(COMPUTE_SANITIZER) --tool $$tool --report-api-errors no --error-exitcode 1 \
			bin/aikf verify --device $(DEVICE) --work sample --seed 1 --rows $(SANITIZESAMPLED)
	done

.PHONY: acceptance-gpu
acceptance-gpu:
	go run ./cmd/aikf bench --acceptance --device $(DEVICE) --against torch

# New records of this machine's GPU, named by the card.
GPU_NAME ?= $(shell nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr -cs 'A-Za-z0-9\n' - | tr A-Z a-z)
GPU_RECORD ?= $(shell date +%F)-$(GPU_NAME)

.PHONY: results-gpu
results-gpu:
	go build -buildvcs=false -o bin/aikf ./cmd/aikf
	bin/aikf info --device $(DEVICE)
	bin/aikf bench --device $(DEVICE) --against torch --out results/$(GPU_RECORD)-cuda-bench.json
	bin/aikf bench --acceptance --device $(DEVICE) --against torch --out results/$(GPU_RECORD)-cuda-acceptance.json || [ $$? = 1 ] # as above
	bin/aikf profile --device $(DEVICE) --format json > results/$(GPU_RECORD)-cuda-profile.json
	bin/aikf profile --device $(DEVICE) --work sample --batch 1,32 --top-k 50,1024 --format json > results/$(GPU_RECORD)-cuda-sample-profile.json
	rm -f results/$(GPU_RECORD)-cuda-plans.json
	bin/aikf tune --device $(DEVICE) --budget $(TUNETIME) --out results/$(GPU_RECORD)-cuda-plans.json
	bin/aikf bench --device $(DEVICE) --work sample --batch 1,32 --dtype bfloat16 --top-k 50 --against torch --out results/$(GPU_RECORD)-cuda-sample-bench.json
	bin/aikf verify --device $(DEVICE) --rows $(VERIFYROWS) --format json > results/$(GPU_RECORD)-cuda-verify.json
	bin/aikf verify --device $(DEVICE) --work sample --rows $(VERIFYSAMPLED) --format json > results/$(GPU_RECORD)-cuda-sample-verify.json
	bin/aikf verify --device $(DEVICE) --law $(VERIFYDRAWS) --format json > results/$(GPU_RECORD)-cuda-law-verify.json
	$(MAKE) docs

# What the Markdown shows of records and of programs, between its markers.
.PHONY: docs
docs:
	go run ./internal/report/readme

.PHONY: docs-check
docs-check:
	go run ./internal/report/readme -check

# The published report of this machine's processor: new records in results, the sweeps
# among them, then the report of all. It takes about a quarter of an hour, and wants a
# machine that is idle; each record says what disturbed it.
REPORT_AGAINST ?= torch,numpy,onnxruntime

.PHONY: report-cpu
report-cpu:
	go build -buildvcs=false -o bin/aikf ./cmd/aikf
	bin/aikf bench --self-test --quiet
	$(MAKE) results
	bin/aikf bench --device cpu --sweep rows,vocab,k,grid --iters 60 --against $(REPORT_AGAINST) --out results/$(RECORD)-sweep.json
	bin/aikf bench --device cpu --rows adversarial,peaked --batch 1 --top-k 50,200 --out results/$(RECORD)-rows.json
	bin/aikf bench --device cpu --work sample --batch 1 --out results/$(RECORD)-sample.json
	bin/aikf verify --device cpu --duration 30s --format json > results/$(RECORD)-verify.json
	$(MAKE) docs report report-pictures

# The same of its GPU: about eight minutes.
.PHONY: report-gpu
report-gpu:
	$(MAKE) results-gpu
	bin/aikf bench --device $(DEVICE) --mode graph --cache warm --sweep rows,vocab,k,grid --against torch --out results/$(GPU_RECORD)-cuda-sweep.json
	bin/aikf bench --device $(DEVICE) --mode graph --cache warm --rows adversarial,peaked --batch 1 --top-k 50,200 --out results/$(GPU_RECORD)-cuda-rows.json
	$(MAKE) docs report

# The report of the records in results, and its pictures at three sizes, by a headless
# Chromium.
.PHONY: report
report:
	go run ./cmd/aikf report --out bin/report

.PHONY: report-pictures
report-pictures:
	mkdir -p docs/report
	AIKF_TEST_REQUIRE=chromium go test -count=1 -run '^TestPage$$' ./internal/report -screenshots "$$PWD/docs/report"

# The plotting library of the report page: the files that its authors released,
# as they came. The lock file pins them; page-vendor-check fails if they differ.
PAGE := internal/report/page

.PHONY: page-vendor
page-vendor:
	cd $(PAGE)
	npm ci --ignore-scripts
	cp node_modules/d3/dist/d3.min.js node_modules/@observablehq/plot/dist/plot.umd.min.js vendor
	cp node_modules/d3/LICENSE vendor/d3.LICENSE
	cp node_modules/@observablehq/plot/LICENSE vendor/plot.LICENSE
	rm -r node_modules

.PHONY: page-vendor-check
page-vendor-check: page-vendor
	git diff --exit-code -- $(PAGE)

# What the lanes need beside Go, git and make, by the names that Debian gives.
.PHONY: install-ci-deps
install-ci-deps:
	@missing=()
	command -v gcc > /dev/null || missing+=(gcc libc6-dev)
	command -v c++ > /dev/null || missing+=(g++)
	command -v qemu-aarch64 qemu-s390x > /dev/null || missing+=(qemu-user)
	command -v aarch64-linux-gnu-as > /dev/null || missing+=(binutils-aarch64-linux-gnu)
	[ -e $(ARM64_ROOT)/lib/ld-linux-aarch64.so.1 ] || missing+=(libc6-arm64-cross)
	command -v $(CLANG) > /dev/null || missing+=($(CLANG))
	command -v chromium > /dev/null || missing+=(chromium)
	python3 -m pip --version > /dev/null 2>&1 || missing+=(python3-pip)
	python3 -c 'import ensurepip, venv' > /dev/null 2>&1 || missing+=(python3-venv)
	[ -e "$$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
	if (($${#missing[@]})); then
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo
		$$sudo apt-get update -q
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$${missing[@]}"
	fi
