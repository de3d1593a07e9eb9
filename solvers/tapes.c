/* The tapes of a solve and the state they share: each tape is one line of the algorithm's box. */
#include "solvers/resample_internal.h"

#include <math.h>
#include <string.h>

static const int64_t scalar_shape[4] = {1, 1, 1, 1};

static int latent_state(struct resample_solver *solver, const char *name)
{
    return program_state(solver->program, name, TYPE_F32, solver->latent_shape);
}

static int image_state(struct resample_solver *solver, const char *name)
{
    return program_state(solver->program, name, TYPE_F32, solver->image_shape);
}

static int vector_state(struct resample_solver *solver, const char *name, int64_t length)
{
    return program_state(solver->program, name, TYPE_F32, (const int64_t[4]){1, 1, 1, length});
}

static int integer_state(struct resample_solver *solver, const char *name, int64_t length)
{
    return program_state(solver->program, name, TYPE_I32, (const int64_t[4]){1, 1, 1, length});
}

static void declare_solve_state(struct resample_solver *solver)
{
    struct solver_slots *slot = &solver->slot;
    bool paper = solver->settings.preset == PRESET_PAPER;
    slot->x_t = paper ? slot->x : latent_state(solver, "x_t");
    slot->measurement = program_state(solver->program, "measurement", TYPE_F32,
                                      solver->forward_operator->measurement_shape);
    slot->previous_image = image_state(solver, "previous image");
    slot->resample = vector_state(solver, "resample coefficients", COEFFICIENTS);
    slot->loss = program_state(solver->program, "loss", TYPE_F32, scalar_shape);
    slot->norm = program_state(solver->program, "norm", TYPE_F32, scalar_shape);
    slot->adam_step = integer_state(solver, "adam step", 1);
    slot->iteration = integer_state(solver, "iteration", 1);
    if (paper)
        slot->best_loss = program_state(solver->program, "best loss", TYPE_F32, scalar_shape);
    else
        slot->window = vector_state(solver, "stop window", STOP_WINDOW);

    solver->pixel = (struct minimiser){
        .stage = "pixel",
        .variable = slot->image,
        .previous = slot->previous_image,
        .mean = image_state(solver, "pixel mean"),
        .square = image_state(solver, "pixel square"),
        .best = paper ? image_state(solver, "best image") : -1,
        .limit = solver->settings.pixel_iterations,
        .learning_rate = 1e-2,
    };
    solver->latent = (struct minimiser){
        .stage = "latent",
        .variable = slot->estimate,
        .previous = slot->previous,
        .mean = latent_state(solver, "latent mean"),
        .square = latent_state(solver, "latent square"),
        .best = paper ? latent_state(solver, "best latent") : -1,
        .limit = solver->settings.latent_iterations,
        .learning_rate = 5e-3,
    };
}

void solver_declare_state(struct resample_solver *solver)
{
    struct solver_slots *slot = &solver->slot;
    slot->x = latent_state(solver, "x");
    slot->estimate = latent_state(solver, "estimate");
    slot->previous = latent_state(solver, "previous");
    slot->noise = latent_state(solver, "noise");
    slot->image = image_state(solver, "image");
    slot->counter = integer_state(solver, "counter", 4);
    slot->time = program_state(solver->program, "time", TYPE_F32,
                               (const int64_t[4]){solver->latent_shape[0], 1, 1, 1});
    slot->ddim = vector_state(solver, "ddim coefficients", COEFFICIENTS);
    slot->check = program_state(solver->program, "check", TYPE_F32, scalar_shape);
    if (solver->forward_operator && solver->settings.preset == PRESET_FAST)
        fast_declare_state(solver);
    else if (solver->forward_operator)
        declare_solve_state(solver);
}

double solver_threshold(const struct resample_solver *solver)
{
    double sigma = solver->settings.sigma;
    if (solver->settings.preset == PRESET_OFFICIAL || sigma == 0)
        return 1e-6;
    return solver->forward_operator->reachable_fraction * sigma * sigma;
}

value solver_read(struct tape *tape, int slot)
{
    return tape_state(tape, slot);
}

