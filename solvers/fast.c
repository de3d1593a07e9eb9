/* The fast preset (algorithm.md section 12, docs/fast-preset.md). The latent walks down noise
 * levels:
 *
 *     zhat = E[z0 | z]                                              one UNet pass
 *     x    = argmin |y - A x|^2 / (2 sigma_y^2) + |x - D(zhat)|^2 / (2 g)
 *     z0   = zhat + Enc(x) - Enc(D(zhat)); at the last levels then, from there,
 *            argmin |y - A D(z0)|^2 / (2 sigma_y^2) + |z0 - zhat|^2 / (2 w)
 *     z    = z0 + s_next * noise
 *
 * with g and w in proportion to s^2. At the end the latent's picture gets what it lacks, until what
 * is left is noise: G u with u near 0 and G a blur (before that the latent moves without a prior,
 * where iterations are asked for). Conjugate gradients do all of it: the gradient is one
 * vector-Jacobian product, and the step is exact for the linearisation of A D, which takes one
 * Jacobian-vector product. D does not quantise here, or the energy would have jumps. In the tapes
 * the energy is multiplied by sigma_y^2. */
#include "solvers/resample_internal.h"

#include <math.h>

/* Coefficients of a level, in the state `level`. */
enum {
    LEVEL_INPUT,       /* 1/sqrt(1 + S^2): from z to what the UNet was trained on */
    LEVEL_NOISE,       /* S: zhat = z - S e */
    LEVEL_PRIOR,       /* sigma_y^2 / w */
    LEVEL_PIXEL_PRIOR, /* sigma_y^2 / g */
    LEVEL_NEXT,        /* s of the next level */
    LEVEL_ENDLESS      /* added to the stop rule's loss: does not stop early */
};

/* w / s^2 and g / w. Measured: a third of this width is a little worse, a tenth much; the gain
 * matters little. */
static const double prior_width = 3, pixel_gain = 0.3;

/* Deviation of u; of the blur G in pixels, and how far its taps reach: what an autoencoder errs by
 * is alike in neighbours. */
static const double autoencoder_error = 0.1;
static const double error_blur = 0.7;
enum { ERROR_REACH = 2, ERROR_WIDTH = 2 * ERROR_REACH + 1 };

/* Spacing of the levels, as in Karras et al., "Elucidating the Design Space", eq. 5. */
static const double level_exponent = 7;

/* ---- tapes ---- */

/* x = estimate + s_next * noise */
static struct tape *record_perturb(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "perturb");
    value x = tape_combine_scaled(tape, solver_read(tape, solver->slot.estimate),
                                  solver_read(tape, solver->slot.noise),
                                  solver_read(tape, solver->slot.level), LEVEL_NEXT, 1);
    solver_write(tape, solver->slot.x, x);
    return tape;
}

/* prior = estimate = x - S * UNet(x / sqrt(1 + S^2)) */
static struct tape *record_denoise(struct resample_solver *solver)
{
    const struct solver_slots *slot = &solver->slot;
    struct tape *tape = program_tape(solver->program, "denoise");
    value x = solver_read(tape, slot->x), level = solver_read(tape, slot->level);
    value zero = tape_combine(tape, 0, x, 0, NO_VALUE);
    value scaled = tape_combine_scaled(tape, zero, x, level, LEVEL_INPUT, 1);
    tape_label(tape, "unet");
    value e = unet_record(tape, solver->model, scaled, solver_read(tape, slot->time));
    tape_label(tape, "denoise");
    value estimate = tape_combine_scaled(tape, x, e, level, LEVEL_NOISE, -1);
    solver_write(tape, slot->prior, estimate);
    solver_write_result(solver, tape, slot->estimate, estimate);
    return tape;
}

