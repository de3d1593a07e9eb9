/* The stages of a Winograd convolution, each alone: the convolution's own code, called stage by
 * stage over the whole picture (bench/kernels.c). Compiled once per instruction set, with an ISA
 * name of its own, so that these are not the library's symbols. */
#include "kernels/cpu/winograd.c"

#include "bench/stages/winograd.h"

static void run_unit_stage(const struct winograd *g, enum winograd_stage stage, int64_t strip,
                           int64_t first, int64_t end, int64_t panel)
{
    if (stage == STAGE_PRODUCTS)
        multiply_unit(g, g->v + row_offset(first - strip, 0, g->channels),
                      ceil_divide(end - first, TILE_ROWS), panel);
    else
        store_unit(g, first, end, panel);
}

static void run_own_strip_stage(const struct winograd *g, enum winograd_stage stage, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    if (stage == STAGE_INPUT) {
        input_unit(g, strip, strip, end, 0, g->channels);
        return;
    }
    for (int64_t panel = 0; panel < g->panels; panel += UNIT_PANELS)
        run_unit_stage(g, stage, strip, strip, end, panel);
}

static void run_strip_stage(const struct winograd *g, enum winograd_stage stage, int64_t strip)
{
    int64_t end = least(g->tiles, strip + g->strip_tiles);
    if (stage == STAGE_INPUT) {
        transform_strip(g, strip);
        return;
    }
    int64_t blocks = ceil_divide(end - strip, g->unit_tiles);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < blocks * ceil_divide(g->panels, UNIT_PANELS); unit++) {
        int64_t first = strip + unit % blocks * g->unit_tiles;
        run_unit_stage(g, stage, strip, first, least(end, first + g->unit_tiles),
                       unit / blocks * UNIT_PANELS);
    }
}

void ISA_NAME(winograd_stage)(const struct kernel_call *call, bool backward,
                              enum winograd_stage stage)
{
    struct winograd g;
    open_work(&g, call, backward);
#pragma omp parallel num_threads(call->threads)
    {
        struct winograd own = g;
        own_work(&own, omp_get_thread_num());
        if (own.transposed_floats)
            use_transposed(&own, stage == STAGE_TRANSPOSE);
        if (own.own_strips) {
#pragma omp for schedule(dynamic)
            for (int64_t strip = 0; strip < own.tiles; strip += own.strip_tiles)
                if (stage != STAGE_TRANSPOSE)
                    run_own_strip_stage(&own, stage, strip);
        } else
            for (int64_t strip = 0; strip < own.tiles; strip += own.strip_tiles)
                if (stage != STAGE_TRANSPOSE)
                    run_strip_stage(&own, stage, strip);
    }
}
