/* The two inner optimisations, over pixels and over latents: state reset, the loop on the device,
 * and what is told of it. */
#include "solvers/resample_internal.h"

#include <math.h>

struct watch {
    struct run *run;
    const char *stage;
    enum work work;
    int64_t limit, booked; /* iterations */
    double since;
};

static double root_mean_square(const struct resample_solver *solver, double loss)
{
    bool official = solver->settings.preset == PRESET_OFFICIAL;
    return sqrt(official ? loss : loss / solver->forward_operator->reachable_fraction);
}

static bool after_iteration(void *context, int64_t iteration, double loss)
{
    struct watch *watch = context;
    double now = clock_seconds();
    run_book(watch->run, watch->work, iteration - watch->booked, watch->since);
    watch->booked = iteration;
    watch->since = now;
    run_report_progress(watch->run, watch->stage, iteration, watch->limit,
                        root_mean_square(watch->run->solver, loss));
    return true;
}

int run_loop(struct run *run, struct tape *loop, const char *stage, enum work work, int64_t limit)
{
    struct watch watch = {
        .run = run, .stage = stage, .work = work, .limit = limit, .since = clock_seconds()};
    struct program_hooks hooks = {.after_iteration = after_iteration,
                                  .context = &watch,
                                  .cancelled = run->observer ? run->observer->cancelled : NULL};
    return program_run(run->solver->program, loop, &hooks, run->status);
}

void minimiser_reset(struct resample_solver *solver, const struct minimiser *minimiser)
{
    program_zero(solver->program, minimiser->mean);
    program_zero(solver->program, minimiser->square);
    program_zero(solver->program, solver->slot.adam_step);
    program_zero(solver->program, solver->slot.iteration);
    if (minimiser->take_best)
        program_write(solver->program, solver->slot.best_loss, &(float){INFINITY});
}

/* Puts the best iterate in the variable's place if there is one; returns its loss. */
static double take_best(struct resample_solver *solver, const struct minimiser *minimiser,
                        struct status *status)
{
    double best = program_read_scalar(solver->program, solver->slot.best_loss);
    if (isfinite(best))
        program_run(solver->program, minimiser->take_best, NULL, status);
    return best;
}

int run_minimise(struct run *run, struct minimiser *minimiser, const char *stage,
                 int64_t *iterations, double *loss)
{
    struct resample_solver *solver = run->solver;
    bool latent = minimiser->variable == solver->slot.estimate;
    *iterations = 0;
    *loss = NAN;
    if (minimiser->limit == 0)
        return run->status->code;
    minimiser_reset(solver, minimiser);
    enum work work = latent ? WORK_LATENT : WORK_PIXEL;
    int code = run_loop(run, minimiser->loop, stage, work, minimiser->limit);
    *iterations = program_iterations(minimiser->body);
    *loss = program_read_scalar(solver->program, solver->slot.loss);
    run->left[work] -= minimiser->limit - *iterations;
    run->result->optimisations++;
    run->result->iterations += *iterations;
    if (latent) {
        run->result->decoder_evaluations += *iterations;
        /* the paper's loop stops before the product */
        bool stopped = minimiser->take_best && *iterations < minimiser->limit;
        run->result->decoder_vjps += *iterations - stopped;
    }
    bool broken =
        code == STATUS_OK && !isfinite(program_read_scalar(solver->program, solver->slot.check));
    if (broken) {
        run_explain(run, minimiser->body, minimiser->variable, minimiser->previous);
        status_prefix(run->status, "step j=%d, %s iteration %lld", run->j, stage,
                      (long long)*iterations);
    }
    if (minimiser->take_best) {
        struct status ignored = {0};
        *loss = take_best(solver, minimiser, code == STATUS_OK ? run->status : &ignored);
    }
    return run->status->code;
}