/* Energy of what the measurement says and of the distance from the prior. */
static value record_energy(struct resample_solver *solver, struct tape *tape, const struct fit *fit,
                           value variable, value data)
{
    double entries = (double)shape_elements(solver->forward_operator->measurement_shape);
    double elements = (double)shape_elements(tape_shape(tape, variable));
    value center =
        fit->blurred ? tape_combine(tape, 0, variable, 0, NO_VALUE) : solver_read(tape, fit->prior);
    value prior = tape_mean_squared_error(tape, variable, center);
    return tape_combine_scaled(tape, tape_combine(tape, entries / 2, data, 0, NO_VALUE), prior,
                               solver_read(tape, solver->slot.level), fit->weight, elements / 2);
}

/* Prior picture plus the blurred distance from it. */
static value record_blurred(struct resample_solver *solver, struct tape *tape, value distance)
{
    value blurred = tape_tap_filter(tape, distance, solver_read(tape, solver->fast.taps),
                                    solver_read(tape, solver->fast.tap_weights));
    return tape_combine(tape, 1, solver_read(tape, solver->fast.last_pixel.prior), 1, blurred);
}

static void record_stop(struct resample_solver *solver, struct tape *tape, value data)
{
    value endless = tape_combine_scaled(tape, data, solver_read(tape, solver->slot.one),
                                        solver_read(tape, solver->slot.level), LEVEL_ENDLESS, 1);
    tape_exit_if(tape,
                 tape_stop_rule(tape, endless, NO_VALUE, solver_read(tape, solver->slot.iteration),
                                solver_threshold(solver), true));
}

/* One iteration of conjugate gradients: energy and gradient, direction, step. */
static void record_iteration(struct resample_solver *solver, struct fit *fit, const char *name)
{
    const struct solver_slots *slot = &solver->slot;
    struct tape *tape = fit->iteration = program_tape(solver->program, name);
    value variable = solver_read(tape, fit->variable), d = solver_read(tape, fit->direction);
    value search = solver_read(tape, slot->search), image = variable;
    if (fit->blurred) {
        image = record_blurred(solver, tape, variable);
        solver_write(tape, slot->image, image);
    }
    if (fit->variable == slot->estimate) {
        tape_label(tape, "decoder");
        image = decoder_record(tape, solver->model, variable, false);
        solver_write(tape, slot->image, image);
    }
    value predicted = solver_record_measurement(solver, tape, image);
    tape_label(tape, "energy");
    value data = tape_mean_squared_error(tape, predicted, solver_read(tape, slot->measurement));
    solver_write(tape, slot->loss, data);
    solver_write(tape, slot->check, data);
    record_stop(solver, tape, data);
    value energy = record_energy(solver, tape, fit, variable, data);
    value gradient = tape_gradient(tape, energy, variable);
    tape_label(tape, "direction");
    tape_search_direction(tape, energy, gradient, solver_read(tape, fit->previous_gradient), d,
                          search);
    value change = tape_jvp(tape, predicted, variable, d);
    tape_label(tape, "step");
    value curvature =
        tape_combine_scaled(tape, tape_dot(tape, change, change), tape_dot(tape, d, d),
                            solver_read(tape, slot->level), fit->weight, 1);
    tape_search_step(tape, variable, solver_read(tape, fit->base), d, curvature, search);
}

/* estimate = prior + E(image) - E(prior image): what the pixels learnt, without the autoencoder's
 * own error. */
static struct tape *record_encode_change(struct resample_solver *solver)
{
    const struct solver_slots *slot = &solver->slot;
    struct tape *tape = program_tape(solver->program, "encode change");
    tape_label(tape, "encoder");
    value after = encoder_record(tape, solver->model, solver_read(tape, slot->image));
    value before = encoder_record(tape, solver->model, solver_read(tape, solver->fast.pixel.prior));
    value change = tape_combine(tape, 1, after, -1, before);
    solver_write_result(solver, tape, slot->estimate,
                        tape_combine(tape, 1, solver_read(tape, slot->prior), 1, change));
    return tape;
}

