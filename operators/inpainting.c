/* Inpainting: y = m*x, m = 1 where a pixel is kept and 0 where it is missing, the same for every
 * channel (operators.md section 4). The mask is a file, or made from the seed as mask_opt says. */
#include "operators/draws.h"
#include "operators/kinds.h"
#include "runtime/array.h"

#include <stdlib.h>
#include <string.h>

enum { BOX_MARGIN = 16 };

/* int(H*W*p) distinct pixels vanish, p uniform in mask_prob_range. */
static int random_mask(unsigned char *mask, int64_t pixels, const struct task *task,
                       struct draws *draws, struct status *status)
{
    double *range = NULL;
    int64_t count = 0;
    int32_t *order = NULL;
    if (task_reals(task, "mask_opt.mask_prob_range", &range, &count, status))
        goto done;
    if (count != 2 || !(range[0] >= 0 && range[0] <= range[1] && range[1] <= 1)) {
        task_error(task, "mask_opt.mask_prob_range", status,
                   "expected the least and the greatest share of missing pixels, 0 to 1");
        goto done;
    }
    order = status_calloc(status, (unsigned long)pixels, sizeof *order, "a mask");
    if (!order)
        goto done;
    double share = range[0] + (range[1] - range[0]) * draws_uniform(draws);
    int64_t missing = (int64_t)((double)pixels * share);
    for (int64_t i = 0; i < pixels; i++)
        order[i] = (int32_t)i;
    memset(mask, 1, (size_t)pixels);
    for (int64_t i = 0; i < missing; i++) {
        int64_t j = draws_integer(draws, i, pixels);
        int32_t chosen = order[j];
        order[j] = order[i];
        mask[chosen] = 0;
    }
done:
    free(order);
    free(range);
    return status->code;
}

/* A box of random sides and place vanishes, or everything but it ("extreme"). */
static int box_mask(unsigned char *mask, int64_t height, int64_t width, bool keep_box,
                    const struct task *task, struct draws *draws, struct status *status)
{
    double *range = NULL;
    int64_t count = 0;
    if (task_reals(task, "mask_opt.mask_len_range", &range, &count, status))
        goto done;
    if (count != 2 || !(range[0] >= 1 && range[0] < range[1] && range[1] <= 65536)) {
        task_error(task, "mask_opt.mask_len_range", status,
                   "expected the least side and one more than the greatest");
        goto done;
    }
    int64_t box_height = draws_integer(draws, (int64_t)range[0], (int64_t)range[1]);
    int64_t box_width = draws_integer(draws, (int64_t)range[0], (int64_t)range[1]);
    if (height - BOX_MARGIN - box_height <= BOX_MARGIN ||
        width - BOX_MARGIN - box_width <= BOX_MARGIN) {
        task_error(task, "mask_opt.mask_len_range", status,
                   "a box of %lldx%lld with a margin of %d does not fit in %lldx%lld pixels",
                   (long long)box_height, (long long)box_width, BOX_MARGIN, (long long)height,
                   (long long)width);
        goto done;
    }
    int64_t top = draws_integer(draws, BOX_MARGIN, height - BOX_MARGIN - box_height);
    int64_t left = draws_integer(draws, BOX_MARGIN, width - BOX_MARGIN - box_width);
    for (int64_t h = 0; h < height; h++)
        for (int64_t w = 0; w < width; w++) {
            bool inside = h >= top && h < top + box_height && w >= left && w < left + box_width;
            mask[h * width + w] = inside == keep_box;
        }
done:
    free(range);
    return status->code;
}

static int made_mask(unsigned char *mask, int64_t height, int64_t width, const struct task *task,
                     uint64_t seed, struct status *status)
{
    struct draws draws = draws_begin(seed, NOISE_STREAM_MASK, 0);
    const char *type = task_string(task, "mask_opt.mask_type");
    if (!type)
        return task_error(task, "mask_opt.mask_type", status,
                          "missing; expected random, box or extreme, or a file: operator.mask");
    if (strcmp(type, "random") == 0)
        return random_mask(mask, height * width, task, &draws, status);
    if (strcmp(type, "box") == 0 || strcmp(type, "extreme") == 0)
        return box_mask(mask, height, width, type[0] == 'e', task, &draws, status);
    return task_error(task, "mask_opt.mask_type", status,
                      "unknown type \"%s\"; known: random, box, extreme", type);
}

static int mask_from_file(unsigned char *mask, int64_t height, int64_t width,
                          const struct task *task, struct status *status)
{
    struct array array = {0};
    char *path = task_path(task, "operator.mask", status);
    if (!path || array_read_image(&array, path, 1, status))
        goto done;
    if (array.shape[0] != 1 || array.shape[1] != 1 || array.shape[2] != height ||
        array.shape[3] != width) {
        task_error(task, "operator.mask", status,
                   "%s is [%lld,%lld,%lld,%lld]; the picture needs [%lld,%lld]", path,
                   (long long)array.shape[0], (long long)array.shape[1], (long long)array.shape[2],
                   (long long)array.shape[3], (long long)height, (long long)width);
        goto done;
    }
    bool picture = path_is_image(path);
    for (int64_t i = 0; i < height * width; i++) {
        float is = array.values[i];
        if (!picture && is != 0 && is != 1) {
            task_error(task, "operator.mask", status,
                       "%s holds %g; a mask is 1 where a pixel is kept and 0 where it is missing",
                       path, (double)is);
            goto done;
        }
        mask[i] = is > (picture ? 0 : 0.5f);
    }
done:
    array_free(&array);
    free(path);
    return status->code;
}

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    const int64_t *image = self->image_shape;
    int64_t pixels = image[1] * image[2], kept = 0;
    for (int i = 0; i < 4; i++)
        self->measurement_shape[i] = image[i];
    unsigned char *mask = status_calloc(status, (unsigned long)pixels, 1, "a mask");
    self->data = mask;
    if (!mask)
        return status->code;
    if (task_has(task, "operator.mask"))
        mask_from_file(mask, image[1], image[2], task, status);
    else
        made_mask(mask, image[1], image[2], task, seed, status);
    for (int64_t i = 0; i < pixels; i++)
        kept += mask[i];
    if (status_ok(status) && kept == 0)
        return task_error(task, "operator", status, "the mask keeps no pixel");
    self->reachable_fraction = (double)kept / (double)pixels;
    return status->code;
}

static void *bind(const struct operator *self, struct program *program, struct status *status)
{
    const int64_t *image = self->image_shape;
    int64_t pixels = image[1] * image[2];
    int *slot = status_calloc(status, 1, sizeof *slot, "an operator's tables");
    double *values = status_calloc(status, (unsigned long)pixels, sizeof *values, "a mask");
    if (!slot || !values) {
        free(values);
        free(slot);
        return NULL;
    }
    for (int64_t i = 0; i < pixels; i++)
        values[i] = ((const unsigned char *)self->data)[i];
    *slot = program_constant_real(program, "operator.mask",
                                  (const int64_t[]){1, image[1], image[2], 1}, values);
    free(values);
    return slot;
}

static value record(const struct operator *self, const void *bound, struct tape *tape, value x)
{
    (void)self;
    return tape_multiply(tape, x, tape_state(tape, *(const int *)bound));
}

const struct operator_kind operator_inpainting = {
    .name = "inpainting",
    .keys = (const char *const[]){"mask", NULL},
    .ignored_keys = (const char *const[]){"in_shape", NULL},
    .create = create,
    .bind = bind,
    .unbind = free,
    .record = record,
    .record_adjoint = record,
    .baseline_name = "measurement",
};
