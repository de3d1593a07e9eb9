/* Unconditional sampling: the DDIM chain alone, then one decode. */
#include "solvers/resample_internal.h"

#include <math.h>
#include <stdlib.h>

/* Draws of one picture start here, so that a picture is the same whatever `count` and the number of
 * steps are: a schedule has fewer steps than this. */
enum { DRAWS_PER_PICTURE = 4096 };

static int sample_one(struct run *run)
{
    struct resample_solver *solver = run->solver;
    if (run_start(run) != STATUS_OK)
        return run->status->code;
    run->steps_done = 0;
    for (run->j = solver->ddim.length - 1; run->j >= 0; run->j--) {
        if (run_ddim(run, solver->tape.ddim, run->j, solver->ddim.tau[run->j]) != STATUS_OK)
            return run->status->code;
        run->steps_done++;
        run_report_progress(run, "sampling", 0, 0, NAN);
    }
    if (program_run(solver->program, solver->tape.take_x, NULL, run->status) != STATUS_OK)
        return run->status->code;
    return run_tape(run, solver->tape.decode, solver->slot.estimate, -1);
}

int sample_run(struct model *model, const struct resample_settings *settings, int count,
               int64_t height, int64_t width,
               void (*done)(void *context, int index, const float *image_nchw,
                            const float *latent_nchw),
               void *context, const struct resample_observer *observer, struct status *status)
{
    const int64_t shape[4] = {1, height, width, model->config.autoencoder.out_ch};
    float *latent = NULL;
    struct resample_solver *solver = solver_create(model, NULL, shape, settings, true, status);
    if (!solver)
        return status->code;
    latent = status_calloc(status, (unsigned long)shape_elements(solver->latent_shape),
                           sizeof(float), "the latent");
    struct resample_result counts = {0};
    struct run run;
    run_begin(&run, solver, observer, &counts, status);
    run.left[WORK_UNET] = (int64_t)count * solver->ddim.length;
    for (int index = 0; index < count && status_ok(status); index++) {
        if (!settings->noise) {
            run.first_draw = (int64_t)index * DRAWS_PER_PICTURE;
            run.draws = 0;
        }
        if (sample_one(&run) != STATUS_OK)
            break;
        program_read_nchw(solver->program, solver->slot.image, solver->scratch);
        program_read_nchw(solver->program, solver->slot.estimate, latent);
        done(context, index, solver->scratch, latent);
    }
    free(latent);
    resample_free(solver);
    return status->code;
}
