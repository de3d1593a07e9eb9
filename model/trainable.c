#include "model/trainable.h"

#include <stdlib.h>
#include <string.h>

static bool has_room(struct trainable *trainable)
{
    if (trainable->count < trainable->capacity)
        return true;
    int capacity = trainable->capacity ? 2 * trainable->capacity : 64;
    void *grown = realloc(trainable->parameters, (size_t)capacity * sizeof *trainable->parameters);
    if (!grown)
        return false;
    trainable->parameters = grown;
    trainable->capacity = capacity;
    return true;
}

static value state_of(void *context, struct tape *tape, struct parameter *parameter)
{
    struct trainable *trainable = context;
    if (strncmp(parameter->name, trainable->prefix, strlen(trainable->prefix)) != 0)
        return tape_parameter(tape, parameter);
    for (int i = 0; i < trainable->count; i++)
        if (trainable->parameters[i].parameter == parameter)
            return tape_state(tape, trainable->parameters[i].slot);
    if (!has_room(trainable)) {
        status_set(tape_status(tape), STATUS_FAILURE, "out of memory for trained parameters");
        return NO_VALUE;
    }
    int slot = program_state(trainable->program, parameter->name, TYPE_F32, parameter->shape);
    trainable->parameters[trainable->count++] = (struct trainable_parameter){parameter, slot};
    return tape_state(tape, slot);
}

void trainable_open(struct trainable *trainable, struct model *model, struct program *program,
                    const char *prefix)
{
    *trainable = (struct trainable){.model = model, .program = program, .prefix = prefix};
    model->parameter_value = state_of;
    model->parameter_context = trainable;
}

int trainable_load(const struct trainable *trainable, struct status *status)
{
    for (int i = 0; i < trainable->count; i++) {
        const struct parameter *parameter = trainable->parameters[i].parameter;
        const int64_t *s = parameter->shape;
        if (!parameter->read)
            return status_set(status, STATUS_FAILURE, "%s has no values", parameter->name);
        float *values = malloc((size_t)(s[0] * s[1] * s[2] * s[3]) * sizeof *values);
        if (!values)
            return status_set(status, STATUS_FAILURE, "out of memory loading %s", parameter->name);
        parameter->read(parameter, values);
        program_write(trainable->program, trainable->parameters[i].slot, values);
        free(values);
    }
    return status->code;
}

void trainable_close(struct trainable *trainable)
{
    trainable->model->parameter_value = NULL;
    trainable->model->parameter_context = NULL;
    free(trainable->parameters);
    *trainable = (struct trainable){0};
}
