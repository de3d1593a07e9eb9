/* Accounting of one run: the work that the schedule asks for at most, what each kind of it takes,
 * and what is told to the observer. */
#include "solvers/resample_internal.h"

#include <math.h>
#include <time.h>

double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A pixel stage's decode and encode, and the final decode, count as one latent iteration each: they
 * take less than a decoder pass and its VJP. */
void run_count_work(struct run *run)
{
    const struct resample_solver *solver = run->solver;
    const struct resample_settings *settings = &solver->settings;
    bool official = settings->preset == PRESET_OFFICIAL;
    if (settings->preset == PRESET_FAST) {
        int64_t latent_levels =
            settings->latent_levels < settings->levels ? settings->latent_levels : settings->levels;
        run->left[WORK_UNET] = settings->levels;
        run->left[WORK_PIXEL] = (int64_t)(settings->levels + 2) * settings->pixel_iterations;
        run->left[WORK_LATENT] = settings->levels + latent_levels * settings->iterations +
                                 settings->final_iterations + 1;
        return;
    }
    for (int j = solver->ddim.length - 1; j >= 0; j--) {
        run->left[official ? WORK_GUIDED : WORK_UNET]++;
        if (!solver_resamples(solver, j))
            continue;
        if (official)
            run->left[WORK_UNET] +=
                j < solver->settings.look_ahead ? j : solver->settings.look_ahead;
        bool pixels = solver_over_pixels(solver, j);
        run->left[WORK_PIXEL] += pixels ? solver->pixel.limit : 0;
        run->left[WORK_LATENT] += pixels ? 1 : solver->latent.limit;
    }
    run->left[WORK_LATENT] += solver->latent.limit + 1;
}

static int64_t count_pixel_stages(const struct resample_solver *solver)
{
    int64_t stages = 0;
    for (int j = 0; j < solver->ddim.length; j++)
        stages += solver_resamples(solver, j) && solver_over_pixels(solver, j);
    return stages;
}

void solver_expect_replays(struct resample_solver *solver)
{
    const struct solver_tapes *tape = &solver->tape;
    struct run run = {.solver = solver};
    if (!solver->forward_operator) {
        program_expect(tape->ddim, solver->ddim.length);
        return;
    }
    run_count_work(&run);
    if (solver->settings.preset == PRESET_FAST) {
        program_expect(solver->fast.denoise, run.left[WORK_UNET]);
        program_expect(solver->fast.encode_change, solver->settings.levels);
        program_expect(solver->fast.decode_continuous, solver->settings.levels + 1);
        return;
    }
    program_expect(tape->ddim, run.left[WORK_UNET]);
    if (tape->guided)
        program_expect(tape->guided, run.left[WORK_GUIDED]);
    program_expect(tape->encode, count_pixel_stages(solver));
    program_expect(tape->decode, count_pixel_stages(solver) + 1);
}

void run_book(struct run *run, enum work work, int64_t units, double since)
{
    run->left[work] -= units;
    run->done[work] += units;
    run->seconds[work] += clock_seconds() - since;
}

double run_seconds_left(const struct run *run)
{
    double seconds = 0;
    for (int work = 0; work < WORK_COUNT; work++) {
        double timed = run->solver->timed[work];
        double each = run->done[work] ? run->seconds[work] / (double)run->done[work]
                      : timed > 0     ? timed
                                      : NAN;
        if (run->left[work] > 0)
            seconds += each * (double)run->left[work];
    }
    return seconds;
}

void run_report_progress(struct run *run, const char *stage, int64_t iteration, int64_t limit,
                         double residual)
{
    if (!run->observer || !run->observer->progress)
        return;
    double sigma = run->solver->settings.sigma;
    struct resample_progress progress = {
        .stage = stage,
        .step = run->steps_done,
        .steps = run->solver->settings.preset == PRESET_FAST ? run->solver->settings.levels
                                                             : run->solver->ddim.length,
        .iteration = iteration,
        .iteration_limit = limit,
        .residual = residual,
        .target = sigma < 0    ? NAN
                  : sigma == 0 ? 1e-3
                               : sigma,
        .seconds = clock_seconds() - run->start,
        .seconds_left = run_seconds_left(run),
    };
    run->observer->progress(run->observer->context, &progress);
}
