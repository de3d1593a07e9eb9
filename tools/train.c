/* resample train and resample finetune. */
#include "tools/train.h"

#include "tools/command.h"
#include "tools/progress.h"
#include "tools/sheet.h"
#include "training/images.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct trainer {
    const struct arguments *arguments;
    struct training_settings settings;
    struct model model;
    struct image_set *images;
    struct training *training;
    FILE *log;
    struct progress progress;
    double start_seconds; /* of this process */
    int64_t first_step;   /* that this process made */
    double psnr_db, held_out_loss;
};

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- what the command line says ---- */

static int choose_part(const struct arguments *arguments, enum training_part *part,
                       struct status *status)
{
    const char *word = arguments->positional;
    if (word && strcmp(word, "autoencoder") == 0)
        *part = TRAIN_AUTOENCODER;
    else if (word && strcmp(word, "diffusion") == 0)
        *part = TRAIN_DIFFUSION;
    else
        return status_set(status, STATUS_BAD_INPUT,
                          "expected what to train, autoencoder or diffusion, got %s%s%s",
                          word ? "'" : "", word ? word : "nothing", word ? "'" : "");
    return STATUS_OK;
}

static int64_t integer(int64_t given, int64_t otherwise)
{
    return given == UNSET ? otherwise : given;
}

static double real(double given, double otherwise)
{
    return isnan(given) ? otherwise : given;
}

static void choose_settings(struct trainer *trainer, bool fresh)
{
    const struct arguments *a = trainer->arguments;
    struct training_settings *s = &trainer->settings;
    s->fresh = fresh;
    if (!fresh) {
        s->learning_rate = 1e-4;
        s->restart_every = 0;
    }
    s->standardize = fresh && s->part == TRAIN_DIFFUSION && !a->keep_scale;
    s->batch = (int)integer(a->batch, s->batch);
    s->accumulate = (int)integer(a->accumulate, s->accumulate);
    s->steps = integer(a->steps, s->steps);
    s->warmup_steps = integer(a->warmup, s->warmup_steps);
    if (a->schedule != UNSET)
        s->schedule = a->schedule == SCHEDULE_COSINE ? RATE_COSINE : RATE_CONSTANT;
    s->learning_rate = real(a->learning_rate, s->learning_rate);
    s->beta1 = real(a->beta1, s->beta1);
    s->beta2 = real(a->beta2, s->beta2);
    s->weight_decay = real(a->weight_decay, s->weight_decay);
    s->clip = real(a->clip, s->clip);
    s->average = real(a->ema, s->average);
    s->l1 = real(a->l1, s->l1);
    s->mse = real(a->mse, s->mse);
    s->codebook = real(a->codebook, s->codebook);
    s->commitment = real(a->commitment, s->commitment);
    s->adversary = s->part == TRAIN_AUTOENCODER ? real(a->adversary, 0) : 0;
    s->adversary_start = integer(a->adversary_start, s->adversary_start);
    s->quantize_from = integer(a->quantize_from, s->quantize_from);
    s->components = s->part == TRAIN_AUTOENCODER ? real(a->components, 0) : 0;
    s->restart_every = integer(a->restart_every, s->restart_every);
    s->variants = (int)integer(a->variants, s->variants);
    s->seed = choose_seed(a);
    s->threads = choose_threads(a);
    s->memory_limit_bytes = (size_t)integer(a->memory_limit, 0);
    s->side = integer(a->size, trainer->model.config.autoencoder.resolution);
}

