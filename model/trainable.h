/* Parameters of a model as state of a program: what training reads, differentiates and writes.
 *
 * Life: trainable_open; record networks, which from then on take a slot for each parameter whose
 * name begins with the prefix; program_plan and program_prepare; trainable_load; run;
 * trainable_close. Every tape of the program that asks for a parameter gets the same slot. */
#ifndef MODEL_TRAINABLE_H
#define MODEL_TRAINABLE_H

#include "model/model.h"

struct trainable_parameter {
    struct parameter *parameter;
    int slot;
};

struct trainable {
    struct model *model;
    struct program *program;
    const char *prefix;
    struct trainable_parameter *parameters; /* in the order in which the networks asked for them */
    int count, capacity;
};

/* prefix: "" trains everything, "model.diffusion_model." the UNet alone; it must outlive this. */
void trainable_open(struct trainable *trainable, struct model *model, struct program *program,
                    const char *prefix);
/* Writes the checkpoint's values into the prepared program's slots. */
int trainable_load(const struct trainable *trainable, struct status *status);
/* The model's networks take frozen parameters again. */
void trainable_close(struct trainable *trainable);

#endif