/* The picture of the last pixels' distance: an iteration writes that of the one before its step. */
static struct tape *record_last_image(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "last image");
    value distance = solver_read(tape, solver->fast.last_pixel.variable);
    solver_write(tape, solver->slot.image, record_blurred(solver, tape, distance));
    return tape;
}

/* loss = that of `image` */
static struct tape *record_residual(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "residual");
    value predicted =
        solver_record_measurement(solver, tape, solver_read(tape, solver->slot.image));
    value loss =
        tape_mean_squared_error(tape, predicted, solver_read(tape, solver->slot.measurement));
    solver_write_result(solver, tape, solver->slot.loss, loss);
    return tape;
}

static void declare_blur(struct resample_solver *solver)
{
    enum { TAPS = ERROR_WIDTH * ERROR_WIDTH };
    const int64_t places[4] = {1, 1, TAPS, 2}, one_each[4] = {1, 1, 1, TAPS};
    int32_t taps[2 * TAPS];
    double weights[TAPS], sum = 0;
    for (int i = 0; i < TAPS; i++) {
        int y = i / ERROR_WIDTH - ERROR_REACH, x = i % ERROR_WIDTH - ERROR_REACH;
        taps[2 * i] = y;
        taps[2 * i + 1] = x;
        weights[i] = exp(-(y * y + x * x) / (2 * error_blur * error_blur));
        sum += weights[i];
    }
    for (int i = 0; i < TAPS; i++)
        weights[i] /= sum;
    solver->fast.taps = program_constant_i32(solver->program, "blur taps", places, taps);
    solver->fast.tap_weights =
        program_constant_real(solver->program, "blur weights", one_each, weights);
}

void fast_declare_state(struct resample_solver *solver)
{
    struct solver_slots *slot = &solver->slot;
    struct program *program = solver->program;
    const int64_t one[4] = {1, 1, 1, 1}, state[4] = {1, 1, 1, SEARCH_STATE};
    const int64_t coefficients[4] = {1, 1, 1, COEFFICIENTS};
    slot->prior = program_state(program, "prior", TYPE_F32, solver->latent_shape);
    slot->measurement = program_state(program, "measurement", TYPE_F32,
                                      solver->forward_operator->measurement_shape);
    slot->previous_image = program_state(program, "previous image", TYPE_F32, solver->image_shape);
    slot->level = program_state(program, "level", TYPE_F32, coefficients);
    slot->search = program_state(program, "search", TYPE_F32, state);
    slot->loss = program_state(program, "loss", TYPE_F32, one);
    slot->iteration = program_state(program, "iteration", TYPE_I32, one);
    slot->one = program_constant_real(program, "one", one, &(double){1});
    solver->fast.latent = (struct fit){
        .variable = slot->estimate,
        .prior = slot->prior,
        .base = slot->previous,
        .direction = program_state(program, "direction", TYPE_F32, solver->latent_shape),
        .previous_gradient = program_state(program, "gradient", TYPE_F32, solver->latent_shape),
        .weight = LEVEL_PRIOR,
    };
    solver->fast.pixel = (struct fit){
        .variable = slot->image,
        .prior = program_state(program, "prior image", TYPE_F32, solver->image_shape),
        .base = slot->previous_image,
        .direction = program_state(program, "pixel direction", TYPE_F32, solver->image_shape),
        .previous_gradient =
            program_state(program, "pixel gradient", TYPE_F32, solver->image_shape),
        .weight = LEVEL_PIXEL_PRIOR,
    };
    solver->fast.last_pixel = solver->fast.pixel;
    solver->fast.last_pixel.blurred = true;
    solver->fast.last_pixel.variable =
        program_state(program, "pixel distance", TYPE_F32, solver->image_shape);
    declare_blur(solver);
}

