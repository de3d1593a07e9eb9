#include "kernels/plain/plain.h"

#include <math.h>
#include <tgmath.h>

/* Every operation rounds to real, as the reference's tensor arithmetic does: the frequencies of
 * large timesteps feel it. */
void PLAIN(timestep_embedding)(const struct kernel_call *call)
{
    int64_t channels = call->output[0].shape[3], half = channels / 2;
    real rate = (real)-log(call->attributes->timestep.max_period);
    for (int64_t n = 0; n < call->input[0].shape[0]; n++) {
        real *y = output_data(call, 0) + n * channels;
        for (int64_t i = 0; i < half; i++) {
            real frequency = exp(rate * (real)i / (real)half);
            real angle = input_data(call, 0)[n] * frequency;
            y[i] = cos(angle);
            y[half + i] = sin(angle);
        }
        if (channels % 2)
            y[channels - 1] = 0;
    }
}