void solver_write(struct tape *tape, int slot, value v)
{
    tape_assign(tape, tape_state(tape, slot), v);
}

void solver_write_result(const struct resample_solver *solver, struct tape *tape, int slot, value v)
{
    solver_write(tape, slot, v);
    solver_write(tape, solver->slot.check, tape_l2_norm(tape, v));
}

value solver_record_measurement(const struct resample_solver *solver, struct tape *tape,
                                value image)
{
    tape_label(tape, "%s", solver->forward_operator->name);
    return solver->forward_operator->kind->record(solver->forward_operator, solver->bound, tape,
                                                  image);
}

static struct tape *record_draw(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "draw");
    value counter = solver_read(tape, solver->slot.counter);
    solver_write(tape, solver->slot.noise, tape_philox_normal(tape, counter, solver->latent_shape));
    return tape;
}

struct tape *solver_record_copy(struct resample_solver *solver, const char *name, int from, int to)
{
    struct tape *tape = program_tape(solver->program, name);
    solver_write(tape, to, solver_read(tape, from));
    return tape;
}

/* The UNet and the DDIM step at x; keeps x in `previous`. */
static value record_step(struct resample_solver *solver, struct tape *tape, value *pred_x0,
                         value *pseudo)
{
    const struct solver_slots *slot = &solver->slot;
    value x = solver_read(tape, slot->x);
    tape_label(tape, "unet");
    value e = unet_record(tape, solver->model, x, solver_read(tape, slot->time));
    tape_label(tape, "ddim");
    value noise = solver->settings.ddim_eta > 0 ? solver_read(tape, slot->noise) : NO_VALUE;
    value x_next;
    tape_ddim_step(tape, x, e, noise, solver_read(tape, slot->ddim), &x_next, pred_x0, pseudo);
    solver_write(tape, slot->previous, x);
    return x_next;
}

static struct tape *record_ddim(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "ddim");
    bool official = solver->forward_operator && solver->settings.preset == PRESET_OFFICIAL;
    value estimate;
    value x_next =
        record_step(solver, tape, official ? NULL : &estimate, official ? &estimate : NULL);
    solver_write(tape, solver->slot.estimate, estimate);
    solver_write_result(solver, tape, solver->slot.x, x_next);
    return tape;
}

static struct tape *record_guided(struct resample_solver *solver)
{
    const struct solver_slots *slot = &solver->slot;
    struct tape *tape = program_tape(solver->program, "guided");
    value pseudo;
    value x_next = record_step(solver, tape, NULL, &pseudo);
    tape_label(tape, "decoder");
    value image = decoder_record(tape, solver->model, pseudo, true);
    value predicted = solver_record_measurement(solver, tape, image);
    tape_label(tape, "residual");
    value residual = tape_combine(tape, 1, solver_read(tape, slot->measurement), -1, predicted);
    value norm = tape_l2_norm(tape, residual);
    value gradient = tape_gradient(tape, norm, pseudo);
    tape_label(tape, "guidance");
    value x = tape_combine_scaled(tape, x_next, gradient, solver_read(tape, slot->ddim),
                                  GUIDANCE_LENGTH, -1);
    solver_write(tape, slot->estimate, pseudo);
    solver_write(tape, slot->image, image);
    solver_write(tape, slot->norm, norm);
    solver_write(tape, slot->x_t, x);
    solver_write_result(solver, tape, slot->x, x);
    return tape;
}

struct tape *solver_record_decode(struct resample_solver *solver, const char *name, bool quantize)
{
    struct tape *tape = program_tape(solver->program, name);
    tape_label(tape, "decoder");
    value z = solver_read(tape, solver->slot.estimate);
    solver_write_result(solver, tape, solver->slot.image,
                        decoder_record(tape, solver->model, z, quantize));
    return tape;
}

static struct tape *record_encode(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "encode");
    tape_label(tape, "encoder");
    value image = solver_read(tape, solver->slot.image);
    solver_write_result(solver, tape, solver->slot.estimate,
                        encoder_record(tape, solver->model, image));
    return tape;
}

