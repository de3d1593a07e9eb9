#include "bench/shared/operation.h"

static bool is_convolution(enum kernel_id kernel)
{
    return kernel == KERNEL_conv2d || kernel == KERNEL_conv2d_backward_data;
}

static double elements(const struct tensor *tensor)
{
    return (double)tensor_elements(tensor);
}

size_t operation_input_bytes(const struct kernels *kernels, enum kernel_id kernel,
                             const struct kernel_call *call, int i)
{
    const struct tensor *tensor = &call->input[i];
    if (is_convolution(kernel) && i == 1)
        return kernels->weight_bytes(call->attributes->conv2d.form, tensor->shape);
    return (size_t)tensor_elements(tensor) * element_bytes(tensor->type);
}

/* Both directions multiply each output pixel with all of the weight. */
static double convolution_flop(enum kernel_id kernel, const struct kernel_call *call)
{
    const double merged = 4. / 9; /* of 9 taps that meet 4 pixels */
    const struct tensor *y = kernel == KERNEL_conv2d ? &call->output[0] : &call->input[0];
    double direct =
        2 * (double)(y->shape[0] * y->shape[1] * y->shape[2]) * elements(&call->input[1]);
    return call->attributes->conv2d.form == WEIGHT_TAPS_MERGED ? merged * direct : direct;
}

/* queries x keys x channels of one product */
static double attention_product_flop(const struct tensor *qkv)
{
    double tokens = (double)(qkv->shape[1] * qkv->shape[2]);
    return 2 * (double)qkv->shape[0] * tokens * tokens * (double)qkv->shape[3] / 3;
}

static double distances_flop(const struct kernel_call *call)
{
    double width = (double)call->input[1].shape[3], codes = (double)call->input[1].shape[2];
    return 2 * elements(&call->input[0]) / width * codes * (width + 1);
}

struct cost operation_cost(const struct kernels *kernels, enum kernel_id kernel,
                           const struct kernel_call *call)
{
    struct cost cost = {0};
    for (int i = 0; i < kernel_inputs(kernel); i++)
        cost.bytes += (double)operation_input_bytes(kernels, kernel, call, i);
    for (int k = 0; k < kernel_outputs(kernel); k++)
        cost.bytes += elements(&call->output[k]) * (double)element_bytes(call->output[k].type);
    if (is_convolution(kernel))
        cost.product_flop = convolution_flop(kernel, call);
    else if (kernel == KERNEL_attention) /* scores, sum of values */
        cost.product_flop = 2 * attention_product_flop(&call->input[0]);
    else if (kernel == KERNEL_attention_backward) /* scores, dP, dv, dq, dk */
        cost.product_flop = 5 * attention_product_flop(&call->input[1]);
    else if (kernel == KERNEL_vector_quantize)
        cost.other_flop = distances_flop(call);
    return cost;
}
