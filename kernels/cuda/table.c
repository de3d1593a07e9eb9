/* The table of the CUDA kernels. */
#include "kernels/kernels.h"

#define KERNEL(name, inputs, outputs)                                                              \
    void cuda_##name(const struct kernel_call *call);                                              \
    size_t cuda_##name##_workspace(const struct kernel_call *call);
#include "kernels/kernels.def"
#undef KERNEL
enum weight_form cuda_conv2d_form(const struct conv2d_attributes *attributes, const int64_t x[4],
                                  const int64_t y[4], bool backward);
int cuda_conv2d_ways(const struct kernel_call *call, bool backward);
bool cuda_conv2d_by_library(const struct kernel_call *call, bool backward, int way);
enum weight_form cuda_conv2d_form_bf16(const struct conv2d_attributes *attributes,
                                       const int64_t x[4], const int64_t y[4], bool backward);
size_t cuda_weight_bytes(enum weight_form form, const int64_t shape[4]);
void cuda_pack_weight(enum weight_form form, const int64_t shape[4], const float *oihw,
                      void *packed, int threads);

#define RUN(name)           [KERNEL_##name] = {cuda_##name, NULL}
#define RUN_WORKSPACE(name) [KERNEL_##name] = {cuda_##name, cuda_##name##_workspace}

const struct kernels *kernels_cuda(void);
const struct kernels *kernels_cuda(void)
{
    static const struct kernels table = {
        .name = "cuda",
        .separate_memory = true,
        .kernel =
            {
                RUN_WORKSPACE(conv2d),
                RUN_WORKSPACE(conv2d_backward_data),
                RUN_WORKSPACE(conv2d_backward_weight),
                RUN(conv2d_pack_weight),
                RUN_WORKSPACE(group_norm),
                RUN_WORKSPACE(group_norm_backward),
                RUN_WORKSPACE(group_norm_backward_affine),
                RUN_WORKSPACE(group_norm_jvp),
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
                RUN_WORKSPACE(sum_spatial),
                RUN_WORKSPACE(sum_pixels),
                RUN(concat_channels),
                RUN(slice_channels),
                RUN(pad_channels),
                RUN(timestep_embedding),
                RUN(vector_quantize),
                RUN(take_codes),
                RUN(take_codes_backward),
                RUN_WORKSPACE(mean_squared_error),
                RUN(mean_squared_error_backward),
                RUN_WORKSPACE(mean_absolute_error),
                RUN(mean_absolute_error_backward),
                RUN_WORKSPACE(l2_norm),
                RUN(l2_norm_backward),
                RUN_WORKSPACE(dot),
                RUN_WORKSPACE(adam_step),
                RUN_WORKSPACE(adamw_step),
                RUN(copy),
                RUN(reshape),
                RUN(cast),
                RUN(philox_normal),
                RUN(ddim_step),
                RUN(stochastic_resample),
                RUN(stop_rule),
                RUN(keep_best),
                RUN_WORKSPACE(search_direction),
                RUN(search_step),
                RUN(axis_filter),
                RUN(tap_filter),
                RUN(tap_filter_adjoint),
                RUN(radon),
                RUN_WORKSPACE(radon_adjoint),
            },
        .conv2d_form = cuda_conv2d_form,
        .conv2d_ways = cuda_conv2d_ways,
        .conv2d_by_library = cuda_conv2d_by_library,
        .weight_bytes = cuda_weight_bytes,
        .pack_weight = cuda_pack_weight,
    };
    return &table;
}

/* The kernels go by their tensors' types; the weights' forms say the rest. */
const struct kernels *kernels_cuda_bf16(void);
const struct kernels *kernels_cuda_bf16(void)
{
    static struct kernels table;
    table = *kernels_cuda();
    table.network = TYPE_BF16;
    table.conv2d_form = cuda_conv2d_form_bf16;
    return &table;
}
