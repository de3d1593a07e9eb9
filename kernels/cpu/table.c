/* The kernel table of one instruction set. */
#include "kernels/cpu/isa.h"

/* Kernels without a workspace, or without a fast version, leave a declaration unused. */
#define KERNEL(name, inputs, outputs)                                                              \
    void ISA_NAME(name)(const struct kernel_call *call);                                           \
    size_t ISA_NAME(name##_workspace)(const struct kernel_call *call);                             \
    void plain_##name##_f32(const struct kernel_call *call);
#include "kernels/kernels.def"
#undef KERNEL
enum weight_form ISA_NAME(conv2d_form)(const struct conv2d_attributes *attributes,
                                       const int64_t x[4], const int64_t y[4], bool backward);
enum weight_form ISA_NAME(smaller_form)(enum weight_form form);
size_t ISA_NAME(weight_bytes)(enum weight_form form, const int64_t shape[4]);
void ISA_NAME(pack_weight)(enum weight_form form, const int64_t shape[4], const float *oihw,
                           void *packed, int threads);

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

#define FAST(name)           [KERNEL_##name] = {ISA_NAME(name), NULL}
#define FAST_WORKSPACE(name) [KERNEL_##name] = {ISA_NAME(name), ISA_NAME(name##_workspace)}
/* too small, too rare or too simple to be worth a second version */
#define PLAIN(name) [KERNEL_##name] = {plain_##name##_f32, NULL}

const struct kernels *ISA_NAME(kernels_table)(void);
const struct kernels *ISA_NAME(kernels_table)(void)
{
    static const struct kernels table = {
        .name = STRING(ISA),
        .kernel =
            {
                FAST_WORKSPACE(conv2d),
                FAST_WORKSPACE(conv2d_backward_data),
                FAST_WORKSPACE(conv2d_backward_weight),
                FAST(conv2d_pack_weight),
                FAST_WORKSPACE(group_norm),
                FAST_WORKSPACE(group_norm_backward),
                FAST_WORKSPACE(group_norm_backward_affine),
                FAST_WORKSPACE(group_norm_jvp),
                FAST_WORKSPACE(attention),
                FAST_WORKSPACE(attention_backward),
                FAST_WORKSPACE(attention_jvp),
                PLAIN(silu),
                FAST(silu_backward),
                FAST(leaky_relu),
                FAST(leaky_relu_backward),
                FAST(combine),
                FAST(combine_scaled),
                FAST(multiply),
                FAST(add_channel),
                PLAIN(sum_spatial),
                FAST_WORKSPACE(sum_pixels),
                FAST(concat_channels),
                PLAIN(slice_channels),
                PLAIN(pad_channels),
                PLAIN(timestep_embedding),
                FAST_WORKSPACE(vector_quantize),
                PLAIN(take_codes),
                PLAIN(take_codes_backward),
                FAST_WORKSPACE(mean_squared_error),
                FAST(mean_squared_error_backward),
                FAST_WORKSPACE(mean_absolute_error),
                FAST(mean_absolute_error_backward),
                FAST_WORKSPACE(l2_norm),
                FAST(l2_norm_backward),
                FAST_WORKSPACE(dot),
                FAST(adam_step),
                FAST(adamw_step),
                PLAIN(copy),
                PLAIN(reshape),
                PLAIN(cast),
                PLAIN(philox_normal),
                PLAIN(ddim_step),
                PLAIN(stochastic_resample),
                PLAIN(stop_rule),
                PLAIN(keep_best),
                PLAIN(search_direction),
                PLAIN(search_step),
                FAST_WORKSPACE(axis_filter),
                FAST_WORKSPACE(tap_filter),
                FAST_WORKSPACE(tap_filter_adjoint),
                FAST(radon),
                FAST(radon_adjoint),
            },
        .conv2d_form = ISA_NAME(conv2d_form),
        .smaller_form = ISA_NAME(smaller_form),
        .weight_bytes = ISA_NAME(weight_bytes),
        .pack_weight = ISA_NAME(pack_weight),
    };
    return &table;
}
