/* resample memory: the plan of a solve before anything runs. */
#include "solvers/resample.h"
#include "tools/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* What the driver takes of a card beside the plan. Others report 107 MiB (RTX 4060 Ti) to 555 MiB
 * (RTX PRO 6000); nobody here has measured it. */
static const size_t assumed_context_bytes = (size_t)600 << 20;

static bool on_card(const struct kernels *kernels)
{
    return strcmp(kernels->name, "cuda") == 0;
}

static void print_json(const struct memory_report *report, const struct kernels *kernels)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "weights_bytes", (double)report->weights_bytes);
    cJSON_AddNumberToObject(json, "pinned_bytes", (double)report->pinned_bytes);
    cJSON_AddNumberToObject(json, "activations_bytes", (double)report->activations_bytes);
    cJSON_AddNumberToObject(json, "workspace_bytes", (double)report->workspace_bytes);
    cJSON_AddNumberToObject(json, "total_bytes", (double)report->total_bytes);
    if (on_card(kernels))
        cJSON_AddNumberToObject(json, "assumed_context_bytes", (double)assumed_context_bytes);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (text)
        puts(text);
    free(text);
}

static void print_row(const char *name, size_t bytes, const char *what)
{
    printf("  %-12s %10.1f MiB  %s\n", name, (double)bytes / (1024.0 * 1024.0), what);
}

static void print_table(const struct memory_report *report, const struct operator* operator,
                        const struct kernels * kernels)
{
    printf("resample solve, %s of a %lldx%lld picture, %s%s:\n", operator->name,
           (long long)operator->image_shape[2], (long long)operator->image_shape[1], kernels->name,
           kernels->network == TYPE_BF16 ? " with the networks in bf16" : "");
    print_row("weights", report->weights_bytes, "the networks, packed for this machine's kernels");
    print_row("pinned", report->pinned_bytes, "solver state and the operator's constants");
    print_row("activations", report->activations_bytes,
              "the largest step: forward values kept for the gradient");
    print_row("workspace", report->workspace_bytes, "scratch of that step's kernels");
    print_row("total", report->total_bytes, "");
    if (on_card(kernels))
        print_row("context", assumed_context_bytes,
                  "beside it: assumed, not measured; the driver's own, by card");
    if (report->recomputed_nodes)
        printf("  %d operations are computed twice to fit the limit\n", report->recomputed_nodes);
    printf(
        "For comparison, table 4 of the paper (LDM-VQ4 at 256x256, Gaussian deblurring, PyTorch on "
        "a GPU):\n  model 3969 MB, ReSample adds 1040 MB, 5009 MB in all.\n");
}

static int plan(const struct arguments *arguments, struct model *model, const struct task *task,
                const struct kernels *kernels, struct status *status)
{
    struct resample_settings settings;
    struct operator operator= {0};
    struct resample_solver *solver = NULL;
    const struct autoencoder_config *autoencoder = &model->config.autoencoder;
    if (!autoencoder->present || !model->config.unet.present)
        return status_set(status, STATUS_BAD_INPUT, "%s: a solve needs a UNet and an autoencoder",
                          model_file(arguments));
    int64_t side = arguments->size == UNSET ? autoencoder->resolution : arguments->size;
    const int64_t image[4] = {1, side, side, autoencoder->in_channels};
    if (check_size(arguments->size == UNSET ? "the model's resolution" : "--size", side, side,
                   model_size_multiple(model), status) ||
        operator_create(&operator, task, image, 0, status))
        goto done;
    resample_defaults(&settings, choose_preset(arguments));
    settings.sigma = task_noise_sigma(task) >= 0 ? task_noise_sigma(task) : 0;
    settings.threads = 1;
    settings.kernels = kernels;
    settings.memory_limit_bytes =
        arguments->memory_limit == UNSET ? 0 : (size_t)arguments->memory_limit;
    solver = resample_create(model, &operator, & settings, false, status);
    if (!solver)
        goto done;
    struct memory_report report;
    resample_memory(solver, &report);
    if (arguments->json)
        print_json(&report, kernels);
    else
        print_table(&report, &operator, kernels);
done:
    resample_free(solver);
    operator_destroy(&operator);
    return status->code;
}

int memory_command(const struct arguments *arguments, struct status *status)
{
    const struct kernels *kernels = choose_kernels(arguments, true, status);
    if (!kernels ||
        require(arguments->task_config, "task_config", "the measurement operator", status))
        return status->code;
    struct task *task = task_open(arguments->task_config, status);
    struct model model = {0};
    if (task && open_model(&model, arguments, false, status) == STATUS_OK)
        plan(arguments, &model, task, kernels, status);
    model_close(&model);
    task_free(task);
    return status->code;
}