static int open_pictures(struct trainer *trainer, struct status *status)
{
    const struct arguments *a = trainer->arguments;
    const struct image_set_options options = {
        .folder = a->data,
        .held_out_folder = a->held_out,
        .channels = trainer->model.config.autoencoder.in_channels,
        .size = (int)trainer->settings.side,
        .shrink = (int)integer(a->shrink, 0),
        .held_out_fraction = real(a->held_out_share, 0.1),
        .flip = a->flip,
        .shuffle_colors = a->shuffle_colors,
        .rotate_degrees = real(a->rotate, 0),
        .zoom = real(a->zoom, 1),
        .shift = real(a->shift, 0),
        .low = real(a->low, 0),
        .high = real(a->high, 0),
        .memory_limit_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2,
    };
    bool both = !isnan(a->low) && !isnan(a->high), neither = isnan(a->low) && isnan(a->high);
    if (!neither && !(both && a->low < a->high))
        return status_set(status, STATUS_BAD_INPUT,
                          "--low and --high belong together, the lower value first");
    if (image_set_open(&trainer->images, &options, status) != STATUS_OK)
        return status->code;
    for (int i = 0; i < image_set_skipped(trainer->images); i++)
        printf("skipped %s\n", image_set_skipped_line(trainer->images, i));
    printf("%d pictures to learn from, %d held out\n",
           image_set_count(trainer->images, IMAGES_TRAINING),
           image_set_count(trainer->images, IMAGES_HELD_OUT));
    return STATUS_OK;
}

static void draw_picture(void *context, uint64_t seed, uint64_t index, float *picture)
{
    image_set_draw(context, seed, index, picture);
}

static void held_out_picture(void *context, int index, float *picture)
{
    image_set_held_out(context, index, picture);
}

/* ---- what is written ---- */

static int write_config(const struct trainer *trainer, struct status *status)
{
    char path[TRAIN_PATH_BYTES];
    char *text = config_text(&trainer->model, status);
    if (text)
        file_write(train_path(path, trainer->arguments->save_dir, "model/model.yaml"), text,
                   strlen(text), status);
    free(text);
    return status->code;
}

static int write_sheet(struct trainer *trainer, struct status *status)
{
    char path[TRAIN_PATH_BYTES], name[64];
    struct training_sheet sheet = {0};
    int side = (int)trainer->settings.side;
    snprintf(name, sizeof name, "sheets/step_%06lld.png",
             (long long)training_steps_done(trainer->training));
    if (training_draw_sheet(trainer->training, &sheet, status) == STATUS_OK)
        sheet_write(train_path(path, trainer->arguments->save_dir, name), sheet.pictures,
                    sheet.rows, sheet.columns, trainer->model.config.autoencoder.out_ch, side, side,
                    status);
    free(sheet.pictures);
    return status->code;
}

static int write_state(struct trainer *trainer, struct status *status)
{
    char path[TRAIN_PATH_BYTES];
    fflush(trainer->log);
    return training_write_state(trainer->training,
                                train_path(path, trainer->arguments->save_dir, "state.safetensors"),
                                status);
}

static int write_model(struct trainer *trainer, struct status *status)
{
    static const enum checkpoint_type types[] = {
        [FILE_F16] = CHECKPOINT_F16, [FILE_F32] = CHECKPOINT_F32, [FILE_BF16] = CHECKPOINT_BF16};
    char path[TRAIN_PATH_BYTES];
    return training_write_model(
        trainer->training,
        train_path(path, trainer->arguments->save_dir, "model/model.safetensors"),
        types[integer(trainer->arguments->type, FILE_F32)], status);
}

static int evaluate(struct trainer *trainer, struct status *status)
{
    struct training_evaluation evaluation;
    int64_t step = training_steps_done(trainer->training);
    char text[96];
    if (training_evaluate(trainer->training, &evaluation, status) != STATUS_OK)
        return status->code;
    train_log_evaluation(trainer->log, &trainer->settings, step, &evaluation);
    if (trainer->settings.part == TRAIN_AUTOENCODER)
        snprintf(text, sizeof text, "held-out PSNR %.2f dB", evaluation.psnr_db);
    else
        snprintf(text, sizeof text, "held-out loss %.4f %.4f %.4f %.5f", evaluation.loss[0],
                 evaluation.loss[1], evaluation.loss[2], evaluation.loss[3]);
    progress_end(&trainer->progress);
    printf("step %lld: %s\n", (long long)step, text);
    fflush(stdout);
    return STATUS_OK;
}

static int save(struct trainer *trainer, struct status *status)
{
    if (evaluate(trainer, status) == STATUS_OK && write_state(trainer, status) == STATUS_OK &&
        write_model(trainer, status) == STATUS_OK)
        train_log_draw(trainer->arguments->save_dir, status);
    return status->code;
}

/* ---- the run ---- */

