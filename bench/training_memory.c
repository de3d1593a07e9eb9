/* The memory that training a part of a model plans, without a limit and at least. Nothing is
 * allocated and no weights are needed:
 *
 *     build/bench/training_memory models/ldm-vq4-256/ldm-vq4-256.yaml autoencoder 256 1 */
#include "training/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void record(struct training *training)
{
    bool autoencoder = training->settings.part == TRAIN_AUTOENCODER;
    const char *prefix = autoencoder ? "first_stage_model." : "model.diffusion_model.";
    trainable_open(&training->weights, training->model, training->program, prefix);
    if (autoencoder)
        record_autoencoder_pass(training);
    else
        record_diffusion_pass(training);
    trainable_open(&training->averages, training->model, training->program, prefix);
    record_evaluation(training);
    record_step(training);
}

static void print(const struct training *training, const char *name)
{
    struct memory_report report;
    program_memory(training->program, &report);
    printf("%-10s total %8.1f MB  state %8.1f  activations %8.1f  workspace %7.1f  live at most "
           "%8.1f  recomputed %d%s\n",
           name, (double)report.total_bytes / 1e6,
           (double)(report.pinned_bytes + report.weights_bytes) / 1e6,
           (double)report.activations_bytes / 1e6, (double)report.workspace_bytes / 1e6,
           (double)report.peak_live_bytes / 1e6, report.recomputed_nodes,
           report.small_weights ? "  smaller forms" : "");
}

int main(int count, char **arguments)
{
    struct status status = {0};
    struct model model;
    bool autoencoder = count == 5 && strcmp(arguments[2], "autoencoder") == 0;
    if (count != 5 || (!autoencoder && strcmp(arguments[2], "diffusion") != 0)) {
        fprintf(stderr, "usage: training_memory CONFIG.yaml autoencoder|diffusion SIDE BATCH\n");
        return 2;
    }
    if (model_open(&model, NULL, arguments[1], NULL, false, &status) != STATUS_OK) {
        fprintf(stderr, "%s\n", status.message);
        return 2;
    }
    struct training training = {.model = &model};
    training_defaults(&training.settings, autoencoder ? TRAIN_AUTOENCODER : TRAIN_DIFFUSION);
    training.settings.side = atoll(arguments[3]);
    training.settings.batch = atoi(arguments[4]);
    training.latent_side = (int)(training.settings.side / model_latent_factor(&model));
    training.program = program_create(training.settings.kernels, TYPE_F32, 2);
    record(&training);
    if (program_plan(training.program, 0, &status) == STATUS_OK) {
        struct status too_little = {0};
        print(&training, "no limit");
        program_plan(training.program, 1, &too_little);
        print(&training, "least");
        program_print_plan(training.program, stdout);
    } else
        fprintf(stderr, "%s\n", status.message);
    trainable_close(&training.averages);
    trainable_close(&training.weights);
    program_free(training.program);
    free(training.optimised);
    model_close(&model);
    return status_ok(&status) ? 0 : 2;
}
