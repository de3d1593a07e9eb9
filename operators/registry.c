#include "operators/kinds.h"

#include <stdlib.h>
#include <string.h>

static const struct operator_kind *const kinds[] = {
    &operator_super_resolution,
    &operator_gaussian_blur,
    &operator_motion_blur,
    &operator_inpainting,
    &operator_denoise,
    &operator_ct_radon,
    NULL,
};

const struct operator_kind *const *operator_kinds(void)
{
    return kinds;
}

const struct operator_kind *operator_kind_find(const char *name)
{
    for (int i = 0; kinds[i]; i++)
        if (strcmp(kinds[i]->name, name) == 0 ||
            (kinds[i]->alias && strcmp(kinds[i]->alias, name) == 0))
            return kinds[i];
    return NULL;
}

int operator_create(struct operator *self, const struct task *task, const int64_t image[4],
                    uint64_t seed, struct status *status)
{
    *self = (struct operator){.linear = true, .reachable_fraction = 1};
    self->kind = task_operator_kind(task);
    self->name = self->kind->name;
    for (int i = 0; i < 4; i++)
        self->image_shape[i] = image[i];
    if (self->kind->create(self, task, seed, status))
        operator_destroy(self);
    return status->code;
}

void operator_destroy(struct operator *self)
{
    if (self->kind && self->kind->destroy)
        self->kind->destroy(self);
    else
        free(self->data);
    *self = (struct operator){0};
}

int operator_implied_size(const struct task *task, const int64_t measurement_nchw[4],
                          int64_t *height, int64_t *width, struct status *status)
{
    const struct operator_kind *kind = task_operator_kind(task);
    *height = measurement_nchw[2];
    *width = measurement_nchw[3];
    if (kind->implied_size)
        return kind->implied_size(task, measurement_nchw, height, width, status);
    return STATUS_OK;
}
