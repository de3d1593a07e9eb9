/* resample measure, adjoint: the operator alone, without a model. */
#include "tools/command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t elements(const int64_t shape[4])
{
    return shape[0] * shape[1] * shape[2] * shape[3];
}

static int check_flags(const struct arguments *arguments, const char *input_is,
                       struct status *status)
{
    if (require(arguments->task_config, "task_config", "the measurement operator", status) ||
        require(arguments->input, "input", input_is, status) ||
        require(arguments->output, "output", "the .npy file to write", status) ||
        check_output_file(arguments->output, status))
        return status->code;
    return STATUS_OK;
}

static int write_nchw(const char *path, const float *values, const int64_t nhwc[4],
                      struct status *status)
{
    const int64_t shape[4] = {nhwc[0], nhwc[3], nhwc[1], nhwc[2]};
    return npy_write(path, values, 4, shape, status);
}

int measure_command(const struct arguments *arguments, struct status *status)
{
    if (check_flags(arguments, "the picture to measure", status))
        return status->code;
    struct task *task = task_open(arguments->task_config, status);
    struct array image = {0};
    struct operator operator= {0};
    float *measurement = NULL;
    if (!task || array_read_image(&image, arguments->input, 0, status) ||
        check_finite(&image, arguments->input, status))
        goto done;
    double sigma = isnan(arguments->sigma) ? task_noise_sigma(task) : arguments->sigma;
    uint64_t seed = choose_seed(arguments);
    const int64_t shape[4] = {image.shape[0], image.shape[2], image.shape[3], image.shape[1]};
    if (operator_create(&operator, task, shape, seed, status))
        goto done;
    measurement = status_calloc(status, (unsigned long)elements(operator.measurement_shape),
                                sizeof *measurement, "the measurement");
    if (!measurement || operator_measure(&operator, task, image.values, arguments->noiseless, sigma,
                                         seed, choose_threads(arguments), measurement, status))
        goto done;
    write_nchw(arguments->output, measurement, operator.measurement_shape, status);
done:
    free(measurement);
    operator_destroy(&operator);
    array_free(&image);
    task_free(task);
    return status->code;
}

int adjoint_command(const struct arguments *arguments, struct status *status)
{
    if (check_flags(arguments, "the measurement", status))
        return status->code;
    if (arguments->shape[0] == UNSET)
        return status_set(status, STATUS_BAD_INPUT,
                          "--shape is missing: the picture's C,H,W, such as 3,256,256");
    struct task *task = task_open(arguments->task_config, status);
    struct array measurement = {0};
    struct operator operator= {0};
    float *image = NULL;
    if (!task || array_read_image(&measurement, arguments->input, 0, status) ||
        check_finite(&measurement, arguments->input, status))
        goto done;
    const int64_t shape[4] = {measurement.shape[0], arguments->shape[1], arguments->shape[2],
                              arguments->shape[0]};
    if (operator_create(&operator, task, shape, choose_seed(arguments), status) ||
        check_measurement(&operator, & measurement, arguments->input, status))
        goto done;
    if (!operator.linear) {
        status_set(status, STATUS_BAD_INPUT, "%s: %s is not linear, so it has no transpose",
                   arguments->task_config, operator.name);
        goto done;
    }
    image = status_calloc(status, (unsigned long)elements(shape), sizeof *image, "the picture");
    if (!image ||
        operator_adjoint(&operator, measurement.values, choose_threads(arguments), image, status))
        goto done;
    write_nchw(arguments->output, image, shape, status);
done:
    free(image);
    operator_destroy(&operator);
    array_free(&measurement);
    task_free(task);
    return status->code;
}
