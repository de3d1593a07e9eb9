#include "kernels/plain/plain.h"

#include <string.h>

static int64_t pixels_of(const struct tensor *tensor)
{
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2];
}

void PLAIN(concat_channels)(const struct kernel_call *call)
{
    int64_t a = call->input[0].shape[3], b = call->input[1].shape[3];
    for (int64_t p = 0; p < pixels_of(&call->input[0]); p++) {
        real *y = output_data(call, 0) + p * (a + b);
        memcpy(y, input_data(call, 0) + p * a, (size_t)a * sizeof(real));
        memcpy(y + a, input_data(call, 1) + p * b, (size_t)b * sizeof(real));
    }
}

void PLAIN(slice_channels)(const struct kernel_call *call)
{
    int64_t start = call->attributes->channels.start, count = call->attributes->channels.count;
    for (int64_t p = 0; p < pixels_of(&call->input[0]); p++)
        memcpy(output_data(call, 0) + p * count,
               input_data(call, 0) + p * call->input[0].shape[3] + start,
               (size_t)count * sizeof(real));
}

void PLAIN(pad_channels)(const struct kernel_call *call)
{
    int64_t start = call->attributes->channels.start, count = call->attributes->channels.count;
    int64_t total = call->attributes->channels.total;
    for (int64_t p = 0; p < pixels_of(&call->input[0]); p++) {
        real *y = output_data(call, 0) + p * total;
        memset(y, 0, (size_t)total * sizeof(real));
        memcpy(y + start, input_data(call, 0) + p * count, (size_t)count * sizeof(real));
    }
}
