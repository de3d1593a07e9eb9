/* See bench/stages/winograd.c. The call is the convolution's, whole runs of which have filled the
 * workspace. */
#ifndef BENCH_STAGES_WINOGRAD_H
#define BENCH_STAGES_WINOGRAD_H

#include "kernels/kernels.h"

enum winograd_stage { STAGE_TRANSPOSE, STAGE_INPUT, STAGE_PRODUCTS, STAGE_OUTPUT, STAGE_COUNT };

#define WINOGRAD_STAGE(isa)                                                                        \
    void winograd_stage_stages_##isa(const struct kernel_call *call, bool backward,                \
                                     enum winograd_stage stage);
WINOGRAD_STAGE(scalar)
WINOGRAD_STAGE(avx2)
WINOGRAD_STAGE(avx512)
#undef WINOGRAD_STAGE

#endif
