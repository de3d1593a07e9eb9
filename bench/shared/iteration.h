/* The inner iteration of ReSample's pixel optimisation as the benches time, count and plan it:
 * quantise, decode, mean squared error against a target, backward to the latent, AdamW. */
#ifndef BENCH_SHARED_ITERATION_H
#define BENCH_SHARED_ITERATION_H

#include "model/model.h"
#include "runtime/program.h"

struct iteration {
    int latent_slot, target_slot, loss_slot;
    value latent, image, gradient;
};

/* Up to the gradient, for one picture of size x size; the loss is kept. */
struct iteration iteration_record(struct program *program, struct tape *tape, struct model *model,
                                  int64_t size);
/* AdamW's step along the gradient. */
void iteration_record_step(struct program *program, struct tape *tape,
                           const struct iteration *iteration);

#endif