void fast_record(struct resample_solver *solver)
{
    struct fast_tapes *fast = &solver->fast;
    fast->perturb = record_perturb(solver);
    fast->denoise = record_denoise(solver);
    record_iteration(solver, &fast->pixel, "pixel iteration");
    record_iteration(solver, &fast->last_pixel, "last pixel iteration");
    record_iteration(solver, &fast->latent, "iteration");
    fast->encode_change = record_encode_change(solver);
    fast->keep_prior =
        solver_record_copy(solver, "keep prior", solver->slot.image, fast->pixel.prior);
    fast->pixel_loop = program_tape(solver->program, "pixel loop");
    tape_while(fast->pixel_loop, fast->pixel.iteration, solver->settings.pixel_iterations);
    fast->last_pixel_loop = program_tape(solver->program, "last pixel loop");
    tape_while(fast->last_pixel_loop, fast->last_pixel.iteration,
               solver->settings.pixel_iterations);
    fast->last_image = record_last_image(solver);
    fast->level = program_tape(solver->program, "level");
    tape_while(fast->level, fast->latent.iteration, solver->settings.iterations);
    fast->last = program_tape(solver->program, "last");
    tape_while(fast->last, fast->latent.iteration, solver->settings.final_iterations);
    fast->decode_continuous = solver_record_decode(solver, "decode continuous", false);
    fast->residual = record_residual(solver);
    fast->keep_image =
        solver_record_copy(solver, "keep image", solver->slot.image, solver->slot.previous_image);
    fast->take_image =
        solver_record_copy(solver, "take image", solver->slot.previous_image, solver->slot.image);
}

/* ---- levels ---- */

double fast_level(const struct resample_settings *settings, int i)
{
    if (settings->levels == 1)
        return settings->sigma_max;
    double first = pow(settings->sigma_max, 1 / level_exponent);
    double last = pow(settings->sigma_min, 1 / level_exponent);
    return pow(first + (last - first) * i / (settings->levels - 1), level_exponent);
}

/* The DDPM time whose noise level sqrt((1 - a)/a) is nearest to s, and that level. */
static int time_of_level(const struct schedule *schedule, double s, double *noise)
{
    int best = 0;
    *noise = INFINITY;
    for (int t = 0; t < schedule->timesteps; t++) {
        double a = schedule->alphas_cumprod[t], level = sqrt((1 - a) / a);
        if (fabs(level - s) < fabs(*noise - s)) {
            *noise = level;
            best = t;
        }
    }
    return best;
}

static double noise_variance(const struct resample_settings *settings)
{
    double sigma = settings->sigma > 0 ? settings->sigma : 1e-3;
    return sigma * sigma;
}

/* Writes level i's coefficients and the UNet's time, which it returns; i = levels: of the end. */
static int set_level(struct resample_solver *solver, int i)
{
    const struct resample_settings *settings = &solver->settings;
    float level[COEFFICIENTS] = {0};
    int t = 0;
    if (i < settings->levels) {
        double s = fast_level(settings, i), noise;
        t = time_of_level(&solver->schedule, s, &noise);
        level[LEVEL_INPUT] = (float)(1 / sqrt(1 + noise * noise));
        level[LEVEL_NOISE] = (float)noise;
        level[LEVEL_PRIOR] = (float)(noise_variance(settings) / (prior_width * s * s));
        level[LEVEL_PIXEL_PRIOR] = level[LEVEL_PRIOR] / (float)pixel_gain;
        level[LEVEL_NEXT] = i + 1 < settings->levels ? (float)fast_level(settings, i + 1) : 0;
        level[LEVEL_ENDLESS] = 1e30f;
    } else
        level[LEVEL_PIXEL_PRIOR] =
            (float)(noise_variance(settings) / (autoencoder_error * autoencoder_error));
    program_write(solver->program, solver->slot.level, level);
    for (int64_t n = 0; n < solver->latent_shape[0]; n++)
        solver->times[n] = (float)t;
    program_write(solver->program, solver->slot.time, solver->times);
    return t;
}

static void start_search(struct resample_solver *solver)
{
    const float search[SEARCH_STATE] = {[SEARCH_FRESH] = 2};
    program_write(solver->program, solver->slot.search, search);
}

