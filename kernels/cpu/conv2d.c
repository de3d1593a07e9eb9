/* Chooses between the direct and the Winograd convolution by shape (spec of both: conv2d.h). */
#include "kernels/cpu/conv2d.h"

/* Winograd packs a weight into four times its size and rounds four times as much as the direct form
 * (cpu-kernels.md section 1). From 48 tiles on it takes a quarter of the direct form's time
 * (bench/kernels.c on Zen 3). With fewer it would gain little of a solve: the time lies in the
 * large pictures, and the small ones are the UNet's, whose rounding is divided by
 * sqrt(alpha_cumprod) on its way to the quantiser's near ties. */
enum { WINOGRAD_LEAST_TILES = 48, WINOGRAD_LEAST_CHANNELS = 16 };

enum weight_form ISA_NAME(conv2d_form)(const struct conv2d_attributes *a, const int64_t x[4],
                                       const int64_t y[4], bool backward)
{
    bool same = a->kernel_height == 3 && a->kernel_width == 3 && a->stride == 1 &&
                a->pad_top == 1 && a->pad_left == 1 && a->pad_bottom == 1 && a->pad_right == 1;
    int64_t tiles = y[0] * ceil_divide(y[1], 4) * ceil_divide(y[2], 4);
    if (same && tiles >= WINOGRAD_LEAST_TILES && x[3] >= WINOGRAD_LEAST_CHANNELS &&
        y[3] >= WINOGRAD_LEAST_CHANNELS)
        return a->upsample == 2 ? WEIGHT_UPSAMPLE : WEIGHT_WINOGRAD;
    return backward ? WEIGHT_DIRECT_BACKWARD : WEIGHT_DIRECT;
}

enum weight_form ISA_NAME(smaller_form)(enum weight_form form)
{
    return form == WEIGHT_WINOGRAD ? WEIGHT_WINOGRAD_SMALL : form;
}

static bool is_winograd(enum weight_form form)
{
    return form == WEIGHT_WINOGRAD || form == WEIGHT_WINOGRAD_SMALL || form == WEIGHT_UPSAMPLE;
}

size_t ISA_NAME(weight_bytes)(enum weight_form form, const int64_t shape[4])
{
    if (is_winograd(form))
        return ISA_NAME(conv2d_winograd_bytes)(shape, form);
    if (form == WEIGHT_PLAIN)
        return (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof(float);
    return ISA_NAME(conv2d_direct_bytes)(shape, form == WEIGHT_DIRECT_BACKWARD);
}

void ISA_NAME(pack_weight)(enum weight_form form, const int64_t shape[4], const float *oihw,
                           void *packed, int threads)
{
    if (is_winograd(form))
        ISA_NAME(conv2d_winograd_pack)(shape, form, oihw, packed, threads);
    else
        ISA_NAME(conv2d_direct_pack)(shape, oihw, form == WEIGHT_DIRECT_BACKWARD, packed, threads);
}

void ISA_NAME(conv2d_pack_weight)(const struct kernel_call *call)
{
    ISA_NAME(pack_weight)
    (call->attributes->conv2d.form, call->input[0].shape, call->input[0].data, call->output[0].data,
     call->threads);
}

static void convolve(const struct kernel_call *call, bool backward)
{
    if (is_winograd(call->attributes->conv2d.form))
        ISA_NAME(conv2d_winograd)(call, backward);
    else
        ISA_NAME(conv2d_direct)(call, backward);
}

static size_t workspace(const struct kernel_call *call, bool backward)
{
    return is_winograd(call->attributes->conv2d.form)
               ? ISA_NAME(conv2d_winograd_workspace)(call, backward)
               : ISA_NAME(conv2d_direct_workspace)(call, backward);
}

void ISA_NAME(conv2d)(const struct kernel_call *call)
{
    convolve(call, false);
}

size_t ISA_NAME(conv2d_workspace)(const struct kernel_call *call)
{
    return workspace(call, false);
}

void ISA_NAME(conv2d_backward_data)(const struct kernel_call *call)
{
    convolve(call, true);
}

size_t ISA_NAME(conv2d_backward_data_workspace)(const struct kernel_call *call)
{
    return workspace(call, true);
}
