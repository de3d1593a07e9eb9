/* Training of one part of a model: the VQ autoencoder, or the UNet over a frozen autoencoder's
 * latents. The gradients, AdamW and the averages of the weights run in one planned program, like a
 * solve; the host draws pictures and noise, all by counters (kernels/philox.h), so that a run is a
 * function of its settings and its data, and one that is stopped and resumed gives the same bytes.
 *
 * Losses: autoencoder, l1*mean|x - y| + mse*mean(x - y)^2 + codebook*mean(sg[h] - e)^2 +
 * commitment*mean(h - sg[e])^2 (van den Oord et al. 2017, equation 3, with means), and, where it is
 * asked for, the patch discriminator of the original code with its adaptive weight (Esser et al.
 * 2021, equation 7), whose own step takes the reconstructions of the same pass; diffusion, the mean
 * of (noise - UNet(x_t, t))^2 at uniform t (Ho et al. 2020, equation 14). */
#ifndef TRAINING_TRAINING_H
#define TRAINING_TRAINING_H

#include "model/model.h"

enum training_part { TRAIN_AUTOENCODER, TRAIN_DIFFUSION };
enum rate_schedule { RATE_CONSTANT, RATE_COSINE }; /* cosine: falls to 0 at the last step */

struct training_settings {
    enum training_part part;
    bool fresh;     /* from drawn weights; else from the checkpoint's */
    int64_t side;   /* of the square pictures in pixels; divides as the model needs */
    int batch;      /* pictures of one pass */
    int accumulate; /* passes of one step */
    int64_t steps, warmup_steps;
    enum rate_schedule schedule;
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    double clip;    /* largest norm of the gradient; 0: any */
    double average; /* the averages keep this share at a step (less in the first ones); 0: none */
    double l1, mse, codebook, commitment; /* weights of the autoencoder's losses */
    double adversary;                     /* weight of the patch discriminator; 0: none */
    int64_t adversary_start;              /* steps before it joins */
    int adversary_channels;               /* of its first layer */
    int64_t quantize_from; /* autoencoder: steps before the codes join, placed on its latents */
    double components;     /* weight of mean (h - c)^2 before the codes join, c the principal
                            * components of the latents' blocks of pixels; 0: none */
    int64_t restart_every; /* steps after which codes that none took are placed anew; 0: never */
    int variants;          /* diffusion: augmented latents kept of each picture */
    bool standardize; /* diffusion: the model's scale_factor becomes 1/deviation of the latents */
    uint64_t seed;
    const struct kernels *kernels;
    int threads;
    size_t memory_limit_bytes; /* of the plan; 0: none */
};
void training_defaults(struct training_settings *settings, enum training_part part);

/* Where pictures come from: [C,side,side] in [-1,1]. */
struct picture_source {
    void *context;
    int training_count, held_out_count; /* each at least 1 */
    /* The index-th training picture; `training_count` of them in a row show each once. */
    void (*draw)(void *context, uint64_t seed, uint64_t index, float *picture);
    void (*held_out)(void *context, int index, float *picture);
};

struct training_hooks {
    void *context;
    void (*encoding)(void *context, int64_t done, int64_t all); /* latents of the pictures */
    const volatile sig_atomic_t *cancelled;                     /* may be NULL */
};

/* What a step did. Losses are means over its passes; those of the other part are 0. */
struct training_report {
    int64_t step; /* from 1 */
    double loss, l1, mse, codebook, components;
    double generator, discriminator; /* losses of the adversary, once it has joined */
    double gradient_norm, learning_rate;
    int codes_used; /* distinct ones since they were last looked at; 0 for diffusion */
    int codes_restarted;
};

/* Of the averages (of the weights where there are none) on the held-out pictures. */
enum { EVALUATION_TIMES = 4 };
extern const double evaluation_times[EVALUATION_TIMES]; /* 50, 200, 500, 800 of 1000 */
struct training_evaluation {
    double psnr_db;                /* autoencoder: mean over the pictures, clipped, peak 2 */
    double loss[EVALUATION_TIMES]; /* diffusion: mean at these times */
};

struct training;

/* The model stays the caller's and must outlive this. Errors: a part that the model lacks, a KL
 * autoencoder, sizes, missing weights of the frozen part, memory. latents_path: where diffusion
 * keeps its latents between runs (read if it fits, else written); NULL: nowhere. */
struct training *training_create(struct model *model, const struct training_settings *settings,
                                 const struct picture_source *source, const char *latents_path,
                                 const struct training_hooks *hooks, struct status *status);
void training_free(struct training *training);
void training_memory(const struct training *training, struct memory_report *report);
int64_t training_steps_done(const struct training *training);
/* One step. STATUS_INTERRUPTED leaves everything as it was before it. */
int training_step(struct training *training, struct training_report *report, struct status *status);
int training_evaluate(struct training *training, struct training_evaluation *evaluation,
                      struct status *status);

/* Pictures to look at, [rows*columns,C,side,side]: held-out ones above their reconstructions, or
 * samples of the averages by 50 DDIM steps; the caller frees. */
struct training_sheet {
    float *pictures;
    int rows, columns;
};
int training_draw_sheet(struct training *training, struct training_sheet *sheet,
                        struct status *status);

/* The state that resuming needs: weights, moments, averages, step. Reading it is an error where the
 * settings that decide the run differ; the message names the first. */
int training_write_state(const struct training *training, const char *path, struct status *status);
int training_read_state(struct training *training, const char *path, struct status *status);
/* The model with the averages in place of what was trained, as safetensors with CompVis names. */
int training_write_model(const struct training *training, const char *path,
                         enum checkpoint_type type, struct status *status);

#endif
