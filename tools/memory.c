/* resample memory: the plan of a solve before anything runs. */
#include "solvers/resample.h"
#include "tools/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

/* What the driver takes of a card beside the plan. Others report 107 MiB (RTX 4060 Ti) to 555 MiB
 * (RTX PRO 6000); nobody here has measured it. */
static const size_t assumed_context_bytes = (size_t)600 << 20;

/* From pinned memory over PCIe 4.0 with 16 lanes, which carry 31.5 GB/s at most; nobody here has
 * measured it. */
static const double assumed_upload_rate = 25e9; /* bytes per second */

static void print_json(const struct memory_report *report, struct tape_uploads unet,
                       const struct kernels *kernels)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "weights_bytes", (double)report->weights_bytes);
    cJSON_AddNumberToObject(json, "pinned_bytes", (double)report->pinned_bytes);
    cJSON_AddNumberToObject(json, "activations_bytes", (double)report->activations_bytes);
    cJSON_AddNumberToObject(json, "workspace_bytes", (double)report->workspace_bytes);
    cJSON_AddNumberToObject(json, "total_bytes", (double)report->total_bytes);
    if (kernels->separate_memory) {
        cJSON_AddNumberToObject(json, "assumed_context_bytes", (double)assumed_context_bytes);
        cJSON_AddNumberToObject(json, "offloaded_bytes", (double)report->offloaded_bytes);
        cJSON_AddNumberToObject(json, "unet_upload_bytes", (double)unet.bytes);
        cJSON_AddNumberToObject(json, "unet_evaluations", (double)unet.replays);
        cJSON_AddNumberToObject(json, "upload_bytes", report->upload_bytes);
        cJSON_AddNumberToObject(json, "assumed_upload_bytes_per_second", assumed_upload_rate);
        cJSON_AddNumberToObject(json, "predicted_upload_seconds",
                                report->upload_bytes / assumed_upload_rate);
    }
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

static void print_uploads(const struct memory_report *report, struct tape_uploads unet)
{
    printf(
        "  weights go to the card when a step needs them, none in the inner loops: %.1f MB for each"
        "\n  evaluation of the UNet (%lld at most), %.1f GB in all; prediction: %.1f s, at an "
        "assumed %.0f GB/s over PCIe\n",
        (double)unet.bytes / 1e6, (long long)unet.replays, report->upload_bytes / 1e9,
        report->upload_bytes / assumed_upload_rate, assumed_upload_rate / 1e9);
}

static void print_table(const struct memory_report *report, struct tape_uploads unet,
                        const struct operator* operator, const struct kernels * kernels)
{
    printf("resample solve, %s of a %lldx%lld picture, %s:\n", operator->name,
           (long long)operator->image_shape[2], (long long)operator->image_shape[1], kernels->name);
    print_row("weights", report->weights_bytes, "the networks, packed for this machine's kernels");
    print_row("pinned", report->pinned_bytes, "solver state and the operator's constants");
    print_row("activations", report->activations_bytes,
              "the largest step: forward values kept for the gradient");
    print_row("workspace", report->workspace_bytes, "scratch of that step's kernels");
    print_row("total", report->total_bytes, "");
    if (report->offloaded_bytes)
        print_row("offloaded", report->offloaded_bytes,
                  "beside it: weights that stay in the host's pinned memory");
    if (kernels->separate_memory)
        print_row("context", assumed_context_bytes,
                  "beside it: assumed, not measured; the driver's own, by card");
    if (report->small_weights)
        printf("  convolutions take the smaller, slower form of their weights to fit the limit\n");
    if (report->offloaded_bytes)
        print_uploads(report, unet);
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
    struct tape_uploads unet = resample_unet_uploads(solver);
    if (arguments->json)
        print_json(&report, unet, kernels);
    else
        print_table(&report, unet, &operator, kernels);
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
