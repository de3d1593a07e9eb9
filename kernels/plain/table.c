/* The table of the plain kernels. Weights stay as they are in the checkpoint. */
#include "kernels/plain/plain.h"

#define KERNEL(name, inputs, outputs)                                                              \
    void PLAIN(name)(const struct kernel_call *call);                                              \
    size_t PLAIN(name##_workspace)(const struct kernel_call *call);
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

#define RUN(name)           [KERNEL_##name] = {PLAIN(name), NULL}
#define RUN_WORKSPACE(name) [KERNEL_##name] = {PLAIN(name), PLAIN(name##_workspace)}

static const struct kernels table = {
    .name = "plain",
    .kernel =
        {
            RUN(conv2d),
            RUN(conv2d_backward_data),
            RUN(conv2d_backward_weight),
            RUN(conv2d_pack_weight),
            RUN(group_norm),
            RUN(group_norm_backward),
            RUN(group_norm_backward_affine),
            RUN(group_norm_jvp),
            RUN_WORKSPACE(attention),
            RUN_WORKSPACE(attention_backward),
            RUN_WORKSPACE(attention_jvp),
            RUN(silu),
            RUN(silu_backward),
            RUN(leaky_relu),
            RUN(leaky_relu_backward),
            RUN(combine),
            RUN(combine_scaled),
            RUN(multiply),
            RUN(add_channel),
            RUN(sum_spatial),
            RUN(sum_pixels),
            RUN(concat_channels),
            RUN(slice_channels),
            RUN(pad_channels),
            RUN(timestep_embedding),
            RUN(vector_quantize),
            RUN(take_codes),
            RUN(take_codes_backward),
            RUN(mean_squared_error),
            RUN(mean_squared_error_backward),
            RUN(mean_absolute_error),
            RUN(mean_absolute_error_backward),
            RUN(l2_norm),
            RUN(l2_norm_backward),
            RUN(dot),
            RUN(adam_step),
            RUN(adamw_step),
            RUN(copy),
            RUN(reshape),
            RUN(cast),
            RUN(philox_normal),
            RUN(ddim_step),
            RUN(stochastic_resample),
            RUN(stop_rule),
            RUN(keep_best),
            RUN(search_direction),
            RUN(search_step),
            RUN(axis_filter),
            RUN(tap_filter),
            RUN_WORKSPACE(tap_filter_adjoint),
            RUN(radon),
            RUN_WORKSPACE(radon_adjoint),
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
