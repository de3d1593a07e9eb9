/* What the solver's own files and its tests share: the planned solver with its state slots and
 * tapes (tapes.c), the two inner optimisations (optimise.c), the fast preset (fast.c), and the
 * accounting of one run (progress.c). */
#ifndef SOLVERS_RESAMPLE_INTERNAL_H
#define SOLVERS_RESAMPLE_INTERNAL_H

#include "solvers/resample.h"

enum { COEFFICIENTS = 8, STOP_WINDOW = 200 };
/* In the coefficients of ddim_step, after its own five: the guidance step's length. */
enum { GUIDANCE_LENGTH = DDIM_SIGMA + 1 };

/* State of the program. A latent is [N,h,w,c], a picture [N,H,W,C]. */
struct solver_slots {
    int x;        /* the chain */
    int x_t;      /* the chain after the last main step (official) */
    int estimate; /* clean latent: the step's estimate, then what the optimisation makes of it */
    int image;    /* the last decoded picture, or the one that the pixel stage optimises */
    int previous; /* a latent as it was before the tape that ran last changed it */
    int previous_image; /* the same of the picture */
    int noise, counter; /* the draw, and the generator's counter */
    int measurement;
    int time, ddim, resample; /* the UNet's time and the coefficients of the step */
    int loss, norm;
    int check; /* norm of what a tape made: not finite if anything in it is not */
    int adam_step, iteration, window;
    int best_loss;
    /* fast */
    int prior;                                /* the denoised latent around which a level fits */
    int level;                                /* coefficients */
    int search;    /* of conjugate gradients */
    int one;
};

/* One inner optimisation: AdamW on `variable`, started from what that slot holds. */
struct minimiser {
    const char *stage;                          /* "pixel" or "latent" */
    int variable, previous, mean, square, best; /* slots */
    int64_t limit;
    double learning_rate;
    struct tape *body, *loop;
    struct tape *take_best; /* paper */
};

struct solver_tapes {
    struct tape *draw;     /* noise from the generator */
    struct tape *start;    /* x = noise */
    struct tape *guided;   /* official main step: DDIM and the step along the residual's gradient */
    struct tape *ddim;     /* DDIM step alone */
    struct tape *take_x;   /* estimate = x */
    struct tape *decode;   /* image = D(estimate) */
    struct tape *encode;   /* estimate = E(image) */
    struct tape *resample; /* x = stochastic resample of estimate and the chain */
    struct tape *reachable; /* measurement = A A^T measurement (masks only), or NULL */
};

/* A fit to the measurement near a prior, over latents or over pixels: slots, and the coefficient that
 * weighs the prior. */
struct fit {
    int variable, prior, base, direction, previous_gradient;
    int weight;
    bool blurred; /* the variable is a distance from the prior, blurred */
    struct tape *iteration;
};

struct fast_tapes {
    struct fit latent, pixel, last_pixel;
    int taps, tap_weights; /* the last pixels' blur */
    struct tape *perturb;                  /* x = estimate + noise */
    struct tape *denoise;                  /* estimate = prior = E[z0 | x] */
    struct tape *pixel_loop, *level, *last; /* conjugate gradients */
    struct tape *last_pixel_loop, *last_image; /* of pixels; image of their distance */
    struct tape *keep_prior;                /* of the pixels: image */
    struct tape *encode_change;             /* estimate = prior + what the pixels learnt */
    struct tape *decode_continuous;        /* image = D(estimate) without the quantiser */
    struct tape *residual;                 /* loss of image */
    struct tape *keep_image, *take_image;  /* to and from previous_image */
};

/* Kinds of work by which time is foretold. */
enum work { WORK_GUIDED, WORK_UNET, WORK_LATENT, WORK_PIXEL, WORK_COUNT };

struct resample_solver {
    struct model *model;
    const struct operator* forward_operator; /* NULL: unconditional sampling */
    void *bound;
    struct resample_settings settings;
    int64_t image_shape[4], latent_shape[4];
    struct schedule schedule;
    struct ddim_schedule ddim;
    int split; /* a third of the steps: none of the first third resamples, the last works on latents
                */
    struct program *program;
    struct tuning tuning;
    struct solver_slots slot;
    struct solver_tapes tape;
    struct fast_tapes fast;
    struct minimiser pixel, latent;
    float *times;             /* [N]: the UNet's time of every picture, on its way to the device */
    float *scratch;           /* one picture or latent, whichever is larger */
    double timed[WORK_COUNT]; /* seconds of each, from resample_estimate; 0: not timed */
};