static struct tape *record_resample(struct resample_solver *solver)
{
    const struct solver_slots *slot = &solver->slot;
    struct tape *tape = program_tape(solver->program, "resample");
    value x_t = solver_read(tape, slot->x_t);
    solver_write(tape, slot->previous, x_t);
    value x =
        tape_stochastic_resample(tape, solver_read(tape, slot->estimate), x_t,
                                 solver_read(tape, slot->noise), solver_read(tape, slot->resample));
    solver_write_result(solver, tape, slot->x, x);
    return tape;
}

/* Leaves of a measurement only what the operator can reach. A mask is its own transpose and square,
 * so A A^T is the projection. */
static struct tape *record_reachable(struct resample_solver *solver)
{
    struct tape *tape = program_tape(solver->program, "reachable");
    value y = solver_read(tape, solver->slot.measurement);
    value image = solver->forward_operator->kind->record_adjoint(solver->forward_operator,
                                                                 solver->bound, tape, y);
    solver_write(tape, solver->slot.measurement, solver_record_measurement(solver, tape, image));
    return tape;
}

static value record_loss(struct resample_solver *solver, const struct minimiser *minimiser,
                         struct tape *tape, value variable)
{
    const struct solver_slots *slot = &solver->slot;
    value image = variable;
    if (minimiser->variable == slot->estimate) {
        tape_label(tape, "decoder");
        image = decoder_record(tape, solver->model, variable, true);
        solver_write(tape, slot->image, image);
    }
    value predicted = solver_record_measurement(solver, tape, image);
    tape_label(tape, "loss");
    value loss = tape_mean_squared_error(tape, predicted, solver_read(tape, slot->measurement));
    solver_write(tape, slot->loss, loss);
    return loss;
}

/* Keeps the variable's old value, then moves it. */
static void record_update(struct resample_solver *solver, const struct minimiser *minimiser,
                          struct tape *tape, value variable, value gradient, double weight_decay)
{
    solver_write(tape, minimiser->previous, variable);
    tape_label(tape, "adam");
    tape_adam_step(tape, variable, gradient, solver_read(tape, minimiser->mean),
                   solver_read(tape, minimiser->square), solver_read(tape, solver->slot.adam_step),
                   minimiser->learning_rate, weight_decay);
}

/* The authors' order: the test comes after the update. The loss it sees also carries whether the
 * gradient is finite, so that the iteration that breaks is the one that stops. */
static void record_official_body(struct resample_solver *solver, const struct minimiser *minimiser,
                                 struct tape *tape)
{
    const struct solver_slots *slot = &solver->slot;
    value variable = solver_read(tape, minimiser->variable);
    value loss = record_loss(solver, minimiser, tape, variable);
    value gradient = tape_gradient(tape, loss, variable);
    value guarded = tape_combine(tape, 1, loss, 0, tape_l2_norm(tape, gradient));
    solver_write(tape, slot->check, guarded);
    record_update(solver, minimiser, tape, variable, gradient, 0.01);
    bool latent = minimiser->variable == slot->estimate;
    value window = latent ? solver_read(tape, slot->window) : NO_VALUE;
    tape_exit_if(tape, tape_stop_rule(tape, guarded, window, solver_read(tape, slot->iteration),
                                      solver_threshold(solver), false));
}

/* The paper's argmin: look at the loss first, keep the best iterate, and do not go below the noise.
 */
static void record_paper_body(struct resample_solver *solver, const struct minimiser *minimiser,
                              struct tape *tape)
{
    const struct solver_slots *slot = &solver->slot;
    value variable = solver_read(tape, minimiser->variable);
    value loss = record_loss(solver, minimiser, tape, variable);
    solver_write(tape, slot->check, loss);
    tape_keep_best(tape, loss, variable, solver_read(tape, slot->best_loss),
                   solver_read(tape, minimiser->best));
    tape_exit_if(tape, tape_stop_rule(tape, loss, NO_VALUE, solver_read(tape, slot->iteration),
                                      solver_threshold(solver), true));
    value gradient = tape_gradient(tape, loss, variable);
    record_update(solver, minimiser, tape, variable, gradient, 0);
}

