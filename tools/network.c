/* resample net, encode, decode: one forward pass of one network, and its vector-Jacobian product.
 */
#include "tools/command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pass {
    struct model model;
    const struct kernels *kernels;
    enum part part;
    bool quantize;
    int threads;
    float t;
    struct array input, cotangent;
    struct array output, gradient; /* [N,C,H,W] */
};

struct slots {
    int input, t, output, cotangent, gradient;
};

static void nhwc(int64_t result[4], const int64_t *nchw)
{
    const int64_t shape[4] = {nchw[0], nchw[2], nchw[3], nchw[1]};
    memcpy(result, shape, sizeof shape);
}

static int array_make(struct array *array, const int64_t nhwc_shape[4], struct status *status)
{
    const int64_t shape[4] = {nhwc_shape[0], nhwc_shape[3], nhwc_shape[1], nhwc_shape[2]};
    array->rank = 4;
    memcpy(array->shape, shape, sizeof shape);
    array->values = status_calloc(status, (unsigned long)array_elements(array), sizeof(float),
                                  "a network's result");
    return status->code;
}

static value record_part(struct pass *pass, struct tape *tape, value x, value t)
{
    switch (pass->part) {
    case PART_UNET:
        return unet_record(tape, &pass->model, x, t);
    case PART_DECODER:
        return decoder_record(tape, &pass->model, x, pass->quantize);
    default:
        return encoder_record(tape, &pass->model, x);
    }
}

/* Records input -> output, and cotangent -> gradient when there is a cotangent. */
static int record(struct pass *pass, struct program *program, struct tape *tape,
                  struct slots *slots, struct status *status)
{
    int64_t shape[4], times[4] = {pass->input.shape[0], 1, 1, 1};
    nhwc(shape, pass->input.shape);
    slots->input = program_state(program, "input", TYPE_F32, shape);
    slots->t = program_state(program, "t", TYPE_F32, times);
    value x = tape_state(tape, slots->input);
    value y = record_part(pass, tape, x, tape_state(tape, slots->t));
    if (!status_ok(tape_status(tape)))
        return status_set(status, tape_status(tape)->code, "%s", tape_status(tape)->message);
    if (array_make(&pass->output, tape_shape(tape, y), status))
        return status->code;
    slots->output = program_state(program, "output", TYPE_F32, tape_shape(tape, y));
    tape_assign(tape, tape_state(tape, slots->output), y);
    if (pass->cotangent.values) {
        char expected[96], given[96];
        if (pass->cotangent.rank != 4 ||
            memcmp(pass->cotangent.shape, pass->output.shape, 4 * sizeof(int64_t)) != 0)
            return status_set(status, STATUS_BAD_INPUT,
                              "--cotangent: its shape is %s; the output's is %s",
                              shape_text(given, pass->cotangent.rank, pass->cotangent.shape),
                              shape_text(expected, 4, pass->output.shape));
        if (array_make(&pass->gradient, shape, status))
            return status->code;
        slots->cotangent = program_state(program, "cotangent", TYPE_F32, tape_shape(tape, y));
        slots->gradient = program_state(program, "gradient", TYPE_F32, shape);
        value g = tape_vjp(tape, y, tape_state(tape, slots->cotangent), x);
        tape_assign(tape, tape_state(tape, slots->gradient), g);
    }
    if (!status_ok(tape_status(tape)))
        status_set(status, tape_status(tape)->code, "%s", tape_status(tape)->message);
    return status->code;
}

static int run_pass(struct pass *pass, struct status *status)
{
    struct program *program = program_create(pass->kernels, TYPE_F32, pass->threads);
    float *times = status_calloc(status, (unsigned long)pass->input.shape[0], sizeof *times, "t");
    if (!program || !times) {
        status_set(status, STATUS_FAILURE, "out of memory");
        goto done;
    }
    struct tape *tape = program_tape(program, "pass");
    struct slots slots;
    if (record(pass, program, tape, &slots, status) || program_plan(program, 0, status) ||
        program_prepare(program, status))
        goto done;
    for (int64_t i = 0; i < pass->input.shape[0]; i++)
        times[i] = pass->t;
    program_write_nchw(program, slots.input, pass->input.values);
    program_write(program, slots.t, times);
    if (pass->cotangent.values)
        program_write_nchw(program, slots.cotangent, pass->cotangent.values);
    if (program_run_checked(program, tape, status))
        goto done;
    program_read_nchw(program, slots.output, pass->output.values);
    if (pass->cotangent.values)
        program_read_nchw(program, slots.gradient, pass->gradient.values);
done:
    free(times);
    program_free(program);
    return status->code;
}

/* Channels of the input, and what its height and width must divide by. */
static int check_input(const struct pass *pass, const char *path, struct status *status)
{
    const struct model_config *config = &pass->model.config;
    if (pass->part == PART_UNET ? !config->unet.present : !config->autoencoder.present)
        return status_set(status, STATUS_BAD_INPUT, "this model has no %s",
                          pass->part == PART_UNET ? "UNet" : "autoencoder");
    int channels = pass->part == PART_UNET      ? config->unet.in_channels
                   : pass->part == PART_DECODER ? config->autoencoder.embed_dim
                                                : config->autoencoder.in_channels;
    int factor = model_latent_factor(&pass->model);
    int multiple = pass->part == PART_UNET      ? model_size_multiple(&pass->model) / factor
                   : pass->part == PART_DECODER ? 1
                                                : factor;
    char given[96];
    if (pass->input.rank != 4 || pass->input.shape[1] != channels)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: its shape is %s; expected [N,C,H,W] with C = %d", path,
                          shape_text(given, pass->input.rank, pass->input.shape), channels);
    if (check_size(path, pass->input.shape[2], pass->input.shape[3], multiple, status))
        return status->code;
    return check_finite(&pass->input, path, status);
}

