# Lanes for the machines that are not at hand: they need qemu-user and, to check
# the instructions written as words, binutils-aarch64-linux-gnu.
CROSS_PACKAGES ?= ./topk/... ./internal/...

# The suite on arm64, with the NEON tier and the pure one.
.PHONY: test-arm64
test-arm64:
	AIKF_TEST_REQUIRE=neon GOARCH=arm64 go test -timeout 20m -exec qemu-aarch64 $(CROSS_PACKAGES)

# The suite on s390x, which is big-endian.
.PHONY: test-s390x
test-s390x:
	GOARCH=s390x go test -timeout 20m -exec qemu-s390x $(CROSS_PACKAGES)

VETTED := linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64 windows-arm64 linux-s390x

# Build and vet everything for every platform.
.PHONY: vet-all $(VETTED:%=vet-%)
vet-all: $(VETTED:%=vet-%)

$(VETTED:%=vet-%): export CGO_ENABLED = 0
$(VETTED:%=vet-%): export GOOS = $(word 2,$(subst -, ,$@))
$(VETTED:%=vet-%): export GOARCH = $(word 3,$(subst -, ,$@))
$(VETTED:%=vet-%):
	go build ./...
	go vet ./...
