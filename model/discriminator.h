/* The patch discriminator with which the original code trains its VQ autoencoders
 * (NLayerDiscriminator of taming-transformers, after Isola et al. 2017): 4x4 convolutions, batch
 * norms over the pictures of a call, and leaky ReLUs. Each of its logits judges one patch: large
 * where it looks real.
 *
 * Its parameters are state of a program, named and shaped as in the original's checkpoints after
 * "loss.discriminator."; who trains it draws or loads them, and takes their gradients. */
#ifndef MODEL_DISCRIMINATOR_H
#define MODEL_DISCRIMINATOR_H

#include "runtime/program.h"

enum {
    DISCRIMINATOR_LAYERS = 3,
    DISCRIMINATOR_PARAMETERS = 4 + 3 * DISCRIMINATOR_LAYERS,
    DISCRIMINATOR_LEAST_SIDE = 24 /* of a picture */
};

struct discriminator_parameter {
    char name[24];
    int64_t shape[4]; /* {O,I,4,4} or {1,1,1,C} */
    int slot;
    /* What a new one holds: normals of this mean and deviation, or uniform numbers within +-bound.
     */
    double mean, deviation, bound;
};

struct discriminator {
    struct discriminator_parameter parameters[DISCRIMINATOR_PARAMETERS];
    int one; /* a slot */
};

/* Declares the state. channels: of the first layer, 64 in the original; the last have eight times
 * as many. */
void discriminator_open(struct discriminator *discriminator, struct program *program,
                        int64_t picture_channels, int64_t channels);
/* Logits [N,H/8-2,W/8-2,1] of pictures [N,H,W,C] in [-1,1], sides at least 24. */
value discriminator_record(const struct discriminator *discriminator, struct tape *tape,
                           value pictures);

/* The discriminator's hinge loss, (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2. */
value discriminator_loss_record(const struct discriminator *discriminator, struct tape *tape,
                                value real_logits, value fake_logits);
/* The autoencoder's, -mean(fake). */
value generator_loss_record(struct tape *tape, value fake_logits);
/* How much the generator's loss weighs against the other one, so that both move the decoder's last
 * weight alike: min(|d reconstruction| / (|d generator| + 1e-4), 1e4), the derivatives with respect
 * to that weight; a constant to later derivatives. It is a coefficient for tape_combine_scaled. */
value generator_weight_record(const struct discriminator *discriminator, struct tape *tape,
                              value reconstruction_loss, value generator_loss, value last_weight);

#endif
