# resample.cu: `make` builds what this machine has and says so; `make help` lists the rest.
#
# BUILD=DIR puts the objects elsewhere; SANITIZE=1 builds with ASan and UBSan.

comma := ,
CC ?= gcc
QUIET := $(if $(V),,@)
BUILD ?= $(if $(SANITIZE),build/asan,build)
MACHINE := $(shell uname -m)

WARNINGS := -Wall -Wextra -Werror -Wno-psabi
OPTIMIZE := $(if $(SANITIZE),-O1 -g -fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer,-O2 -g)
CPPFLAGS += -I. -D_GNU_SOURCE
CFLAGS += -std=c11 $(WARNINGS) $(OPTIMIZE) -fopenmp -ffp-contract=off
LDFLAGS += -fopenmp $(if $(SANITIZE),-fsanitize=address$(comma)undefined)
LDLIBS := -lpng -ljpeg -lyaml -lcjson -lz -lm

# kernels/cpu is compiled once per instruction set, kernels/plain once per element type
ISAS := scalar $(if $(filter x86_64,$(MACHINE)),avx2 avx512)
FLAGS_scalar :=
FLAGS_avx2 := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c -mprefer-vector-width=512
# the 64-byte vectors of the AVX-512 build on AVX2 instructions, for tests on machines without it
FLAGS_wide := -mavx2 -mfma -mf16c
# the same under the sanitizers, so that rounding is the same too: which code wins a near tie in the
# quantiser is part of a result
KERNEL_OPTIMIZE := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math

LIBRARY_SOURCES := $(wildcard kernels/*.c runtime/*.c model/*.c operators/*.c solvers/*.c)
LIBRARY_OBJECTS := $(LIBRARY_SOURCES:%.c=$(BUILD)/%.o)
CPU_SOURCES := $(wildcard kernels/cpu/*.c)
CPU_OBJECTS := $(foreach isa,$(ISAS),$(CPU_SOURCES:%.c=$(BUILD)/%.$(isa).o))
WIDE_OBJECTS := $(if $(filter x86_64,$(MACHINE)),$(CPU_SOURCES:%.c=$(BUILD)/%.wide.o))
PLAIN_SOURCES := $(wildcard kernels/plain/*.c)
PLAIN_OBJECTS := $(PLAIN_SOURCES:%.c=$(BUILD)/%.f32.o) $(PLAIN_SOURCES:%.c=$(BUILD)/%.f64.o)
LIBRARY := $(LIBRARY_OBJECTS) $(CPU_OBJECTS) $(PLAIN_OBJECTS)

TOOL_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/*.c))
TEST_SUPPORT := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))

.PHONY: all test asan bench help clean tests format
.DEFAULT_GOAL := all
all: $(BUILD)/resample
	@echo "built $<: cpu backend ($(ISAS)), $(MACHINE), $(shell $(CC) -dumpversion) $(CC)$(if $(SANITIZE), with ASan and UBSan); cuda backend: not in this version"

$(BUILD)/resample: $(TOOL_OBJECTS) $(LIBRARY)
	$(QUIET)$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(BUILD)/%.o: %.c
	@mkdir -p $(@D) && echo "  CC  $@"
	$(QUIET)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

define isa_rule
$(BUILD)/kernels/cpu/%.$(1).o: kernels/cpu/%.c
	@mkdir -p $$(@D) && echo "  CC  $$@"
	$$(QUIET)$$(CC) $$(CPPFLAGS) $$(CFLAGS) $$(KERNEL_OPTIMIZE) $$(FLAGS_$(1)) -DISA=$(1) -DISA_$(1) -MMD -MP -c $$< -o $$@
endef
$(foreach isa,$(ISAS) wide,$(eval $(call isa_rule,$(isa))))
# its distances must round as the plain kernel's do
$(BUILD)/kernels/cpu/vector_quantize.%.o: KERNEL_OPTIMIZE += -ffp-contract=off

$(BUILD)/kernels/plain/%.f32.o: kernels/plain/%.c
	@mkdir -p $(@D) && echo "  CC  $@"
	$(QUIET)$(CC) $(CPPFLAGS) $(CFLAGS) -DREAL=float -DREAL_SUFFIX=f32 -MMD -MP -c $< -o $@
$(BUILD)/kernels/plain/%.f64.o: kernels/plain/%.c
	@mkdir -p $(@D) && echo "  CC  $@"
	$(QUIET)$(CC) $(CPPFLAGS) $(CFLAGS) -DREAL=double -DREAL_SUFFIX=f64 -MMD -MP -c $< -o $@

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_SUPPORT) $(WIDE_OBJECTS) $(LIBRARY)
	$(QUIET)$(CC) $(LDFLAGS) $^ $(LDLIBS) -lcmocka -o $@
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(LIBRARY)
	$(QUIET)$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

tests: all $(TESTS)
test:
	sh tools/test.sh
asan:
	sh tools/test.sh --asan
bench: all $(BENCHES)
	sh bench/run.sh
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')
clean:
	rm -rf build
help:
	@echo "make          build build/resample for this machine"
	@echo "make test     build and run every test (tools/test.sh)"
	@echo "make asan     the same suite under ASan and UBSan"
	@echo "make bench    speed and memory against PyTorch (bench/run.sh; installs PyTorch in a venv)"
	@echo "make format   clang-format the sources"
	@echo "make clean    remove build/"
	@echo "V=1 shows the commands; CC=clang and BUILD=DIR are yours to set"

.PRECIOUS: $(BUILD)/%.o $(BUILD)/kernels/cpu/%.wide.o
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
