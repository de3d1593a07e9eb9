#include "operators/operator.h"
#include "training/internal.h"

/* The engine's normals (kernels.h, philox_normal), in the order of the array. */
void draw_normals(const struct training *training, uint32_t stream, uint64_t draw, float *values,
                  int64_t count)
{
    uint64_t seed = training->settings.seed;
    int32_t counter[4] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32), (int32_t)stream,
                          (int32_t)(uint32_t)draw};
    struct tensor input = {counter, TYPE_I32, {1, 1, 1, 4}};
    struct tensor outputs[2] = {{values, TYPE_F32, {1, 1, 1, count}}, input};
    struct kernel_call call = {.input = &input, .output = outputs, .threads = 1};
    kernels_plain_f32()->kernel[KERNEL_philox_normal].run(&call);
}
