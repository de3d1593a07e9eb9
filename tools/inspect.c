/* resample inspect: what a checkpoint holds, and how it fits a configuration. */
#include "tools/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static cJSON *tensor_list(const struct checkpoint *checkpoint)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", tensor->name);
        cJSON *shape = cJSON_AddArrayToObject(row, "shape");
        for (int d = 0; d < tensor->rank; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)tensor->shape[d]));
        cJSON_AddStringToObject(row, "type", checkpoint_type_name(tensor->type));
        cJSON_AddItemToArray(list, row);
    }
    return list;
}

struct misfits {
    cJSON *missing, *misshapen;
};

static void add_misfit(void *context, const struct expected_tensor *tensor)
{
    struct misfits *misfits = context;
    if (!tensor->found)
        cJSON_AddItemToArray(misfits->missing, cJSON_CreateString(tensor->name));
    else if (tensor->misfit)
        cJSON_AddItemToArray(misfits->misshapen, cJSON_CreateString(tensor->misfit));
}

/* Adds missing, misshapen and extra to the report. */
static int compare(cJSON *report, const char *path, const char *config_path, struct status *status)
{
    struct model model;
    const char **extra = NULL;
    int extra_count = 0;
    if (model_open_any(&model, NULL, config_path, path, false, status))
        return status->code;
    struct misfits misfits = {cJSON_AddArrayToObject(report, "missing"),
                              cJSON_AddArrayToObject(report, "misshapen")};
    model_visit_tensors(&model, add_misfit, &misfits);
    cJSON *list = cJSON_AddArrayToObject(report, "extra");
    if (model_list_extra(&model, &extra, &extra_count, status) == STATUS_OK)
        for (int i = 0; i < extra_count; i++)
            cJSON_AddItemToArray(list, cJSON_CreateString(extra[i]));
    free(extra);
    model_close(&model);
    return status->code;
}

static void print_names(const cJSON *report, const char *kind)
{
    const cJSON *list = cJSON_GetObjectItem(report, kind), *name;
    if (!list)
        return;
    printf("%s: %d\n", kind, cJSON_GetArraySize(list));
    cJSON_ArrayForEach(name, list) printf("  %s\n", name->valuestring);
}

static void print_text(const cJSON *report, const struct checkpoint *checkpoint)
{
    char shape[96];
    int64_t numbers = 0;
    for (int i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        int64_t count = 1;
        for (int d = 0; d < tensor->rank; d++)
            count *= tensor->shape[d];
        numbers += count;
        printf("%-72s %-6s %s\n", tensor->name, checkpoint_type_name(tensor->type),
               tensor->rank ? shape_text(shape, tensor->rank, tensor->shape) : "scalar");
    }
    printf("%s: %s, %d tensors, %lld numbers\n", checkpoint_path(checkpoint),
           checkpoint_format(checkpoint), checkpoint_count(checkpoint), (long long)numbers);
    print_names(report, "missing");
    print_names(report, "misshapen");
    print_names(report, "extra");
    if (cJSON_GetObjectItem(report, "missing") &&
        cJSON_GetArraySize(cJSON_GetObjectItem(report, "missing")) +
                cJSON_GetArraySize(cJSON_GetObjectItem(report, "misshapen")) ==
            0)
        printf("the checkpoint fits the configuration\n");
}

static void print_json(const cJSON *report)
{
    char *text = cJSON_Print(report);
    if (text)
        puts(text);
    free(text);
}

int inspect_command(const struct arguments *arguments, struct status *status)
{
    const char *path = arguments->positional;
    if (!path)
        return status_set(status, STATUS_BAD_INPUT,
                          "no file: resample inspect FILE [--ldm_config F.yaml] [--json]");
    struct checkpoint *checkpoint = checkpoint_open(path, status);
    if (!checkpoint)
        return status->code;
    for (int i = 0; i < checkpoint_count(checkpoint) && status_ok(status); i++)
        checkpoint_verify(checkpoint, checkpoint_at(checkpoint, i), status);
    cJSON *report = cJSON_CreateObject();
    cJSON_AddStringToObject(report, "file", path);
    cJSON_AddStringToObject(report, "format", checkpoint_format(checkpoint));
    cJSON_AddItemToObject(report, "tensors", tensor_list(checkpoint));
    if (arguments->ldm_config && status_ok(status))
        compare(report, path, arguments->ldm_config, status);
    if (status_ok(status)) {
        if (arguments->json)
            print_json(report);
        else
            print_text(report, checkpoint);
    }
    cJSON_Delete(report);
    checkpoint_close(checkpoint);
    return status->code;
}
