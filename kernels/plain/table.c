/* The table of the plain kernels. Weights stay as they are in the checkpoint. */
#include "kernels/plain/plain.h"

#define KERNEL(name, inputs, outputs)                                                              \
    __attribute__((weak)) void PLAIN(name)(const struct kernel_call *call);                        \
    __attribute__((weak)) size_t PLAIN(name##_workspace)(const struct kernel_call *call);
#include "kernels/kernels.def"
#undef KERNEL

static enum weight_form form(const struct conv2d_attributes *attributes, const int64_t x[4],
                             const int64_t y[4], bool backward)
{
    (void)attributes, (void)x, (void)y, (void)backward;
    return WEIGHT_PLAIN;
}

static size_t weight_bytes(enum weight_form weight_form, const int64_t shape[4])
{
    (void)weight_form;
    return (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof(real);
}

static void pack_weight(enum weight_form weight_form, const int64_t shape[4], const float *oihw,
                        void *packed, int threads)
{
    (void)weight_form, (void)threads;
    real *values = packed;
    for (int64_t i = 0; i < shape[0] * shape[1] * shape[2] * shape[3]; i++)
        values[i] = oihw[i];
}

static const struct kernels table = {
    .name = "plain",
    .kernel =
        {
#define KERNEL(name, inputs, outputs) {PLAIN(name), PLAIN(name##_workspace)},
#include "kernels/kernels.def"
#undef KERNEL
        },
    .conv2d_form = form,
    .weight_bytes = weight_bytes,
    .pack_weight = pack_weight,
};

#define TABLE_JOIN_(suffix) kernels_plain_##suffix
#define TABLE_JOIN(suffix)  TABLE_JOIN_(suffix)
const struct kernels *TABLE_JOIN(REAL_SUFFIX)(void)
{
    return &table;
}
