/* `resample solve` in parts: what is to be solved (problem.c), the run (solve.c), the same with
 * several seeds (samples.c), what is written about it (outcome.c), and all of it for every picture
 * of a folder (folder.c). */
#ifndef TOOLS_SOLVE_H
#define TOOLS_SOLVE_H

#include "solvers/resample.h"
#include "tools/command.h"
#include "tools/progress.h"

#include <limits.h>

/* What all pictures of one call share. */
struct session {
    const struct arguments *arguments;
    struct task *task;
    struct model model;
    struct resample_settings settings;
    char tuning_path[PATH_MAX]; /* settings.tuning_path, if any */
    struct array noise;         /* --noise */
};

/* One picture. */
struct problem {
    const char *truth_path, *measurement_path; /* either may be NULL */
    char directory[PATH_MAX];
    uint64_t seed;
    double sigma; /* noise level of the measurement; negative: unknown */
    bool sigma_estimated;
    int channels, height, width;
    struct array truth, measurement; /* values NULL: absent */
    struct operator operator;
    float *baseline; /* [C,H,W]: the measurement as a picture of the same size, or NULL */
    const char *baseline_name;
};

struct score {
    double psnr_db, ssim; /* NaN without a truth */
};

struct outcome {
    struct resample_result
        result; /* with --samples: the mean picture, the first latent, all counts */
    struct score reconstruction, baseline;
    bool interrupted;
    /* --samples beyond 1 */
    int samples;         /* done */
    float *deviation;    /* [C,H,W]: of the samples, pixel by pixel */
    double *sample_psnr; /* [samples]; NaN without a truth */
};

/* Reads and checks truth and measurement (made here from the truth when there is none), the size,
 * and the operator. */
int problem_open(struct problem *problem, const struct session *session, struct status *status);
void problem_close(struct problem *problem);
/* The truth alone, with its size: what can be checked of a folder of pictures before the first. */
int problem_read_truth(struct problem *problem, const struct session *session,
                       struct status *status);

/* Everything of one picture. `pictures` is how many there are, for the estimate and the notes,
 * which come with the first. */
int solve_problem(struct session *session, struct problem *problem, int pictures, bool first,
                  struct outcome *outcome, struct status *status);
int solve_folder(struct session *session, const char *folder, struct status *status);

/* Runs the solver on the problem's measurement once, tracing into `trace` and telling of progress.
 */
int solve_once(struct resample_solver *solver, const struct problem *problem, FILE *trace,
               struct resample_result *result, struct status *status);
/* The same with seeds seed, seed + 1, ...: writes each sample, leaves mean and deviation. */
int solve_samples(struct resample_solver *solver, const struct problem *problem, int samples,
                  FILE *trace, struct outcome *outcome, struct status *status);
void outcome_free(struct outcome *outcome);

void outcome_score(struct outcome *outcome, const struct problem *problem);
/* Every file but the trace; recon.* only where something was decoded. */
int outcome_write(const struct outcome *outcome, const struct problem *problem,
                  const struct session *session, struct status *status);
/* A file's path in the problem's folder, printf-style. */
const char *problem_file(char path[static PATH_MAX], const struct problem *problem,
                         const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A picture as [C,H,W] in an .npy and a .png of the problem's folder. */
int outcome_write_image(const struct problem *problem, const char *name, const float *image,
                        struct status *status);
/* The summary on stdout. */
void outcome_print(const struct outcome *outcome, const struct problem *problem,
                   const struct session *session);
/* One line of trace.jsonl. */
void trace_write(FILE *file, const struct resample_step *step);

#endif
