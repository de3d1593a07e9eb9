/* Parallel-beam CT: y = (2/H) R((x+1)/2) = (1/H) R(x+1), R the ray sum in pixels (operators.md
 * section 6.4): the mean of x+1 along a ray as long as the picture's side H (the larger one). */
#include "kernels/radon.h"
#include "operators/filtered_back_projection.h"
#include "operators/kinds.h"
#include "runtime/array.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_VIEWS = 100000, MAX_DETECTORS = 65536, MAX_RAYS = 1 << 27 };

static const double pi = 3.14159265358979323846;

struct scanner {
    int64_t views, detectors;
    double *geometry; /* as the kernel wants it, of scale 1/H */
};

struct slots {
    int geometry, ones;
};

static void destroy(struct operator *self)
{
    struct scanner *scanner = self->data;
    if (!scanner)
        return;
    free(scanner->geometry);
    free(scanner);
}

/* The angles in degrees: a list, or an array file. */
static int read_angles(const struct task *task, double **degrees, int64_t *count,
                       struct status *status)
{
    if (!task_string(task, "operator.angles"))
        return task_reals(task, "operator.angles", degrees, count, status);
    struct array array = {0};
    char *path = task_path(task, "operator.angles", status);
    if (!path || npy_read(&array, path, status))
        goto done;
    *count = array_elements(&array);
    *degrees = status_calloc(status, (unsigned long)*count, sizeof(double), "the angles");
    for (int64_t i = 0; *degrees && i < *count; i++) {
        (*degrees)[i] = (double)array.values[i];
        if (!isfinite((*degrees)[i]))
            task_error(task, "operator.angles", status, "%s holds a value that is not finite",
                       path);
    }
done:
    array_free(&array);
    free(path);
    return status->code;
}

/* cos and sin, exact at multiples of a right angle, so that such rays run along the pixels. */
static void set_direction(double degrees, double direction[2])
{
    double quarters = degrees / 90;
    if (quarters == floor(quarters)) {
        const int cosine[4] = {1, 0, -1, 0};
        int64_t turn = (int64_t)fmod(quarters, 4);
        turn = turn < 0 ? turn + 4 : turn;
        direction[0] = cosine[turn];
        direction[1] = cosine[(turn + 3) % 4];
        return;
    }
    direction[0] = cos(degrees * pi / 180);
    direction[1] = sin(degrees * pi / 180);
}

static int set_views(struct scanner *scanner, const struct task *task, struct status *status)
{
    double *degrees = NULL;
    int64_t listed = 0;
    if (task_integer(task, "operator.views", 1, MAX_VIEWS, &scanner->views, status) ||
        (task_has(task, "operator.angles") && read_angles(task, &degrees, &listed, status)))
        goto done;
    if (scanner->views == 0 && listed == 0) {
        task_error(
            task, "operator.views", status,
            "missing; give the number of views, or their angles in degrees: angles: [0, 7.2, ...]");
        goto done;
    }
    if (listed > MAX_VIEWS || (listed && scanner->views && listed != scanner->views)) {
        task_error(task, "operator.angles", status, "%lld angles where %lld were expected",
                   (long long)listed,
                   (long long)(scanner->views ? scanner->views : (int64_t)MAX_VIEWS));
        goto done;
    }
    scanner->views = listed ? listed : scanner->views;
    scanner->geometry =
        status_calloc(status, (unsigned long)(RADON_GEOMETRY_HEADER + 2 * scanner->views),
                      sizeof(double), "the scanner's geometry");
    for (int64_t i = 0; scanner->geometry && i < scanner->views; i++)
        set_direction(degrees ? degrees[i] : 180.0 * (double)i / (double)scanner->views,
                      scanner->geometry + RADON_GEOMETRY_HEADER + 2 * i);
done:
    free(degrees);
    return status->code;
}

static int set_detectors(struct scanner *scanner, int64_t side, const struct task *task,
                         struct status *status)
{
    double spacing = 1, reach = 1e6;
    scanner->detectors = side;
    if (task_integer(task, "operator.detectors", 1, MAX_DETECTORS, &scanner->detectors, status) ||
        task_real(task, "operator.spacing", 1e-6, reach, &spacing, status))
        return status->code;
    double center = 0.5 * (double)scanner->detectors - 0.5;
    if (task_real(task, "operator.center", -reach, reach, &center, status))
        return status->code;
    scanner->geometry[RADON_SCALE] = 1 / (double)side;
    scanner->geometry[RADON_SPACING] = spacing;
    scanner->geometry[RADON_CENTER] = center;
    return STATUS_OK;
}

