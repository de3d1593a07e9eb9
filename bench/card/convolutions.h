/* What the programs that time convolutions on a card share: the list of a model's convolutions, the
 * card's clock, and cuDNN as the one to compare with. */
#ifndef BENCH_CARD_CONVOLUTIONS_H
#define BENCH_CARD_CONVOLUTIONS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/* The least milliseconds of one call of `run`, by the card's events: batches of calls, as many as
 * `repetitions`, after one that does not count. run puts work on the stream and waits for nothing.
 */
double card_ms(void (*run)(void *context), void *context, void *stream, int repetitions);

/* cuDNN, where the program is linked with it: its fastest algorithm and layout (NCHW or NHWC), in
 * full f32 or with tf32 products. A picture that is upsampled or padded on one side alone is given
 * ready. NAN where it has none. */
struct cudnn *cudnn_open(void *stream);
double cudnn_ms(struct cudnn *cudnn, const struct convolution *convolution, bool backward,
                bool tf32, int repetitions);
void cudnn_close(struct cudnn *cudnn);

#ifdef __cplusplus
}
#endif
#endif