void fast_prepare_timing(struct resample_solver *solver)
{
    set_level(solver, 0);
    start_search(solver);
}

/* ---- the run ---- */

/* The iteration that finds the noise level reached stops before its products. */
static void count_passes(struct run *run, const struct resample_step *step, int64_t limit)
{
    int64_t products = step->iterations - (step->iterations < limit);
    run->result->decoder_evaluations += step->iterations;
    run->result->decoder_vjps += products;
    run->result->decoder_jvps += products;
}

/* Conjugate gradients from a fresh start. */
static int run_fit(struct run *run, const struct fit *fit, struct tape *loop, const char *stage,
                   int64_t limit, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    bool latent = fit->variable == solver->slot.estimate;
    float search[SEARCH_STATE];
    if (limit == 0)
        return run->status->code;
    start_search(solver);
    program_zero(solver->program, solver->slot.iteration);
    int code = run_loop(run, loop, stage, latent ? WORK_LATENT : WORK_PIXEL, limit);
    step->iterations = program_iterations(fit->iteration);
    step->loss = program_read_scalar(solver->program, solver->slot.loss);
    program_read(solver->program, solver->slot.search, search);
    step->shortened = (int64_t)search[SEARCH_SHORTENED];
    run->left[latent ? WORK_LATENT : WORK_PIXEL] -= limit - step->iterations;
    run->result->optimisations++;
    run->result->iterations += step->iterations;
    run->result->shortened += step->shortened;
    if (latent)
        count_passes(run, step, limit);
    if (code == STATUS_OK && !isfinite(step->loss)) {
        run_explain(run, fit->iteration, fit->variable, fit->base);
        status_prefix(run->status, "level %d, %s iteration %lld", solver->settings.levels - run->j,
                      stage, (long long)step->iterations);
    }
    return run->status->code;
}

/* The picture becomes the prior, around which the fit moves its variable. */
static int fit_around_image(struct run *run, const struct fit *fit, struct tape *loop,
                            const char *stage, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    if (program_run(solver->program, solver->fast.keep_prior, NULL, run->status) != STATUS_OK)
        return run->status->code;
    return run_fit(run, fit, loop, stage, solver->settings.pixel_iterations, step);
}

/* estimate = prior moved to where the measurement has its pixels. */
static int fit_pixels(struct run *run, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    double since = clock_seconds();
    run->result->decoder_evaluations++;
    if (run_tape(run, solver->fast.decode_continuous, solver->slot.estimate, -1) != STATUS_OK ||
        fit_around_image(run, &solver->fast.pixel, solver->fast.pixel_loop, "pixel", step) !=
            STATUS_OK)
        return run->status->code;
    run->result->encoder_evaluations += 2;
    int code = run_tape(run, solver->fast.encode_change, solver->slot.prior, -1);
    run_book(run, WORK_LATENT, 1, since);
    return code;
}

static int denoise(struct run *run, int level, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    double since = clock_seconds();
    step->t = set_level(solver, level);
    run->result->unet_evaluations++;
    int code = run_tape(run, solver->fast.denoise, solver->slot.x, -1);
    run_book(run, WORK_UNET, 1, since);
    return code;
}

static int perturb(struct run *run)
{
    if (run_draw(run) != STATUS_OK)
        return run->status->code;
    return program_run(run->solver->program, run->solver->fast.perturb, NULL, run->status);
}

/* The start: noise of the highest level alone (estimate is zero). */
static int start(struct run *run)
{
    struct resample_solver *solver = run->solver;
    float level[COEFFICIENTS] = {[LEVEL_NEXT] = (float)fast_level(&solver->settings, 0)};
    program_write(solver->program, solver->slot.level, level);
    return perturb(run);
}

