/* What the parts of training share. */
#ifndef TRAINING_INTERNAL_H
#define TRAINING_INTERNAL_H

#include "model/discriminator.h"
#include "model/trainable.h"
#include "training/training.h"

/* Slots of one parameter beside its weight. */
struct optimised {
    int gradient, first_moment, second_moment;
    int average; /* the weight's own slot where no averages are kept */
};

/* The patch discriminator while it is trained: slots beside its parameters. */
struct adversary {
    struct discriminator discriminator;
    struct {
        int gradient, first_moment, second_moment;
    } slots[DISCRIMINATOR_PARAMETERS];
    int control, generator_loss, discriminator_loss;
    struct tape *pass, *step;
};

/* Elements of the control constant after the optimiser's own (kernels.h). */
enum { CONTROL_AVERAGE = 5, CONTROL_COUNT = 8 };

struct training {
    struct model *model;
    struct training_settings settings;
    struct picture_source source;
    struct training_hooks hooks;
    int64_t step; /* done */

    struct program *program;
    struct trainable weights, averages;
    struct optimised *optimised; /* beside weights.parameters */
    struct adversary adversary;
    struct {
        struct tape *pass, *step, *evaluate, *denoise, *decode;
        struct tape *continuous, *evaluate_continuous; /* before the codes join */
    } tape;
    struct {
        int picture, latent, index; /* autoencoder: input, encoder's output, codes */
        int components;             /* of the pictures' blocks */
        int noisy, time, noise;     /* diffusion: input, time, target */
        int loss, l1, mse, codebook, components_loss; /* scalars */
        int control, squared_norm, coefficients;      /* of AdamW; of a DDIM step */
        int output;                                   /* of the evaluation */
    } slot;
    int64_t picture_elements, latent_elements;
    int latent_side;

    struct {
        int64_t block;      /* numbers of one */
        double *mean;       /* of blocks, and room for one */
        double *projection; /* [latent channels, block] */
    } components;           /* where latents are drawn to them */

    struct schedule noise_schedule;
    float *latents; /* diffusion: [latent_count,c,h,w], training ones, then the held-out ones */
    int64_t latent_count, held_out_latents;
    int32_t *indices; /* of one pass */
    float *code_uses; /* of each code since codes were last looked at */
    float *pictures;  /* a batch in NCHW, and as much for results */
};

/* Every parameter of a new network, as PyTorch's layers and the original code's zero modules have
 * it; the codebook waits for the first latents. */
int training_initialise(struct training *training, struct status *status);
/* Every parameter of a discriminator of the training's prepared program, as its header says. */
int discriminator_initialise(struct training *training, const struct discriminator *discriminator,
                             struct status *status);

/* Whether the autoencoder's next step quantises. */
static inline bool training_quantizes(const struct training *training)
{
    return training->settings.part == TRAIN_AUTOENCODER &&
           training->step >= training->settings.quantize_from;
}

/* networks.c: tapes of the forward passes, losses, evaluation */
void record_autoencoder_pass(struct training *training);
void record_diffusion_pass(struct training *training);
void record_evaluation(struct training *training);
/* optimiser.c */
void record_gradients(struct training *training, struct tape *tape, value loss);
void record_step(struct training *training);
int optimiser_step(struct training *training, struct training_report *report,
                   struct status *status);
/* What the rates, the clip and the corrections are at a step of this rate, the count-th one. */
void optimiser_control(const struct training *training, double learning_rate, int64_t count,
                       float control[CONTROL_COUNT]);
int find_slot(const struct trainable *trainable, const struct parameter *parameter); /* -1 */

/* adversary.c: the state; its part in adversary.pass, which is the loss with the adversary's in it;
 * its step, after adversary_start of the autoencoder's */
void adversary_open(struct training *training);
value adversary_record(struct training *training, value picture, value output,
                       value reconstruction_loss, value loss);
void adversary_record_step(struct training *training);
int adversary_step(struct training *training, struct training_report *report,
                   struct status *status);
void adversary_forget(struct training *training); /* its gradients */

/* latents.c */
int training_encode(struct training *training, const char *path, struct status *status);

/* components.c: measured on pictures that the run draws; of the batch in training->pictures */
int components_open(struct training *training, struct status *status);
void components_write(const struct training *training);
void components_free(struct training *training);

/* codes.c */
int codes_begin(struct training *training, struct status *status);
void codes_count(struct training *training);
void codes_restart(struct training *training, struct training_report *report);

/* draws.c: everything random but the pictures, by (seed, stream, draw) */
void draw_normals(const struct training *training, uint32_t stream, uint64_t draw, float *values,
                  int64_t count);

#endif
