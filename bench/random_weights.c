/* Random weights for a configuration, where its checkpoint is not at hand: enough to measure memory
 * and time. Uniform numbers, those of a product scaled so that what goes through the networks stays
 * of order 1; the same in every run. Half precision.
 *
 *     build/bench/random_weights CONFIG.yaml OUTPUT.safetensors */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct list {
    struct checkpoint_tensor *tensors;
    int count;
    uint32_t random;
    struct status *status;
};

static void count_tensor(void *context, const struct expected_tensor *tensor)
{
    (void)tensor;
    ((struct list *)context)->count++;
}

/* In [-1, 1). */
static float draw(struct list *list)
{
    list->random = list->random * 1664525u + 1013904223u;
    return (float)(list->random >> 8) * 0x1p-23f - 1;
}

/* Deviation 1/sqrt(inputs) where there are inputs; scales are near 1, shifts near 0. */
static void fill(struct list *list, const struct expected_tensor *tensor, float *values,
                 int64_t count)
{
    bool scale = tensor->rank == 1 && strstr(tensor->name, ".weight");
    int64_t inputs = tensor->rank == 1 ? 1 : count / tensor->shape[0];
    float size = tensor->rank == 1 ? 0.1f : sqrtf(3 / (float)inputs);
    for (int64_t i = 0; i < count; i++)
        values[i] = (scale ? 1 : 0) + size * draw(list);
}

static void add_tensor(void *context, const struct expected_tensor *expected)
{
    struct list *list = context;
    struct checkpoint_tensor *tensor = &list->tensors[list->count++];
    tensor->type = CHECKPOINT_F32;
    tensor->rank = expected->rank;
    int64_t count = 1;
    for (int d = expected->rank - 1; d >= 0; d--) {
        tensor->shape[d] = expected->shape[d];
        tensor->stride[d] = count;
        count *= expected->shape[d];
    }
    float *values = malloc((size_t)count * sizeof *values);
    tensor->data = (const unsigned char *)values;
    tensor->name = strdup(expected->name);
    if (values && tensor->name)
        fill(list, expected, values, count);
    else
        status_set(list->status, STATUS_FAILURE, "out of memory for %s", expected->name);
}

static void write_weights(const char *config, const char *output, struct status *status)
{
    struct model model;
    struct list list = {.random = 1, .status = status};
    if (model_open(&model, NULL, config, NULL, false, status))
        return;
    model_visit_tensors(&model, count_tensor, &list);
    list.tensors = calloc((size_t)list.count, sizeof *list.tensors);
    list.count = 0;
    if (list.tensors)
        model_visit_tensors(&model, add_tensor, &list);
    else
        status_set(status, STATUS_FAILURE, "out of memory for the list of tensors");
    if (status_ok(status))
        safetensors_write(output, list.tensors, list.count, CHECKPOINT_F16, NULL, status);
    for (int i = 0; i < list.count; i++) {
        free((char *)list.tensors[i].name);
        free((unsigned char *)list.tensors[i].data);
    }
    free(list.tensors);
    model_close(&model);
}

int main(int argc, char **argv)
{
    struct status status = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: random_weights CONFIG.yaml OUTPUT.safetensors\n");
        return 2;
    }
    write_weights(argv[1], argv[2], &status);
    if (!status_ok(&status))
        fprintf(stderr, "random_weights: %s\n", status.message);
    return status.code;
}