/* One run in progress. */
struct run {
    struct resample_solver *solver;
    const struct resample_observer *observer; /* may be NULL */
    struct resample_result *result;           /* counts go straight into it */
    struct status *status;
    int64_t draws;      /* taken so far */
    int64_t first_draw; /* the generator's index of draw 0 */
    int j;              /* main step; -1: the final optimisation */
    int steps_done;     /* main steps */
    double norm;        /* residual's norm at this main step, NaN where there is none */
    double start;       /* seconds of the clock */
    int64_t left[WORK_COUNT], done[WORK_COUNT];
    double seconds[WORK_COUNT];
};

/* operator NULL: what unconditional sampling needs. */
struct resample_solver *solver_create(struct model *model, const struct operator* forward_operator,
                                      const int64_t image_shape[4],
                                      const struct resample_settings *settings, bool prepare,
                                      struct status *status);

static inline int64_t shape_elements(const int64_t shape[4])
{
    return shape[0] * shape[1] * shape[2] * shape[3];
}

/* tapes.c */
void solver_declare_state(struct resample_solver *solver);
/* What a tape cannot record, program_plan reports. */
void solver_record(struct resample_solver *solver);

/* The value of a slot on a tape; what becomes of a slot; the same of a tape's result, whose norm goes
 * to `check` for the test that it is finite. */
value solver_read(struct tape *tape, int slot);
void solver_write(struct tape *tape, int slot, value v);
void solver_write_result(const struct resample_solver *solver, struct tape *tape, int slot,
                         value v);
/* image = D(estimate) */
struct tape *solver_record_decode(struct resample_solver *solver, const char *name, bool quantize);
/* Recorded with the operator's label; from slot to slot. */
value solver_record_measurement(const struct resample_solver *solver, struct tape *tape,
                                value image);
struct tape *solver_record_copy(struct resample_solver *solver, const char *name, int from, int to);

/* Writes a step's coefficients: those of table entry j, with the UNet at time t. */
void solver_set_step(struct resample_solver *solver, int j, int t);
void solver_set_resample(struct resample_solver *solver, int j);
/* Where the schedule resamples, and whether it does so over pixels. */
bool solver_resamples(const struct resample_solver *solver, int j);
bool solver_over_pixels(const struct resample_solver *solver, int j);
/* Loss at which an optimisation stops. */
double solver_threshold(const struct resample_solver *solver);

/* run.c */
void run_begin(struct run *run, struct resample_solver *solver,
               const struct resample_observer *observer, struct resample_result *result,
               struct status *status);
/* Replays a tape and sees to it that its result is finite; if not, replays it once more to name the
 * operation. `input` is the slot that it starts from, `previous` where it keeps that slot's old
 * value if it overwrites it (negative: it does not). */
int run_tape(struct run *run, struct tape *tape, int input, int previous);
/* Names the operation of `tape` whose result is not finite. */
int run_explain(struct run *run, struct tape *tape, int input, int previous);
/* The next draw into the slot `noise`: injected or generated. */
int run_draw(struct run *run);
/* The chain's start, and one DDIM step with a draw where eta asks for one. */
int run_start(struct run *run);
int run_ddim(struct run *run, struct tape *tape, int j, int t);

/* Tells the observer of a main step with the latent in this slot. */
void run_tell(struct run *run, struct resample_step *step, int latent_slot);

/* fast.c */
void fast_declare_state(struct resample_solver *solver);
void fast_record(struct resample_solver *solver);
/* Deviation of the latent's noise at level i. */
double fast_level(const struct resample_settings *settings, int i);
/* State with which denoise and iteration may be timed. */
void fast_prepare_timing(struct resample_solver *solver);
int fast_run(struct run *run);

/* optimise.c: fresh AdamW and stop state; the whole optimisation, with what it is called in
 * progress lines ("pixel", "latent" or "final"). */
void minimiser_reset(struct resample_solver *solver, const struct minimiser *minimiser);
/* Replays a loop whose body leaves its loss in the slot `loss`, telling the observer of each
 * iteration and booking it. */
int run_loop(struct run *run, struct tape *loop, const char *stage, enum work work, int64_t limit);
int run_minimise(struct run *run, struct minimiser *minimiser, const char *stage,
                 int64_t *iterations, double *loss);

/* progress.c */
double clock_seconds(void);
void run_count_work(struct run *run);
/* Tells the program how often a run replays the tapes that hold a network outside the loops, at
 * most. */
void solver_expect_replays(struct resample_solver *solver);
/* Books `units` of work that took until now since `since`. */
void run_book(struct run *run, enum work work, int64_t units, double since);
/* Upper bound of the time left, NaN while unknown. */
double run_seconds_left(const struct run *run);
void run_report_progress(struct run *run, const char *stage, int64_t iteration, int64_t limit,
                         double residual);

#endif