static int open_pass(struct pass *pass, const struct arguments *arguments, struct status *status)
{
    pass->quantize = !arguments->no_quantize;
    pass->threads = choose_threads(arguments);
    pass->kernels = choose_kernels(arguments, false, status);
    if (!pass->kernels || open_model(&pass->model, arguments, true, status))
        return status->code;
    int channels = pass->part == PART_ENCODER ? pass->model.config.autoencoder.in_channels : 0;
    if (pass->part == PART_ENCODER
            ? array_read_image(&pass->input, arguments->input, channels, status)
            : npy_read(&pass->input, arguments->input, status))
        return status->code;
    return check_input(pass, arguments->input, status);
}

static void close_pass(struct pass *pass)
{
    array_free(&pass->input);
    array_free(&pass->cotangent);
    array_free(&pass->output);
    array_free(&pass->gradient);
    model_close(&pass->model);
}

static int check_net_flags(const struct arguments *arguments, struct status *status)
{
    if (arguments->part == UNSET)
        return status_set(status, STATUS_BAD_INPUT,
                          "--part is missing: expected unet, decoder or encoder");
    if (require(arguments->input, "input", "the network's input", status) ||
        require(arguments->output, "output", "the file to write", status))
        return status->code;
    if ((arguments->part == PART_UNET) != (arguments->t != UNSET))
        return status_set(status, STATUS_BAD_INPUT,
                          arguments->part == PART_UNET ? "--t is missing: the UNet's timestep"
                                                       : "--t belongs to --part unet");
    if (arguments->no_quantize && arguments->part != PART_DECODER)
        return status_set(status, STATUS_BAD_INPUT, "--no-quantize belongs to --part decoder");
    if (!arguments->cotangent != !arguments->gradient)
        return status_set(status, STATUS_BAD_INPUT,
                          "--cotangent and --gradient belong together; --%s is missing",
                          arguments->cotangent ? "gradient" : "cotangent");
    if (check_output_file(arguments->output, status) ||
        (arguments->gradient && check_output_file(arguments->gradient, status)))
        return status->code;
    return STATUS_OK;
}

int net_command(const struct arguments *arguments, struct status *status)
{
    if (check_net_flags(arguments, status))
        return status->code;
    struct pass pass = {.part = (enum part)arguments->part,
                        .t = arguments->t == UNSET ? 0 : (float)arguments->t};
    if (open_pass(&pass, arguments, status))
        goto done;
    if (pass.part == PART_UNET && arguments->t >= pass.model.config.timesteps) {
        status_set(status, STATUS_BAD_INPUT, "--t: expected 0 to %d, got %lld",
                   pass.model.config.timesteps - 1, (long long)arguments->t);
        goto done;
    }
    if (arguments->cotangent && (npy_read(&pass.cotangent, arguments->cotangent, status) ||
                                 check_finite(&pass.cotangent, arguments->cotangent, status)))
        goto done;
    if (run_pass(&pass, status) ||
        npy_write(arguments->output, pass.output.values, 4, pass.output.shape, status))
        goto done;
    if (arguments->gradient)
        npy_write(arguments->gradient, pass.gradient.values, 4, pass.gradient.shape, status);
done:
    close_pass(&pass);
    return status->code;
}

static int encode_or_decode(const struct arguments *arguments, enum part part,
                            struct status *status)
{
    struct pass pass = {.part = part};
    bool picture = arguments->output && path_is_image(arguments->output);
    if (require(arguments->input, "input", "what to read", status) ||
        require(arguments->output, "output", "the file to write", status) ||
        check_output_file(arguments->output, status))
        return status->code;
    if (picture && (part == PART_ENCODER || !strcasestr(arguments->output, ".png")))
        return status_set(status, STATUS_BAD_INPUT, "%s: %s", arguments->output,
                          part == PART_ENCODER ? "a latent is written as .npy"
                                               : "pictures are written as .png or .npy");
    if (open_pass(&pass, arguments, status) || run_pass(&pass, status))
        goto done;
    const int64_t *shape = pass.output.shape;
    if (!picture)
        npy_write(arguments->output, pass.output.values, 4, shape, status);
    else if (shape[0] != 1 || (shape[1] != 1 && shape[1] != 3))
        status_set(status, STATUS_BAD_INPUT,
                   "%s: a .png holds one picture of 1 or 3 channels; write a .npy",
                   arguments->output);
    else
        png_write(arguments->output, pass.output.values, (int)shape[1], (int)shape[2],
                  (int)shape[3], NULL, status);
done:
    close_pass(&pass);
    return status->code;
}

int encode_command(const struct arguments *arguments, struct status *status)
{
    return encode_or_decode(arguments, PART_ENCODER, status);
}

int decode_command(const struct arguments *arguments, struct status *status)
{
    return encode_or_decode(arguments, PART_DECODER, status);
}
