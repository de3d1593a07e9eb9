#include "tools/solve.h"

#include "operators/noise_level.h"

#include <stdlib.h>
#include <string.h>

static int model_channels(const struct session *session)
{
    return session->model.config.autoencoder.in_channels;
}

static int check_picture(const struct array *array, const char *path, int channels,
                         struct status *status)
{
    char text[96];
    if (array->rank == 4 && array->shape[0] == 1 && array->shape[1] == channels)
        return check_finite(array, path, status);
    return status_set(status, STATUS_BAD_INPUT,
                      "%s: its shape is %s; expected one picture of %d channel%s, 1x%dxHxW", path,
                      shape_text(text, array->rank, array->shape), channels,
                      channels == 1 ? "" : "s", channels);
}

static int set_size(struct problem *problem, const struct session *session, const char *what,
                    int64_t height, int64_t width, struct status *status)
{
    enum { LARGEST = 16384 };
    if (check_size(what, height, width, model_size_multiple(&session->model), status))
        return status->code;
    if (height > LARGEST || width > LARGEST)
        return status_set(status, STATUS_BAD_INPUT, "%s: %lldx%lld; at most %d pixels a side", what,
                          (long long)height, (long long)width, LARGEST);
    problem->channels = model_channels(session);
    problem->height = (int)height;
    problem->width = (int)width;
    return STATUS_OK;
}

int problem_read_truth(struct problem *problem, const struct session *session,
                       struct status *status)
{
    const char *path = problem->truth_path;
    if (array_read_image(&problem->truth, path, model_channels(session), status) ||
        check_picture(&problem->truth, path, model_channels(session), status))
        return status->code;
    return set_size(problem, session, path, problem->truth.shape[2], problem->truth.shape[3],
                    status);
}

static int read_measurement(struct problem *problem, const struct session *session,
                            struct status *status)
{
    const char *path = problem->measurement_path;
    if (array_read_image(&problem->measurement, path, model_channels(session), status) ||
        check_finite(&problem->measurement, path, status))
        return status->code;
    if (problem->truth.values)
        return STATUS_OK;
    int64_t height = 0, width = 0;
    if (operator_implied_size(session->task, problem->measurement.shape, &height, &width, status))
        return status->code;
    if (height > 0)
        return set_size(problem, session, path, height, width, status);
    int64_t side = session->model.config.autoencoder.resolution;
    return set_size(problem, session, "the model's resolution", side, side, status);
}

static int make_measurement(struct problem *problem, const struct session *session,
                            struct status *status)
{
    const int64_t *y = problem->operator.measurement_shape;
    const int64_t shape[4] = {y[0], y[3], y[1], y[2]};
    problem->measurement.rank = 4;
    memcpy(problem->measurement.shape, shape, sizeof shape);
    problem->measurement.values =
        status_calloc(status, (unsigned long)array_elements(&problem->measurement), sizeof(float),
                      "the measurement");
    if (!problem->measurement.values)
        return status->code;
    return operator_measure(&problem->operator, session->task, problem->truth.values, false,
                            session->settings.sigma, problem->seed, session->settings.threads,
                            problem->measurement.values, status);
}

/* What the measurement looks like without the model: FBP, an enlargement, or itself. */
static int make_baseline(struct problem *problem, struct status *status)
{
    const struct operator* operator= & problem->operator;
    const struct operator_kind *kind = operator->kind;
    bool same = memcmp(operator->measurement_shape, operator->image_shape,
                       sizeof operator->image_shape) == 0;
    if (!kind->baseline && !same)
        return STATUS_OK;
    size_t count = (size_t)problem->channels * (size_t)problem->height * (size_t)problem->width;
    problem->baseline = status_calloc(status, count, sizeof(float), "the baseline");
    if (!problem->baseline)
        return status->code;
    problem->baseline_name = kind->baseline_name ? kind->baseline_name : "measurement";
    if (kind->baseline)
        return kind->baseline(operator, problem->measurement.values, problem->baseline, status);
    memcpy(problem->baseline, problem->measurement.values, count * sizeof(float));
    return STATUS_OK;
}

/* The preset that needs a noise level gets the measurement's own where nobody gave one. */
static int estimate_sigma(struct problem *problem, const struct session *session,
                          struct status *status)
{
    problem->sigma = session->settings.sigma;
    if (problem->sigma >= 0 || session->settings.preset != PRESET_FAST)
        return status->code;
    problem->sigma =
        noise_level_estimate(problem->measurement.values, problem->measurement.shape, status);
    problem->sigma_estimated = true;
    if (!(problem->sigma >= 0))
        return status_set(status, STATUS_BAD_INPUT,
                          "the noise level is unknown and cannot be estimated from so small a "
                          "measurement: give --sigma S");
    fprintf(stderr,
            "resample: note: the noise level is not given; estimated from the measurement: %.3g "
            "(--sigma S sets it)\n",
            problem->sigma);
    return status->code;
}

int problem_open(struct problem *problem, const struct session *session, struct status *status)
{
    if (problem->truth_path && problem_read_truth(problem, session, status))
        return status->code;
    if (problem->measurement_path && read_measurement(problem, session, status))
        return status->code;
    const int64_t image[4] = {1, problem->height, problem->width, problem->channels};
    if (operator_create(&problem->operator, session->task, image, problem->seed, status))
        return status->code;
    if (problem->measurement_path)
        check_measurement(&problem->operator, & problem->measurement, problem->measurement_path,
                          status);
    else
        make_measurement(problem, session, status);
    if (!status_ok(status) || estimate_sigma(problem, session, status))
        return status->code;
    return make_baseline(problem, status);
}

void problem_close(struct problem *problem)
{
    array_free(&problem->truth);
    array_free(&problem->measurement);
    operator_destroy(&problem->operator);
    free(problem->baseline);
    problem->baseline = NULL;
}
