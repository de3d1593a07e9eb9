#include "kernels/plain/plain.h"

#include "kernels/normal.h"
#include "kernels/philox.h"

void PLAIN(philox_normal)(const struct kernel_call *call)
{
    const int64_t *shape = call->output[0].shape;
    int64_t pixels = shape[1] * shape[2], channels = shape[3];
    int32_t *state = call->output[1].data;
    uint32_t key[2] = {(uint32_t)state[0], (uint32_t)state[1]};
    for (int64_t block = 0; block * 4 < tensor_elements(&call->output[0]); block++) {
        uint32_t counter[4] = {(uint32_t)block, 0, (uint32_t)state[3], (uint32_t)state[2]};
        uint32_t bits[4];
        float normal[4];
        philox4x32_10(key, counter, bits);
        normal_pair(bits[0], bits[1], normal);
        normal_pair(bits[2], bits[3], normal + 2);
        for (int64_t i = block * 4; i < block * 4 + 4 && i < tensor_elements(&call->output[0]);
             i++) {
            int64_t picture = i / (pixels * channels), channel = i / pixels % channels;
            int64_t pixel = picture * pixels + i % pixels;
            output_data(call, 0)[pixel * channels + channel] = normal[i % 4];
        }
    }
    state[3] = (int32_t)((uint32_t)state[3] + 1);
}
