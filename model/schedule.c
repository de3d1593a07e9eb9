/* Noise schedules (algorithm.md section 2). */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* beta_i is the square of point i of a linear ramp. The ramp is counted from its nearer end, as
 * PyTorch's linspace does, so that the last bits agree. */
static double schedule_beta(const struct model_config *config, int i)
{
    double start = sqrt(config->linear_start), end = sqrt(config->linear_end);
    int n = config->timesteps;
    double step = n > 1 ? (end - start) / (n - 1) : 0;
    double root = i < n / 2 || n == 1 ? start + step * i : end - step * (n - 1 - i);
    return root * root;
}

static int schedule_from_checkpoint(struct schedule *schedule,
                                    const struct checkpoint_tensor *tensor, struct status *status)
{
    checkpoint_read(tensor, schedule->alphas_cumprod);
    float previous = 1;
    for (int i = 0; i < schedule->timesteps; i++) {
        float a = schedule->alphas_cumprod[i];
        if (!(a > 0 && a <= previous))
            return status_set(status, STATUS_BAD_INPUT,
                              "alphas_cumprod[%d] in the checkpoint is %g: expected values that "
                              "fall from 1 towards 0",
                              i, (double)a);
        previous = a;
    }
    return STATUS_OK;
}

int schedule_create(struct schedule *schedule, const struct model *model, struct status *status)
{
    const struct model_config *config = &model->config;
    *schedule = (struct schedule){.timesteps = config->timesteps};
    schedule->alphas_cumprod = status_calloc(status, (unsigned long)config->timesteps,
                                             sizeof *schedule->alphas_cumprod, "the schedule");
    if (!schedule->alphas_cumprod)
        return status->code;
    const struct checkpoint_tensor *buffer =
        model->checkpoint ? checkpoint_find(model->checkpoint, "alphas_cumprod") : NULL;
    if (buffer && buffer->rank == 1 && buffer->shape[0] == config->timesteps &&
        buffer->type <= CHECKPOINT_F64)
        return schedule_from_checkpoint(schedule, buffer, status);
    double product = 1;
    for (int i = 0; i < config->timesteps; i++) {
        product *= 1 - schedule_beta(config, i);
        schedule->alphas_cumprod[i] = (float)product;
    }
    return STATUS_OK;
}

void schedule_free(struct schedule *schedule)
{
    free(schedule->alphas_cumprod);
    *schedule = (struct schedule){0};
}

/* The times are 1, 1 + stride, ... (stride = timesteps/steps): do they stay in the schedule? */
static bool steps_fit(int timesteps, int steps)
{
    if (steps < 1 || steps > timesteps)
        return false;
    int stride = timesteps / steps;
    return (timesteps - 1) / stride * stride + 1 < timesteps;
}

static int check_steps(int timesteps, int steps, struct status *status)
{
    if (steps < 1)
        return status_set(status, STATUS_BAD_INPUT, "%d DDIM steps: expected at least 1", steps);
    if (steps_fit(timesteps, steps))
        return STATUS_OK;
    int other = steps < timesteps ? steps : timesteps;
    while (other > 0 && !steps_fit(timesteps, other))
        other--;
    if (other == 0)
        return status_set(status, STATUS_BAD_INPUT,
                          "a schedule of %d timesteps is too short for DDIM", timesteps);
    return status_set(status, STATUS_BAD_INPUT,
                      "%d DDIM steps lead beyond the schedule of %d timesteps: the next smaller "
                      "number that works is %d",
                      steps, timesteps, other);
}

static void ddim_fill(struct ddim_schedule *ddim, const float *alphas_cumprod, int stride,
                      double eta)
{
    for (int j = 0; j < ddim->length; j++) {
        ddim->tau[j] = j * stride + 1;
        float a = alphas_cumprod[ddim->tau[j]];
        float a_prev = alphas_cumprod[j > 0 ? ddim->tau[j - 1] : 0];
        ddim->a[j] = a;
        ddim->a_prev[j] = a_prev;
        ddim->sqrt_one_minus_a[j] = sqrtf(1 - a);
        ddim->sigma[j] = (float)(eta * sqrt((1. - a_prev) / (1. - a) * (1 - (double)a / a_prev)));
    }
}

int ddim_schedule_create(struct ddim_schedule *ddim, const struct schedule *schedule, int steps,
                         double eta, struct status *status)
{
    *ddim = (struct ddim_schedule){0};
    if (check_steps(schedule->timesteps, steps, status))
        return status->code;
    if (!(eta >= 0 && eta <= 1))
        return status_set(status, STATUS_BAD_INPUT, "DDIM eta %g: expected 0 to 1", eta);
    int stride = schedule->timesteps / steps;
    ddim->length = (schedule->timesteps - 1) / stride + 1;
    unsigned long length = (unsigned long)ddim->length;
    ddim->tau = status_calloc(status, length, sizeof *ddim->tau, "the DDIM schedule");
    float **tables[] = {&ddim->a, &ddim->a_prev, &ddim->sigma, &ddim->sqrt_one_minus_a};
    for (int i = 0; i < 4; i++)
        *tables[i] = status_calloc(status, length, sizeof(float), "the DDIM schedule");
    if (!status_ok(status)) {
        ddim_schedule_free(ddim);
        return status->code;
    }
    ddim_fill(ddim, schedule->alphas_cumprod, stride, eta);
    return STATUS_OK;
}

void ddim_schedule_free(struct ddim_schedule *ddim)
{
    free(ddim->tau);
    free(ddim->a);
    free(ddim->a_prev);
    free(ddim->sigma);
    free(ddim->sqrt_one_minus_a);
    *ddim = (struct ddim_schedule){0};
}
