/* One measurement solved with several seeds: what the samples share is their mean, what they do not
 * share is their deviation. */
#include "tools/solve.h"

#include "operators/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct moments {
    size_t elements;
    double *sum, *square;
};

static void add_sample(struct moments *moments, const float *image)
{
    for (size_t i = 0; i < moments->elements; i++) {
        moments->sum[i] += image[i];
        moments->square[i] += (double)image[i] * image[i];
    }
}

/* Counts add up; the first sample's latent stays. */
static void add_counts(struct resample_result *total, const struct resample_result *sample)
{
    total->decoder_evaluations += sample->decoder_evaluations;
    total->decoder_vjps += sample->decoder_vjps;
    total->decoder_jvps += sample->decoder_jvps;
    total->unet_evaluations += sample->unet_evaluations;
    total->encoder_evaluations += sample->encoder_evaluations;
    total->shortened += sample->shortened;
    total->optimisations += sample->optimisations;
    total->iterations += sample->iterations;
    total->seconds += sample->seconds;
    total->complete = total->complete && sample->complete;
}

/* Mean and deviation (of the sample, n - 1) of what was added. */
static void finish_moments(const struct moments *moments, struct outcome *outcome)
{
    int n = outcome->samples;
    for (size_t i = 0; i < moments->elements; i++) {
        double mean = moments->sum[i] / n, square = moments->square[i] / n - mean * mean;
        outcome->result.image[i] = (float)mean;
        outcome->deviation[i] = n > 1 ? (float)sqrt(fmax(square, 0) * n / (n - 1)) : 0;
    }
}

static void move_result(struct resample_result *to, struct resample_result *from)
{
    *to = *from;
    *from = (struct resample_result){0};
}

static int take_sample(const struct problem *problem, int index, struct resample_result *sample,
                       struct outcome *outcome, struct moments *moments, struct status *status)
{
    char name[32];
    snprintf(name, sizeof name, "sample_%d", index);
    if (outcome_write_image(problem, name, sample->image, status))
        return status->code;
    add_sample(moments, sample->image);
    outcome->sample_psnr[index] =
        problem->truth.values ? metric_psnr(problem->truth.values, sample->image, problem->channels,
                                            problem->height, problem->width)
                              : NAN;
    outcome->samples = index + 1;
    if (index == 0)
        move_result(&outcome->result, sample);
    else
        add_counts(&outcome->result, sample);
    return STATUS_OK;
}

int solve_samples(struct resample_solver *solver, const struct problem *problem, int samples,
                  FILE *trace, struct outcome *outcome, struct status *status)
{
    struct moments moments = {
        (size_t)problem->channels * (size_t)problem->height * (size_t)problem->width, NULL, NULL};
    moments.sum = status_calloc(status, moments.elements, sizeof(double), "the mean");
    moments.square = status_calloc(status, moments.elements, sizeof(double), "the deviation");
    outcome->deviation = status_calloc(status, moments.elements, sizeof(float), "the deviation");
    outcome->sample_psnr =
        status_calloc(status, (unsigned long)samples, sizeof(double), "the samples");
    for (int i = 0; i < samples && status_ok(status); i++) {
        struct resample_result sample = {0};
        resample_set_seed(solver, problem->seed + (uint64_t)i);
        if (solve_once(solver, problem, trace, &sample, status) == STATUS_OK)
            take_sample(problem, i, &sample, outcome, &moments, status);
        else if (i == 0)
            move_result(&outcome->result, &sample);
        resample_result_free(&sample);
    }
    if (outcome->samples > 0)
        finish_moments(&moments, outcome);
    free(moments.sum);
    free(moments.square);
    return status->code;
}