static int check_rays(const struct operator *self, const struct scanner *scanner,
                      const struct task *task, struct status *status)
{
    int64_t rays = scanner->views * scanner->detectors;
    if (rays > MAX_RAYS)
        return task_error(task, "operator", status, "%lld rays; at most %d are possible",
                          (long long)rays, (int)MAX_RAYS);
    for (int64_t i = 0; i < rays; i++)
        if (radon_ray(scanner->geometry, i / scanner->detectors, i % scanner->detectors,
                      self->image_shape[1], self->image_shape[2])
                .samples > 0)
            return STATUS_OK;
    return task_error(task, "operator", status, "no ray meets the picture of %lldx%lld pixels",
                      (long long)self->image_shape[1], (long long)self->image_shape[2]);
}

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    (void)seed;
    const int64_t *image = self->image_shape;
    struct scanner *scanner = status_calloc(status, 1, sizeof *scanner, "an operator");
    self->data = scanner;
    if (!scanner || set_views(scanner, task, status) ||
        set_detectors(scanner, image[1] > image[2] ? image[1] : image[2], task, status))
        return status->code;
    const int64_t shape[4] = {image[0], scanner->views, scanner->detectors, image[3]};
    for (int i = 0; i < 4; i++)
        self->measurement_shape[i] = shape[i];
    return check_rays(self, scanner, task, status);
}

static void *bind(const struct operator *self, struct program *program, struct status *status)
{
    const struct scanner *scanner = self->data;
    const int64_t *image = self->image_shape;
    int64_t elements = image[0] * image[1] * image[2] * image[3];
    struct slots *slots = status_calloc(status, 1, sizeof *slots, "an operator's tables");
    double *ones = status_calloc(status, (unsigned long)elements, sizeof(double), "a picture");
    if (!slots || !ones) {
        free(ones);
        free(slots);
        return NULL;
    }
    for (int64_t i = 0; i < elements; i++)
        ones[i] = 1;
    slots->geometry = program_constant_f64(
        program, "operator.geometry",
        (const int64_t[]){1, 1, 1, RADON_GEOMETRY_HEADER + 2 * scanner->views}, scanner->geometry);
    slots->ones = program_constant_real(program, "operator.ones", image, ones);
    free(ones);
    return slots;
}

static value record(const struct operator *self, const void *bound, struct tape *tape, value x)
{
    const struct slots *slots = bound;
    value attenuation = tape_combine(tape, 1, x, 1, tape_state(tape, slots->ones));
    return tape_radon(tape, attenuation, tape_state(tape, slots->geometry),
                      self->measurement_shape[2]);
}

static value record_adjoint(const struct operator *self, const void *bound, struct tape *tape,
                            value y)
{
    const struct slots *slots = bound;
    return tape_radon_adjoint(tape, y, tape_state(tape, slots->geometry), self->image_shape[1],
                              self->image_shape[2]);
}

static int baseline(const struct operator *self, const float *y, float *x, struct status *status)
{
    const struct scanner *scanner = self->data;
    const int64_t *image = self->image_shape;
    int64_t pixels = image[1] * image[2], rays = scanner->views * scanner->detectors;
    double *plane = status_calloc(status, (unsigned long)pixels, sizeof(double), "a picture");
    for (int64_t p = 0; plane && p < image[0] * image[3]; p++) {
        if (filtered_back_projection(
                y + p * rays, scanner->geometry + RADON_GEOMETRY_HEADER, scanner->views,
                scanner->detectors, scanner->geometry[RADON_SPACING],
                scanner->geometry[RADON_CENTER], plane, image[1], image[2], status))
            break;
        /* R((x+1)/2) = y/(2 SCALE) */
        for (int64_t i = 0; i < pixels; i++)
            x[p * pixels + i] = (float)(plane[i] / scanner->geometry[RADON_SCALE] - 1);
    }
    free(plane);
    return status->code;
}

static int implied_size(const struct task *task, const int64_t measurement[4], int64_t *height,
                        int64_t *width, struct status *status)
{
    *height = *width = task_has(task, "operator.detectors") ? 0 : measurement[3];
    return status->code;
}

const struct operator_kind operator_ct_radon = {
    .name = "ct_radon",
    .keys = (const char *const[]){"views", "angles", "detectors", "spacing", "center", NULL},
    .ignored_keys = (const char *const[]){"in_shape", NULL},
    .create = create,
    .bind = bind,
    .unbind = free,
    .record = record,
    .record_adjoint = record_adjoint,
    .destroy = destroy,
    .baseline = baseline,
    .baseline_name = "FBP",
    .implied_size = implied_size,
};