static void record_minimiser(struct resample_solver *solver, struct minimiser *minimiser)
{
    bool latent = minimiser->variable == solver->slot.estimate;
    minimiser->body = program_tape(solver->program, minimiser->stage);
    if (solver->settings.preset == PRESET_OFFICIAL) {
        record_official_body(solver, minimiser, minimiser->body);
    } else {
        record_paper_body(solver, minimiser, minimiser->body);
        minimiser->take_best = solver_record_copy(solver, latent ? "best latent" : "best image",
                                                  minimiser->best, minimiser->variable);
    }
    minimiser->loop = program_tape(solver->program, latent ? "latent loop" : "pixel loop");
    tape_while(minimiser->loop, minimiser->body, minimiser->limit);
}

static void record_solve(struct resample_solver *solver)
{
    bool official = solver->settings.preset == PRESET_OFFICIAL;
    solver->tape.encode = record_encode(solver);
    solver->tape.resample = record_resample(solver);
    if (official)
        solver->tape.guided = record_guided(solver);
    record_minimiser(solver, &solver->pixel);
    record_minimiser(solver, &solver->latent);
}

void solver_record(struct resample_solver *solver)
{
    struct solver_tapes *tape = &solver->tape;
    tape->draw = record_draw(solver);
    tape->decode = solver_record_decode(solver, "decode", true);
    bool official = solver->settings.preset == PRESET_OFFICIAL;
    if (solver->forward_operator && !official && solver->forward_operator->reachable_fraction < 1)
        tape->reachable = record_reachable(solver);
    if (solver->forward_operator && solver->settings.preset == PRESET_FAST) {
        fast_record(solver);
        return;
    }
    tape->start = solver_record_copy(solver, "start", solver->slot.noise, solver->slot.x);
    tape->ddim = record_ddim(solver);
    tape->take_x = solver_record_copy(solver, "take x", solver->slot.x, solver->slot.estimate);
    if (solver->forward_operator)
        record_solve(solver);
}

void solver_set_step(struct resample_solver *solver, int j, int t)
{
    const struct ddim_schedule *ddim = &solver->ddim;
    float a = ddim->a[j], a_prev = ddim->a_prev[j], sigma = ddim->sigma[j];
    float coefficients[COEFFICIENTS] = {0};
    coefficients[DDIM_SQRT_A] = sqrtf(a);
    coefficients[DDIM_SQRT_ONE_MINUS_A] = ddim->sqrt_one_minus_a[j];
    coefficients[DDIM_SQRT_A_PREV] = sqrtf(a_prev);
    coefficients[DDIM_DIRECTION] = sqrtf(fmaxf(1.0f - a_prev - sigma * sigma, 0.0f));
    coefficients[DDIM_SIGMA] = sigma;
    coefficients[GUIDANCE_LENGTH] = 0.5f * a / sqrtf(a);
    program_write(solver->program, solver->slot.ddim, coefficients);
    for (int64_t n = 0; n < solver->latent_shape[0]; n++)
        solver->times[n] = (float)t;
    program_write(solver->program, solver->slot.time, solver->times);
}

void solver_set_resample(struct resample_solver *solver, int j)
{
    float a = solver->ddim.a[j], a_prev = solver->ddim.a_prev[j];
    float gamma = (float)solver->settings.gamma;
    float sigma = ((gamma * (1.0f - a_prev)) / (1.0f - a)) * (1.0f - a / a_prev);
    float sum = sigma + 1.0f - a_prev;
    float coefficients[COEFFICIENTS] = {0};
    coefficients[RESAMPLE_WEIGHT_Z0] = sigma * sqrtf(a_prev) / sum;
    coefficients[RESAMPLE_WEIGHT_X] = (1.0f - a_prev) / sum;
    coefficients[RESAMPLE_DEVIATION] = sqrtf(1.0f / (1.0f / sigma + 1.0f / (1.0f - a_prev)));
    program_write(solver->program, solver->slot.resample, coefficients);
}

bool solver_resamples(const struct resample_solver *solver, int j)
{
    return j > 0 && j <= solver->ddim.length - solver->split &&
           j % solver->settings.resample_every == 0;
}

bool solver_over_pixels(const struct resample_solver *solver, int j)
{
    return j >= solver->split;
}
