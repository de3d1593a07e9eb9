/* resample sample: unconditional pictures. */
#include "solvers/resample.h"
#include "tools/command.h"
#include "tools/progress.h"

#include <limits.h>
#include <math.h>
#include <string.h>

struct gallery {
    const char *folder;
    const struct model *model;
    int64_t side;
    struct progress progress;
    struct status status; /* first write that failed */
};

static void on_picture(void *context, int index, const float *image, const float *latent)
{
    struct gallery *gallery = context;
    struct status *status = &gallery->status;
    const struct autoencoder_config *autoencoder = &gallery->model->config.autoencoder;
    int64_t latent_side = gallery->side / model_latent_factor(gallery->model);
    const int64_t image_shape[4] = {1, autoencoder->out_ch, gallery->side, gallery->side};
    const int64_t latent_shape[4] = {1, autoencoder->embed_dim, latent_side, latent_side};
    char path[PATH_MAX];
    int side = (int)gallery->side;
    snprintf(path, sizeof path, "%.4000s/sample_%04d.npy", gallery->folder, index);
    npy_write(path, image, 4, image_shape, status);
    snprintf(path, sizeof path, "%.4000s/latent_%04d.npy", gallery->folder, index);
    npy_write(path, latent, 4, latent_shape, status);
    snprintf(path, sizeof path, "%.4000s/sample_%04d.png", gallery->folder, index);
    png_write(path, image, autoencoder->out_ch == 3 ? 3 : 1, side, side, NULL, status);
    progress_end(&gallery->progress);
    if (status_ok(status))
        printf("%s\n", path);
    fflush(stdout);
}

static void on_progress(void *context, const struct resample_progress *state)
{
    progress_show(&((struct gallery *)context)->progress, state);
}

static int draw(const struct arguments *arguments, struct model *model,
                const struct kernels *kernels, struct status *status)
{
    struct resample_settings settings;
    struct gallery gallery = {.folder = arguments->save_dir, .model = model};
    if (!model->config.unet.present || !model->config.autoencoder.present)
        return status_set(status, STATUS_BAD_INPUT, "%s: sampling needs a UNet and an autoencoder",
                          model_file(arguments));
    gallery.side =
        arguments->size == UNSET ? model->config.autoencoder.resolution : arguments->size;
    if (check_size(arguments->size == UNSET ? "the model's resolution" : "--size", gallery.side,
                   gallery.side, model_size_multiple(model), status))
        return status->code;
    resample_defaults(&settings, PRESET_OFFICIAL);
    settings.ddim_steps = arguments->ddim_steps == UNSET ? 100 : (int)arguments->ddim_steps;
    settings.ddim_eta = isnan(arguments->ddim_eta) ? 0 : arguments->ddim_eta;
    settings.seed = choose_seed(arguments);
    settings.threads = choose_threads(arguments);
    settings.kernels = kernels;
    const struct resample_observer observer = {
        .context = &gallery, .progress = on_progress, .cancelled = interrupt_flag()};
    progress_start(&gallery.progress);
    interrupt_defer(true);
    sample_run(model, &settings, arguments->count == UNSET ? 1 : (int)arguments->count,
               gallery.side, gallery.side, on_picture, &gallery, &observer, status);
    interrupt_defer(false);
    progress_end(&gallery.progress);
    if (status->code == STATUS_INTERRUPTED)
        snprintf(status->message, sizeof status->message,
                 "interrupted; what was drawn is in %.900s", arguments->save_dir);
    if (!status_ok(&gallery.status))
        status_set(status, gallery.status.code, "%s", gallery.status.message);
    return status->code;
}

int sample_command(const struct arguments *arguments, struct status *status)
{
    struct model model = {0};
    size_t existing;
    const struct kernels *kernels = choose_kernels(arguments, false, status);
    if (!kernels ||
        require(arguments->save_dir, "save_dir", "the folder for the pictures", status) ||
        directory_make(arguments->save_dir, &existing, status))
        return status->code;
    if (open_model(&model, arguments, true, status) == STATUS_OK)
        draw(arguments, &model, kernels, status);
    model_close(&model);
    if (status->code == STATUS_BAD_INPUT)
        directory_undo(arguments->save_dir, existing);
    return status->code;
}
