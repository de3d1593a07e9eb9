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
LDLIBS := -lpng -ljpeg -lyaml -lcjson -lz -lm -ldl

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

LIBRARY_SOURCES := $(wildcard kernels/*.c runtime/*.c model/*.c operators/*.c solvers/*.c training/*.c)
LIBRARY_OBJECTS := $(LIBRARY_SOURCES:%.c=$(BUILD)/%.o)
CPU_SOURCES := $(wildcard kernels/cpu/*.c)
CPU_OBJECTS := $(foreach isa,$(ISAS),$(CPU_SOURCES:%.c=$(BUILD)/%.$(isa).o))
WIDE_OBJECTS := $(if $(filter x86_64,$(MACHINE)),$(CPU_SOURCES:%.c=$(BUILD)/%.wide.o))
PLAIN_SOURCES := $(wildcard kernels/plain/*.c)
PLAIN_OBJECTS := $(PLAIN_SOURCES:%.c=$(BUILD)/%.f32.o) $(PLAIN_SOURCES:%.c=$(BUILD)/%.f64.o)
LIBRARY := $(LIBRARY_OBJECTS) $(CPU_OBJECTS) $(PLAIN_OBJECTS)

# The SIMT emulator (tests/simt) builds .cu files with the host's C++ compiler. Instead of libtsan, its own
# functions stand behind -fsanitize=thread; under ASan the kernels run without being watched. Variables
# stay whole (no scalar replacement), so that a float4 is one access as on a card, and no load moves
# out of its branch or is duplicated into two.
CXXFLAGS += -std=c++17 $(WARNINGS) $(OPTIMIZE) -ffp-contract=off
SIMT_FLAGS := -O1 -fno-exceptions -fno-tree-sra -fno-hoist-adjacent-loads -fno-thread-jumps \
              -fno-extern-tls-init -include tests/simt/simt.h \
              $(if $(SANITIZE),,-fsanitize=thread -fsanitize=bounds)
SIMT_OBJECTS := $(if $(filter x86_64,$(MACHINE)),$(patsubst %.cpp,$(BUILD)/%.o,$(wildcard tests/simt/*.cpp)) \
                  $(BUILD)/tests/simt/fibre.o)
SIMT_KERNELS := $(wildcard tests/simt/kernels/*.cu)
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu runtime/cuda/*.cu)
# The same without watching, several times faster: what whole solves on the emulator are made of.
UNWATCHED_FLAGS := $(filter-out -fsanitize=thread -fsanitize=bounds,$(SIMT_FLAGS)) -O2
UNWATCHED_OBJECTS := $(if $(filter x86_64,$(MACHINE)), \
                       $(patsubst %.cpp,$(BUILD)/%.unwatched.o,$(wildcard tests/simt/*.cpp)) \
                       $(BUILD)/tests/simt/fibre.o $(CUDA_SOURCES:%.cu=$(BUILD)/%.unwatched.o) \
                       $(BUILD)/kernels/cuda/table.o)
# The tests' own cuDNN and cuBLAS, which the emulated backend opens at run time and which call back into
# the emulator; the real headers, where they are, see whether our declarations are theirs.
FAKE_LIBRARIES := $(if $(SIMT_OBJECTS),$(BUILD)/tests/libcudnn.so $(BUILD)/tests/libcublas.so)
EXPORTS := -Wl,--export-dynamic-symbol=simt_enqueue -Wl,--export-dynamic-symbol=simt_count_allocation
# .cu files as the emulator runs them, and by the real compiler, to see that it takes them
emulated = $(if $(filter x86_64,$(MACHINE)),$(SIMT_OBJECTS) $(1:%.cu=$(BUILD)/%.simt.o))
NVCC ?= $(shell command -v nvcc)
CUDNN := $(firstword $(wildcard $(addsuffix /cudnn.h,$(dir $(NVCC))../include /usr/include /usr/include/$(MACHINE)-linux-gnu)))
compiled = $(if $(NVCC),$(if $(SANITIZE),,$(1:%.cu=$(BUILD)/%.nvcc.o)))

TOOL_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/*.c))
TEST_SUPPORT := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
# those that count what the emulated CUDA kernels do
EMULATED_BENCHES := $(BUILD)/bench/roofline $(BUILD)/bench/traffic
BENCHES := $(filter-out $(if $(SIMT_OBJECTS),,$(EMULATED_BENCHES)),$(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c)))

.PHONY: all benches cuda dicom card-tests gpu-check test asan bench help clean tests format cuda-report
.DEFAULT_GOAL := all
all: $(BUILD)/resample
	@echo "built $<: cpu backend ($(ISAS)), $(MACHINE), $(shell $(CC) -dumpversion) $(CC)$(if $(SANITIZE), with ASan and UBSan); cuda backend: $(if $(wildcard $(BUILD)/libresample-cuda.so),$(BUILD)/libresample-cuda.so,make cuda)"

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
$(BUILD)/tests/test_bench: $(patsubst %.c,$(BUILD)/%.o,$(wildcard bench/shared/*.c))
STAGES := $(ISAS:%=$(BUILD)/bench/stages/winograd.%.o)
$(STAGES): $(BUILD)/bench/stages/winograd.%.o: bench/stages/winograd.c
	@mkdir -p $(@D) && echo "  CC  $@"
	$(QUIET)$(CC) $(CPPFLAGS) $(CFLAGS) $(KERNEL_OPTIMIZE) $(FLAGS_$*) -DISA=stages_$* -DISA_$* -MMD -MP -c $< -o $@
$(BUILD)/bench/kernels: $(STAGES)
BENCH_SHARED := $(patsubst %.c,$(BUILD)/%.o,$(wildcard bench/shared/*.c))
$(EMULATED_BENCHES): %: %.o $(BENCH_SHARED) $(BUILD)/kernels/cuda/table.o $(call emulated,$(CUDA_SOURCES)) $(LIBRARY)
	$(QUIET)$(CXX) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(BENCH_SHARED) $(LIBRARY)
	$(QUIET)$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D) && echo "  CXX $@"
	$(QUIET)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/%.o: %.S
	@mkdir -p $(@D) && echo "  AS  $@"
	$(QUIET)$(CC) -c $< -o $@
$(BUILD)/%.simt.o: %.cu
	@mkdir -p $(@D) && echo "  CXX $@"
	$(QUIET)$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(SIMT_FLAGS) -MMD -MP -x c++ -c $< -o $@
$(BUILD)/%.unwatched.o: %.cpp
	@mkdir -p $(@D) && echo "  CXX $@"
	$(QUIET)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -O2 -DSIMT_WITHOUT_WATCH -MMD -MP -c $< -o $@
$(BUILD)/%.unwatched.o: %.cu
	@mkdir -p $(@D) && echo "  CXX $@"
	$(QUIET)$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(UNWATCHED_FLAGS) -DSIMT_WITHOUT_WATCH -MMD -MP -x c++ -c $< -o $@
$(BUILD)/%.nvcc.o: %.cu
	@mkdir -p $(@D) && echo "  NVCC $@"
	$(QUIET)$(NVCC) -std=c++17 -arch=sm_80 -Xcompiler -fPIC -Werror all-warnings -I. -MMD -MP -c $< -o $@
$(BUILD)/tests/test_simt.o: CPPFLAGS += $(if $(call compiled,$(SIMT_KERNELS)),-DNVCC_BUILDS)
$(BUILD)/tests/test_simt: $(BUILD)/tests/test_simt.o $(call emulated,$(SIMT_KERNELS)) | $(call compiled,$(SIMT_KERNELS))
	$(QUIET)$(CXX) $(LDFLAGS) $^ -lcmocka -o $@
CUDA_SOLVE := $(BUILD)/tests/test_cuda_solve
CUDA_COMPILED := $(call compiled,$(CUDA_SOURCES))
CUDA_TESTS := $(filter-out $(CUDA_SOLVE),$(filter $(BUILD)/tests/test_cuda_%,$(TESTS)))
$(CUDA_TESTS): %: %.o $(TEST_SUPPORT) $(BUILD)/kernels/cuda/table.o \
                           $(call emulated,$(CUDA_SOURCES)) $(LIBRARY) | $(call compiled,$(CUDA_SOURCES)) $(FAKE_LIBRARIES)
	$(QUIET)$(CXX) $(LDFLAGS) $(EXPORTS) $^ $(LDLIBS) -lcmocka -o $@
# the program with the emulated backend linked in, and the backend's library for one architecture
$(CUDA_SOLVE): %: %.o $(TEST_SUPPORT) $(UNWATCHED_OBJECTS) $(LIBRARY) | \
               $(BUILD)/tests/resample-emulated $(if $(CUDA_COMPILED),$(BUILD)/tests/libresample-cuda.so) $(FAKE_LIBRARIES)
	$(QUIET)$(CXX) $(LDFLAGS) $(EXPORTS) $(filter %.o,$^) $(LDLIBS) -lcmocka -o $@
$(if $(UNWATCHED_OBJECTS),$(BUILD)/tests/test_card_memory: | $(BUILD)/tests/resample-emulated)
$(if $(UNWATCHED_OBJECTS),$(BUILD)/tests/test_card_convolutions: | $(BUILD)/tests/convolutions-emulated)
$(FAKE_LIBRARIES): $(BUILD)/tests/lib%.so: $(BUILD)/tests/simt/libraries/%.o
	$(QUIET)$(CXX) $(LDFLAGS) -shared $^ -o $@
$(BUILD)/tests/simt/libraries/%.o: CXXFLAGS += -fPIC
$(BUILD)/tests/library_headers.o: CPPFLAGS += -I$(dir $(NVCC))../include
$(BUILD)/tests/test_cuda_libraries: | $(if $(CUDNN),$(BUILD)/tests/library_headers.o)
$(BUILD)/tests/resample-emulated: $(TOOL_OBJECTS) $(UNWATCHED_OBJECTS) $(LIBRARY)
	@mkdir -p $(@D)
	$(QUIET)$(CXX) $(LDFLAGS) $(EXPORTS) $^ $(LDLIBS) -o $@
$(BUILD)/tests/libresample-cuda.so: $(CUDA_COMPILED) $(BUILD)/kernels/cuda/table.pic.o
	@mkdir -p $(@D)
	$(QUIET)$(NVCC) -shared $^ -o $@

# The CUDA backend, which `resample` opens at run time.
CUDA_ARCHITECTURES ?= 80 86 89 90 100 120
CUDA_TARGETS := $(foreach a,$(CUDA_ARCHITECTURES),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
                -gencode arch=compute_$(lastword $(CUDA_ARCHITECTURES))$(comma)code=compute_$(lastword $(CUDA_ARCHITECTURES))
cuda: $(BUILD)/libresample-cuda.so
$(BUILD)/libresample-cuda.so: $(CUDA_SOURCES:%.cu=$(BUILD)/%.cuda.o) $(BUILD)/kernels/cuda/table.pic.o
	$(QUIET)$(NVCC) -shared $^ -o $@
	@echo "built $@ for sm_$(CUDA_ARCHITECTURES)"
$(BUILD)/%.cuda.o: %.cu
	@mkdir -p $(@D) && echo "  NVCC $@"
	$(QUIET)$(NVCC) -std=c++17 $(CUDA_TARGETS) -Xcompiler -fPIC -Werror all-warnings -I. -MMD -MP -c $< -o $@
$(BUILD)/%.pic.o: %.c
	@mkdir -p $(@D) && echo "  CC  $@"
	$(QUIET)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -MMD -MP -c $< -o $@
# The reader of DICOM for trainings, which `resample` opens at run time; GDCM does the work.
GDCM_INCLUDE := $(lastword $(sort $(wildcard /usr/include/gdcm-*)))
dicom: $(BUILD)/libresample-dicom.so
$(BUILD)/libresample-dicom.so: training/dicom_gdcm.cpp training/dicom.h
	@mkdir -p $(@D) && echo "  CXX $@"
	$(QUIET)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -isystem $(or $(GDCM_INCLUDE),$(error `make dicom` needs GDCM: apt-get install libgdcm-dev)) \
	    $(LDFLAGS) -fPIC -shared $< -lgdcmMSFF -lgdcmDSED -lgdcmDICT -lgdcmCommon -o $@
$(BUILD)/tests/test_dicom: | $(BUILD)/libresample-dicom.so
# The same tests on a real card, whose run-time takes the emulator's place.
CARD_TESTS := $(patsubst $(BUILD)/tests/%,$(BUILD)/card/%,$(CUDA_TESTS) $(CUDA_SOLVE))
card-tests: $(CARD_TESTS) $(BUILD)/card/convolutions
$(CARD_TESTS): $(BUILD)/card/%: $(BUILD)/tests/%.o $(TEST_SUPPORT) $(CUDA_SOURCES:%.cu=$(BUILD)/%.cuda.o) \
               $(BUILD)/tests/simt/card.cuda.o $(BUILD)/kernels/cuda/table.o $(LIBRARY)
	@mkdir -p $(@D)
	$(QUIET)$(NVCC) -Xcompiler -fopenmp $^ $(LDLIBS) -lcmocka -o $@
# Times every convolution on a card, beside cuDNN where it is installed; and on the emulator, for the tests.
CUDNN_LIBRARIES := $(dir $(NVCC))../lib
$(BUILD)/bench/card/cudnn.o: CPPFLAGS += -I$(dir $(NVCC))../include
$(BUILD)/card/convolutions: $(BUILD)/bench/card/convolutions.o $(if $(CUDNN),$(BUILD)/bench/card/cudnn.o) $(BENCH_SHARED) \
                            $(CUDA_SOURCES:%.cu=$(BUILD)/%.cuda.o) $(BUILD)/kernels/cuda/table.o $(LIBRARY)
	@mkdir -p $(@D)
	$(QUIET)$(NVCC) -Xcompiler -fopenmp $^ $(LDLIBS) \
	    $(if $(CUDNN),-L$(CUDNN_LIBRARIES) -Xlinker -rpath$(comma)$(CUDNN_LIBRARIES) -lcudnn) -o $@
$(BUILD)/tests/convolutions-emulated: $(BUILD)/bench/card/convolutions.o $(BENCH_SHARED) $(UNWATCHED_OBJECTS) $(LIBRARY)
	$(QUIET)$(CXX) $(LDFLAGS) $^ $(LDLIBS) -o $@
gpu-check:
	sh tools/gpu_check.sh
# registers, shared memory and spills of every CUDA kernel on every architecture; fails where one spills
cuda-report:
	$(QUIET)sh tests/check_cuda_code.sh -v

tests: all $(TESTS)
test:
	sh tools/test.sh
asan:
	sh tools/test.sh --asan
# as much of the benches as this machine can build
benches: $(BENCHES) $(if $(CUDNN),$(BUILD)/bench/card/cudnn.o) $(if $(UNWATCHED_OBJECTS),$(BUILD)/tests/convolutions-emulated)
bench: all $(BENCHES)
	sh bench/run.sh
format:
	clang-format -i $(shell git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh')
clean:
	rm -rf build
help:
	@echo "make          build build/resample for this machine"
	@echo "make test     build and run every test (tools/test.sh)"
	@echo "make asan     the same suite under ASan and UBSan"
	@echo "make bench    speed and memory against PyTorch (bench/run.sh; installs PyTorch in a venv)"
	@echo "make cuda     the CUDA backend, build/libresample-cuda.so (needs nvcc; CUDA_ARCHITECTURES='80 90' for fewer)"
	@echo "make dicom    the reader of DICOM for trainings, build/libresample-dicom.so (needs libgdcm-dev)"
	@echo "make gpu-check    on a machine with a card: every CUDA test on it, a solve beside the CPU's, times and memory"
	@echo "make cuda-report   registers, shared memory and spills of the CUDA kernels (needs nvcc)"
	@echo "make format   clang-format the sources"
	@echo "make clean    remove build/"
	@echo "V=1 shows the commands; CC=clang and BUILD=DIR are yours to set"

.PRECIOUS: $(BUILD)/%.o $(BUILD)/%.simt.o $(BUILD)/%.nvcc.o $(BUILD)/kernels/cpu/%.wide.o
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
