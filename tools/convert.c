/* resample convert: the tensors that the configuration asks for, and nothing else, as safetensors
 * with CompVis names and the configuration in the metadata. */
#include "tools/command.h"

#include <stdlib.h>
#include <string.h>

struct selection {
    struct checkpoint_tensor *tensors;
    int count, capacity;
    struct status *status;
};

static void add_tensor(struct selection *selection, const char *name,
                       const struct checkpoint_tensor *tensor)
{
    if (selection->count == selection->capacity) {
        int capacity = 2 * selection->capacity + 64;
        void *grown = realloc(selection->tensors, (size_t)capacity * sizeof *selection->tensors);
        if (!grown) {
            status_set(selection->status, STATUS_FAILURE, "out of memory for the tensors' names");
            return;
        }
        selection->tensors = grown;
        selection->capacity = capacity;
    }
    struct checkpoint_tensor *kept = &selection->tensors[selection->count];
    *kept = *tensor;
    kept->name = strdup(name);
    if (kept->name)
        selection->count++;
    else
        status_set(selection->status, STATUS_FAILURE, "out of memory for the tensors' names");
}

static void add_expected(void *context, const struct expected_tensor *tensor)
{
    add_tensor(context, tensor->name, tensor->found);
}

static void selection_free(struct selection *selection)
{
    for (int i = 0; i < selection->count; i++)
        free((char *)selection->tensors[i].name);
    free(selection->tensors);
}

/* The factor of models trained with scale_by_std is part of the model. */
static void add_scale_factor(struct selection *selection, const struct model *model)
{
    const struct checkpoint_tensor *tensor = checkpoint_find(model->checkpoint, "scale_factor");
    if (tensor)
        add_tensor(selection, tensor->name, tensor);
}

static int convert(const struct model *model, const struct arguments *arguments,
                   struct status *status)
{
    static const enum checkpoint_type types[] = {
        [FILE_F16] = CHECKPOINT_F16, [FILE_F32] = CHECKPOINT_F32, [FILE_BF16] = CHECKPOINT_BF16};
    enum file_type type = arguments->type == UNSET ? FILE_F16 : (enum file_type)arguments->type;
    struct selection selection = {.status = status};
    char *text = config_text(model, status);
    if (!text)
        return status->code;
    add_scale_factor(&selection, model);
    model_visit_tensors(model, add_expected, &selection);
    const char *metadata[] = {"config", text, "format", "pt", NULL};
    if (status_ok(status) &&
        safetensors_write(arguments->output, selection.tensors, selection.count, types[type],
                          metadata, status) == STATUS_OK)
        printf("%s: %d tensors\n", arguments->output, selection.count);
    selection_free(&selection);
    free(text);
    return status->code;
}

int convert_command(const struct arguments *arguments, struct status *status)
{
    struct model model;
    if (require(arguments->output, "output", "the .safetensors file to write", status) ||
        check_output_file(arguments->output, status) || open_model(&model, arguments, true, status))
        return status->code;
    convert(&model, arguments, status);
    model_close(&model);
    return status->code;
}