static void show_step(struct trainer *trainer, const struct training_report *report)
{
    char line[192], left[32];
    const struct training_settings *settings = &trainer->settings;
    double seconds = now_seconds() - trainer->start_seconds;
    double each = seconds / (double)(report->step - trainer->first_step + 1);
    int used =
        snprintf(line, sizeof line, "step %lld/%lld  loss %.5f  rate %.2e  %.1f images/s  %s left",
                 (long long)report->step, (long long)settings->steps, report->loss,
                 report->learning_rate, settings->batch * settings->accumulate / each,
                 duration_text(left, each * (double)(settings->steps - report->step)));
    if (settings->part == TRAIN_AUTOENCODER)
        snprintf(line + used, sizeof line - (size_t)used, "  %d codes", report->codes_used);
    progress_print(&trainer->progress, seconds, line);
}

static void show_encoding(void *context, int64_t done, int64_t all)
{
    struct trainer *trainer = context;
    char line[96];
    snprintf(line, sizeof line, "encoding picture %lld/%lld", (long long)done, (long long)all);
    progress_print(&trainer->progress, now_seconds() - trainer->start_seconds, line);
}

/* Stopped on the way: the state of the last whole step is kept. */
static int keep_interrupted(struct trainer *trainer, struct status *status)
{
    struct status writing = {0};
    if (status->code != STATUS_INTERRUPTED)
        return status->code;
    write_state(trainer, &writing);
    if (status_ok(&writing))
        snprintf(status->message, sizeof status->message,
                 "interrupted after step %lld; the same command with --resume goes on",
                 (long long)training_steps_done(trainer->training));
    else
        *status = writing;
    return status->code;
}

static int run_steps(struct trainer *trainer, struct status *status)
{
    const struct training_settings *settings = &trainer->settings;
    int64_t save_every = integer(trainer->arguments->save_every, 500);
    int64_t sheet_every = integer(trainer->arguments->sheet_every, 1000);
    trainer->start_seconds = now_seconds();
    trainer->first_step = training_steps_done(trainer->training) + 1;
    while (training_steps_done(trainer->training) < settings->steps) {
        struct training_report report;
        double before = now_seconds();
        if (training_step(trainer->training, &report, status) != STATUS_OK)
            return keep_interrupted(trainer, status);
        train_log_step(trainer->log, settings, &report, now_seconds() - before);
        show_step(trainer, &report);
        bool last = report.step == settings->steps;
        if ((last || report.step % save_every == 0) && save(trainer, status) != STATUS_OK)
            return status->code;
        if (sheet_every && (last || report.step % sheet_every == 0) &&
            write_sheet(trainer, status) != STATUS_OK)
            return status->code;
    }
    return STATUS_OK;
}

static void print_plan(const struct trainer *trainer)
{
    struct memory_report report;
    char total[32], state[32];
    training_memory(trainer->training, &report);
    printf("%s of memory planned, %s of it weights, gradients and moments%s\n",
           bytes_text(total, (double)report.total_bytes),
           bytes_text(state, (double)report.pinned_bytes),
           report.recomputed_nodes ? "; activations are computed twice to fit" : "");
    fflush(stdout);
}

static int begin(struct trainer *trainer, struct status *status)
{
    const struct arguments *arguments = trainer->arguments;
    char latents[TRAIN_PATH_BYTES], state[TRAIN_PATH_BYTES];
    const struct picture_source source = {
        .context = trainer->images,
        .training_count = image_set_count(trainer->images, IMAGES_TRAINING),
        .held_out_count = image_set_count(trainer->images, IMAGES_HELD_OUT),
        .draw = draw_picture,
        .held_out = held_out_picture,
    };
    const struct training_hooks hooks = {
        .context = trainer, .encoding = show_encoding, .cancelled = interrupt_flag()};
    train_path(state, arguments->save_dir, "state.safetensors");
    train_path(latents, arguments->save_dir, "latents.npy");
    if (!arguments->resume)
        unlink(latents);
    trainer->start_seconds = now_seconds();
    trainer->training =
        training_create(&trainer->model, &trainer->settings, &source, latents, &hooks, status);
    progress_end(&trainer->progress);
    if (!trainer->training ||
        (arguments->resume && training_read_state(trainer->training, state, status) != STATUS_OK))
        return status->code;
    print_plan(trainer);
    trainer->log =
        train_log_open(arguments->save_dir, training_steps_done(trainer->training), status);
    return status_ok(status) ? write_config(trainer, status) : status->code;
}

