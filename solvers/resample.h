/* ReSample (Song et al., ICLR 2024): posterior sampling with a latent diffusion model by hard data
 * consistency. Three presets: "official" repeats the authors' code step by step (algorithm.md
 * sections 2-7), "paper" is Algorithm 1 with noise-aware stopping (section 11), "fast" walks down
 * noise levels and fits each by conjugate gradients with exact steps through the decoder (section
 * 12, docs/fast-preset.md). Also unconditional sampling. */
#ifndef SOLVERS_RESAMPLE_H
#define SOLVERS_RESAMPLE_H

#include "model/model.h"
#include "operators/operator.h"
#include "runtime/tune.h"

enum resample_preset { PRESET_OFFICIAL, PRESET_PAPER, PRESET_FAST };

struct resample_settings {
    enum resample_preset preset;
    int ddim_steps;              /* official 500, paper 100 */
    double ddim_eta;             /* 0 */
    double gamma;                /* 40 */
    int resample_every;          /* 10 */
    int pixel_iterations;        /* 2000; fast 30, of conjugate gradients at each level */
    int latent_iterations;       /* 500 */
    int look_ahead;              /* 5; official only */
    int levels;                  /* fast: noise levels of the latent */
    int iterations;              /* fast: of conjugate gradients over latents at a level */
    int final_iterations;        /* 0; fast: at most, over latents without the prior at the end */
    int latent_levels;           /* fast: the last ones, which fit latents after pixels */
    double sigma_max, sigma_min; /* fast: highest and lowest level */
    double sigma;                /* noise level of y; negative: unknown (only official can do so) */
    uint64_t seed;
    const float *noise;  /* [K,C,h,w] injected draws, or NULL */
    int64_t noise_count; /* K */
    int threads;
    size_t memory_limit_bytes; /* 0: none */
    const struct kernels *kernels;
    const char *tuning_path; /* of program_tune; NULL: convolutions in the kernels' own choice */
    bool cudnn;              /* program_take_cudnn, without a file */
};

/* One line of trace.jsonl: a main step (j = -1: the final optimisation). */
struct resample_step {
    int j, t;
    const char *event; /* "ddim", "pixel", "latent", "level", "final" */
    double level;      /* fast: deviation of the latent's noise; else NaN */
    int64_t iterations;
    int64_t shortened; /* fast: steps cut because the energy had risen */
    double loss, norm; /* NaN where there is none */
    int64_t decoder_evaluations, unet_evaluations; /* so far: passes forward */
    double seconds;                                /* since the start */
};

/* Where a solve stands, for the progress line: called after every main step and inner iteration. */
struct resample_progress {
    const char *stage; /* "guidance", "pixel", "latent", "level", "final" */
    int step, steps;   /* main steps done, all */
    int64_t iteration, iteration_limit;
    double residual, target; /* root mean square residual and where it should go (sigma), or NaN */
    double seconds, seconds_left;
};

struct resample_observer {
    void *context;
    void (*step)(void *context, const struct resample_step *step, const float *latent_nchw);
    void (*progress)(void *context, const struct resample_progress *progress);
    const volatile sig_atomic_t *cancelled;
};

struct resample_result {
    float *image;                                            /* [N,C,H,W], not clipped */
    float *latent;                                           /* [N,c,h,w] */
    int64_t decoder_evaluations, decoder_vjps, decoder_jvps; /* passes forward, and products */
    int64_t unet_evaluations, encoder_evaluations;
    int64_t shortened; /* steps of the fast preset */
    bool quantized;    /* the picture is decoded from the nearest codes */
    int64_t optimisations, iterations;
    double seconds;
    struct memory_report memory;
    bool complete; /* false after an interruption: what was reached */
};

struct resample_solver; /* planned, ready to run on any number of measurements of one shape */

void resample_defaults(struct resample_settings *settings, enum resample_preset preset);
/* Records and plans everything; prepare = false stops after planning (needs no weights). */
struct resample_solver *resample_create(struct model *model, const struct operator* operator,
                                        const struct resample_settings * settings, bool prepare,
                                        struct status *status);
void resample_memory(const struct resample_solver *solver, struct memory_report *report);
/* What choosing the convolutions' ways took; all zero where nothing was. */
struct tuning resample_tuning(const struct resample_solver *solver);
/* The bytes that an evaluation of the UNet uploads under a memory limit, and how many of them a run
 * makes at most. */
struct tape_uploads resample_unet_uploads(const struct resample_solver *solver);
/* How many latent-shaped draws a run takes from settings.noise. */
int64_t resample_draws(const struct resample_solver *solver);
/* Seconds of one decoder pass (forward + VJP), of one UNet pass, and the estimate for a whole run
 * at most, timed now. */
int resample_estimate(struct resample_solver *solver, double *decoder_seconds, double *unet_seconds,
                      double *total_seconds, struct status *status);
/* Solves. measurement [N,..] NCHW. On an interruption or NaN, result holds what was reached. */
int resample_run(struct resample_solver *solver, const float *measurement_nchw,
                 const struct resample_observer *observer, struct resample_result *result,
                 struct status *status);
/* The seed of the runs that follow. */
void resample_set_seed(struct resample_solver *solver, uint64_t seed);
void resample_result_free(struct resample_result *result);
void resample_free(struct resample_solver *solver);

/* Unconditional DDIM sampling of `count` pictures of height x width (each its own draw index). */
int sample_run(struct model *model, const struct resample_settings *settings, int count,
               int64_t height, int64_t width,
               void (*done)(void *context, int index, const float *image_nchw,
                            const float *latent_nchw),
               void *context, const struct resample_observer *observer, struct status *status);

#endif
