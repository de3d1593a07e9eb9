/* What timing convolutions on a card and cuDNN as the one to compare with share: a model's
 * convolution, the card's clock. */
#ifndef BENCH_CARD_CONVOLUTIONS_H
#define BENCH_CARD_CONVOLUTIONS_H

#include "runtime/device.h"
#include "kernels/kernels.h"

/* A shape, and how often an inner iteration (the decoder forward and backward) and a pass of the
 * UNet convolve so. x, y: the forward input and output, NHWC; weight: OIHW. */
struct convolution {
    int64_t x[4], y[4], weight[4];
    struct conv2d_attributes attributes; /* form is unset */
    int decoder_forward, decoder_backward, unet;
};

/* Of order 1, the same each time (a card's clock depends on what it multiplies). The caller frees.
 */
float *random_floats(size_t count);

/* Milliseconds of one call of `run` by the card's own clock: the least of a few batches of `calls`,
 * after one call that does not count. run puts work on the device's stream and waits for nothing.
 * NAN where it failed. */
double card_ms(void (*run)(void *context), void *context, struct device *device, int calls);

/* cuDNN, where the program is linked with it: its fastest algorithm and layout (NCHW or NHWC), in
 * full f32 or with tf32 products. A picture that is upsampled or padded on one side alone is given
 * ready. NAN where it has none. */
struct cudnn *cudnn_open(struct device *device);
double cudnn_ms(struct cudnn *cudnn, const struct convolution *convolution, bool backward,
                bool tf32, int calls);
void cudnn_close(struct cudnn *cudnn);

#endif