static int check_folder(const struct arguments *arguments, struct status *status)
{
    char path[TRAIN_PATH_BYTES];
    train_path(path, arguments->save_dir, "state.safetensors");
    bool there = access(path, F_OK) == 0;
    if (there && !arguments->resume)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s holds a training already: --resume goes on with it, another "
                          "--save_dir begins anew",
                          arguments->save_dir);
    if (!there && arguments->resume)
        return status_set(status, STATUS_BAD_INPUT, "--resume: there is no %s", path);
    return STATUS_OK;
}

static int make_folders(const struct arguments *arguments, size_t *existing, struct status *status)
{
    char path[TRAIN_PATH_BYTES];
    size_t inner;
    if (directory_make(arguments->save_dir, existing, status) == STATUS_OK &&
        directory_make(train_path(path, arguments->save_dir, "model"), &inner, status) == STATUS_OK)
        directory_make(train_path(path, arguments->save_dir, "sheets"), &inner, status);
    return status->code;
}

static void remove_empty_folders(const struct arguments *arguments, size_t existing)
{
    char path[TRAIN_PATH_BYTES];
    size_t length = strlen(arguments->save_dir);
    directory_undo(train_path(path, arguments->save_dir, "model"), length);
    directory_undo(train_path(path, arguments->save_dir, "sheets"), length);
    directory_undo(arguments->save_dir, existing);
}

/* `train` may begin without weights, or, for the UNet, with an autoencoder's alone. */
static int open_base(struct trainer *trainer, bool fresh, struct status *status)
{
    struct arguments named = *trainer->arguments;
    named.positional = NULL;
    if (!fresh)
        return open_model(&trainer->model, &named, true, status);
    if (!named.model && !named.ldm_config)
        return status_set(status, STATUS_BAD_INPUT, "no configuration: give --ldm_config F.yaml%s",
                          trainer->settings.part == TRAIN_DIFFUSION
                              ? " with --diffusion_config, or --model DIR, for the autoencoder"
                              : " or --model DIR");
    return model_open_any(&trainer->model, named.model, named.ldm_config, named.diffusion_config,
                          false, status);
}

static int train(const struct arguments *arguments, bool fresh, struct status *status)
{
    struct trainer trainer = {.arguments = arguments};
    enum training_part part = TRAIN_AUTOENCODER;
    size_t existing = strlen(arguments->save_dir ? arguments->save_dir : "");
    const struct kernels *kernels = choose_kernels(arguments, false, status);
    if (!kernels || choose_part(arguments, &part, status) ||
        require(arguments->data, "data", "the folder of the pictures", status) ||
        require(arguments->save_dir, "save_dir", "the folder for the results", status) ||
        check_folder(arguments, status))
        return status->code;
    training_defaults(&trainer.settings, part);
    trainer.settings.kernels = kernels;
    progress_start(&trainer.progress);
    if (open_base(&trainer, fresh, status) != STATUS_OK)
        return status->code;
    choose_settings(&trainer, fresh);
    interrupt_defer(true);
    if (open_pictures(&trainer, status) == STATUS_OK &&
        make_folders(arguments, &existing, status) == STATUS_OK &&
        begin(&trainer, status) == STATUS_OK && run_steps(&trainer, status) == STATUS_OK)
        printf("%s/model\n", arguments->save_dir);
    interrupt_defer(false);
    progress_end(&trainer.progress);
    if (trainer.log)
        fclose(trainer.log);
    training_free(trainer.training);
    image_set_free(trainer.images);
    model_close(&trainer.model);
    if (status->code == STATUS_BAD_INPUT)
        remove_empty_folders(arguments, existing);
    return status->code;
}

int train_command(const struct arguments *arguments, struct status *status)
{
    return train(arguments, true, status);
}

int finetune_command(const struct arguments *arguments, struct status *status)
{
    return train(arguments, false, status);
}