static int fit_level(struct run *run, int i, struct resample_step *step)
{
    struct resample_solver *solver = run->solver;
    const struct resample_settings *settings = &solver->settings;
    if (fit_pixels(run, step) != STATUS_OK || i < settings->levels - settings->latent_levels)
        return run->status->code;
    return run_fit(run, &solver->fast.latent, solver->fast.level, "level", settings->iterations,
                   step);
}

static int walk(struct run *run)
{
    struct resample_solver *solver = run->solver;
    int levels = solver->settings.levels;
    for (int i = 0; i < levels; i++) {
        run->j = levels - 1 - i;
        struct resample_step step = {
            .j = run->j, .event = "level", .norm = NAN, .level = fast_level(&solver->settings, i)};
        if (denoise(run, i, &step) != STATUS_OK || fit_level(run, i, &step) != STATUS_OK)
            return run->status->code;
        run->steps_done++;
        run_tell(run, &step, solver->slot.estimate);
        if (i + 1 < levels && perturb(run) != STATUS_OK)
            return run->status->code;
    }
    return STATUS_OK;
}

static int decode_and_measure(struct run *run, struct tape *decode, double *loss)
{
    struct resample_solver *solver = run->solver;
    run->result->decoder_evaluations++;
    if (run_tape(run, decode, solver->slot.estimate, -1) != STATUS_OK ||
        run_tape(run, solver->fast.residual, solver->slot.image, -1) != STATUS_OK)
        return run->status->code;
    *loss = program_read_scalar(solver->program, solver->slot.loss);
    return STATUS_OK;
}

/* Decodes both ways and keeps the picture that fits the measurement better. */
static int decode_better(struct run *run, double *loss)
{
    struct resample_solver *solver = run->solver;
    double quantized, continuous;
    if (decode_and_measure(run, solver->tape.decode, &quantized) != STATUS_OK ||
        program_run(solver->program, solver->fast.keep_image, NULL, run->status) != STATUS_OK ||
        decode_and_measure(run, solver->fast.decode_continuous, &continuous) != STATUS_OK)
        return run->status->code;
    run->result->quantized = quantized < continuous;
    *loss = fmin(quantized, continuous);
    return run->result->quantized
               ? program_run(solver->program, solver->fast.take_image, NULL, run->status)
               : STATUS_OK;
}

/* What the measurement shows and the decoder cannot make, first as far as it is smooth; nothing
 * where only noise is left. */
static int fit_last_pixels(struct run *run, double *loss)
{
    struct resample_solver *solver = run->solver;
    struct resample_step step = {0};
    program_zero(solver->program, solver->fast.last_pixel.variable);
    if (fit_around_image(run, &solver->fast.last_pixel, solver->fast.last_pixel_loop, "final",
                         &step) != STATUS_OK ||
        program_run(solver->program, solver->fast.last_image, NULL, run->status) != STATUS_OK ||
        fit_around_image(run, &solver->fast.pixel, solver->fast.pixel_loop, "final", &step) !=
            STATUS_OK ||
        run_tape(run, solver->fast.residual, solver->slot.image, -1) != STATUS_OK)
        return run->status->code;
    *loss = program_read_scalar(solver->program, solver->slot.loss);
    return STATUS_OK;
}

static int finish(struct run *run)
{
    struct resample_solver *solver = run->solver;
    struct resample_step step = {.j = -1, .event = "final", .norm = NAN, .level = 0};
    run->j = -1;
    set_level(solver, solver->settings.levels);
    if (run_fit(run, &solver->fast.latent, solver->fast.last, "final",
                solver->settings.final_iterations, &step) != STATUS_OK ||
        decode_better(run, &step.loss) != STATUS_OK ||
        fit_last_pixels(run, &step.loss) != STATUS_OK)
        return run->status->code;
    run_tell(run, &step, solver->slot.estimate);
    return STATUS_OK;
}

int fast_run(struct run *run)
{
    if (start(run) != STATUS_OK || walk(run) != STATUS_OK)
        return run->status->code;
    return finish(run);
}
