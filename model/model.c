/* Opening a model: which files, which tensors, and whether they fit the configuration. */
#include "model/model.h"

#include "runtime/array.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char unet_prefix[] = "model.diffusion_model.";
static const char first_stage_prefix[] = "first_stage_model.";
static const char ema_prefix[] = "model_ema.";

enum { MAX_PARTS = 3, KEY_BYTES = sizeof((struct parameter){0}.name) };

/* A parameter and the tensors that it stacks. */
struct source {
    struct parameter parameter;
    int leading_ones; /* of the shape, which the file's tensor does not have */
    int part_count;
    const struct checkpoint *checkpoint;
    const struct checkpoint_tensor *parts[MAX_PARTS]; /* NULL: missing */
};

int model_latent_factor(const struct model *model)
{
    int levels = model->config.autoencoder.levels;
    return model->config.autoencoder.present ? 1 << (levels - 1) : 1;
}

int model_size_multiple(const struct model *model)
{
    int levels = model->config.unet.levels;
    return model_latent_factor(model) * (model->config.unet.present ? 1 << (levels - 1) : 1);
}

/* ---- parameters ---- */

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Expands alternative `part` of the one pair of braces in name; returns how many there are (1
 * without). */
static int expand_part(const char *name, int part, char expanded[KEY_BYTES])
{
    const char *open = strchr(name, '{'), *close = open ? strchr(open, '}') : NULL;
    if (!close) {
        snprintf(expanded, KEY_BYTES, "%s", name);
        return 1;
    }
    int count = 1;
    const char *chosen = open + 1;
    for (const char *c = open + 1; c < close; c++)
        if (*c == ',' && count++ == part)
            chosen = c + 1;
    snprintf(expanded, KEY_BYTES, "%.*s%.*s%s", (int)(open - name), name,
             (int)strcspn(chosen, ",}"), chosen, close + 1);
    return count;
}

/* The averaged copy of model.diffusion_model.a.b is model_ema.diffusion_modelab. */
static void ema_key(const char *name, char key[KEY_BYTES])
{
    size_t length = (size_t)snprintf(key, KEY_BYTES, "%s", ema_prefix);
    for (const char *c = name + strlen("model."); *c && length + 1 < KEY_BYTES; c++)
        if (*c != '.')
            key[length++] = *c;
    key[length] = 0;
}

/* What the file calls a part of a parameter. Returns how many parts there are. */
static int file_key(const struct model *model, const char *name, int part, char key[KEY_BYTES])
{
    char expanded[KEY_BYTES];
    int count = expand_part(name, part, expanded);
    if (model->use_ema && starts_with(expanded, unet_prefix))
        ema_key(expanded, key);
    else
        memcpy(key, expanded, KEY_BYTES);
    if (model->bare_first_stage && starts_with(expanded, first_stage_prefix))
        snprintf(key, KEY_BYTES, "%s", expanded + strlen(first_stage_prefix));
    return count;
}

/* What has been read is packed elsewhere: the file's pages do not stay in memory beside it. */
static void read_parts(const struct parameter *parameter, float *values)
{
    const struct source *source = parameter->source;
    const int64_t *shape = parameter->shape;
    int64_t part_elements = shape[0] * shape[1] * shape[2] * shape[3] / source->part_count;
    for (int i = 0; i < source->part_count; i++)
        checkpoint_read(source->parts[i], values + i * part_elements);
    checkpoint_drop_pages(source->checkpoint);
}

static struct parameter *find_parameter(const struct model *model, const char *name)
{
    for (int i = 0; i < model->parameter_count; i++)
        if (strcmp(model->parameters[i]->name, name) == 0)
            return model->parameters[i];
    return NULL;
}

static bool grow(struct model *model)
{
    if (model->parameter_count < model->parameter_capacity)
        return true;
    int capacity = model->parameter_capacity ? 2 * model->parameter_capacity : 256;
    struct parameter **grown =
        realloc(model->parameters, (size_t)capacity * sizeof *model->parameters);
    if (!grown)
        return false;
    model->parameters = grown;
    model->parameter_capacity = capacity;
    return true;
}

static struct parameter *request(struct model *model, const char *name, int leading_ones,
                                 const int64_t shape[4])
{
    struct parameter *known = find_parameter(model, name);
    if (known)
        return known;
    struct source *source = grow(model) ? calloc(1, sizeof *source) : NULL;
    if (!source)
        return NULL;
    snprintf(source->parameter.name, sizeof source->parameter.name, "%s", name);
    memcpy(source->parameter.shape, shape, sizeof source->parameter.shape);
    source->leading_ones = leading_ones;
    char key[KEY_BYTES];
    source->part_count = file_key(model, name, 0, key);
    if (model->checkpoint) {
        for (int i = 0; i < source->part_count; i++) {
            file_key(model, name, i, key);
            source->parts[i] = checkpoint_find(model->checkpoint, key);
        }
        source->checkpoint = model->checkpoint;
        source->parameter.read = read_parts;
    }
    source->parameter.source = source;
    return model->parameters[model->parameter_count++] = &source->parameter;
}

struct parameter *model_parameter(struct model *model, const char *name, int64_t o, int64_t i,
                                  int64_t kernel_height, int64_t kernel_width)
{
    return request(model, name, 0, (int64_t[4]){o, i, kernel_height, kernel_width});
}

struct parameter *model_vector(struct model *model, const char *name, int64_t channels)
{
    return request(model, name, 3, (int64_t[4]){1, 1, 1, channels});
}

struct parameter *model_codebook(struct model *model, const char *name, int64_t codes,
                                 int64_t width)
{
    return request(model, name, 2, (int64_t[4]){1, 1, codes, width});
}

/* ---- does the checkpoint fit? ---- */

/* One part's shape in the file: the leading ones of the logical shape left out. */
static int wanted_shape(const struct source *source, int64_t wanted[4])
{
    int ones = source->leading_ones;
    for (int i = 0; i < 4; i++)
        wanted[i] = i + ones < 4 ? source->parameter.shape[i + ones] : 1;
    wanted[0] /= source->part_count;
    return 4 - ones;
}

static bool fits(const struct source *source, const struct checkpoint_tensor *tensor)
{
    int64_t wanted[4];
    int rank = wanted_shape(source, wanted);
    if (tensor->type > CHECKPOINT_F64)
        return false;
    for (int i = 0; i < rank || i < tensor->rank; i++)
        if ((i < rank ? wanted[i] : 1) != (i < tensor->rank ? tensor->shape[i] : 1))
            return false;
    return true;
}

static void format_shape(char *text, size_t bytes, const int64_t *shape, int rank)
{
    size_t length = (size_t)snprintf(text, bytes, "[");
    for (int i = 0; i < rank && length < bytes; i++)
        length +=
            (size_t)snprintf(text + length, bytes - length, "%s%" PRId64, i ? "," : "", shape[i]);
    if (length < bytes)
        snprintf(text + length, bytes - length, "]");
}

static void describe_misfit(char *text, size_t bytes, const struct source *source,
                            const struct checkpoint_tensor *tensor)
{
    char found[160], expected[96];
    int64_t wanted[4];
    int rank = wanted_shape(source, wanted);
    while (rank > tensor->rank && rank > 1 && wanted[rank - 1] == 1)
        rank--;
    format_shape(found, sizeof found, tensor->shape, tensor->rank);
    format_shape(expected, sizeof expected, wanted, rank);
    if (tensor->type > CHECKPOINT_F64)
        snprintf(text, bytes, "%s is %s %s (expected floats %s)", tensor->name,
                 checkpoint_type_name(tensor->type), found, expected);
    else
        snprintf(text, bytes, "%s is %s (expected %s)", tensor->name, found, expected);
}

/* A list in a message of limited size: what does not fit is counted. */
struct list {
    char text[sizeof((struct status){0}.message)];
    size_t length;
    int items, left_out;
};

__attribute__((format(printf, 2, 3))) static void list_add(struct list *list, const char *format,
                                                           ...)
{
    enum { RESERVE = 32 }; /* for the count of what is left out */
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof list->text - RESERVE - list->length;
    int length = list->left_out ? 0 : vsnprintf(list->text + list->length, room, format, arguments);
    va_end(arguments);
    if (list->left_out || (size_t)length >= room) {
        list->text[list->length] = 0;
        list->left_out++;
    } else {
        list->length += (size_t)length;
        list->items++;
    }
}

typedef void (*part_visitor)(struct list *list, const struct model *model,
                             const struct source *source, int part);

static void list_missing(struct list *list, const struct model *model, const struct source *source,
                         int part)
{
    char key[KEY_BYTES];
    file_key(model, source->parameter.name, part, key);
    if (!source->parts[part])
        list_add(list, "%s%s", list->items ? ", " : "", key);
}

static void list_misshapen(struct list *list, const struct model *model,
                           const struct source *source, int part)
{
    (void)model;
    char text[512];
    if (!source->parts[part] || fits(source, source->parts[part]))
        return;
    describe_misfit(text, sizeof text, source, source->parts[part]);
    list_add(list, "%s%s", list->items ? ", " : "", text);
}

static void visit_parts(struct list *list, const struct model *model, part_visitor visitor)
{
    for (int i = 0; i < model->parameter_count; i++) {
        const struct source *source = model->parameters[i]->source;
        for (int part = 0; part < source->part_count; part++)
            visitor(list, model, source, part);
    }
}

static int check_parameters(const struct model *model, struct status *status)
{
    struct list missing = {0}, misshapen = {0};
    visit_parts(&missing, model, list_missing);
    visit_parts(&misshapen, model, list_misshapen);
    int missing_count = missing.items + missing.left_out;
    int misshapen_count = misshapen.items + misshapen.left_out;
    if (missing_count + misshapen_count == 0)
        return STATUS_OK;
    struct list all = {0};
    list_add(&all, "%s does not fit the configuration:", checkpoint_path(model->checkpoint));
    if (missing_count)
        list_add(&all, " %d tensor%s missing: ", missing_count, missing_count == 1 ? "" : "s");
    all.items = 0;
    visit_parts(&all, model, list_missing);
    if (misshapen_count && !all.left_out) {
        list_add(&all, "%s %d misshapen: ", missing_count ? ";" : "", misshapen_count);
        all.items = 0;
    }
    visit_parts(&all, model, list_misshapen);
    if (all.left_out)
        snprintf(all.text + all.length, sizeof all.text - all.length, " and %d more", all.left_out);
    return status_set(status, STATUS_BAD_INPUT, "%s", all.text);
}

/* The checksums of what will be read: damaged weights are refused here, not solved with. */
static int verify_parameters(const struct model *model, struct status *status)
{
    for (int i = 0; i < model->parameter_count; i++) {
        const struct source *source = model->parameters[i]->source;
        for (int part = 0; part < source->part_count; part++)
            if (checkpoint_verify(model->checkpoint, source->parts[part], status))
                return status->code;
        checkpoint_drop_pages(model->checkpoint);
    }
    return STATUS_OK;
}

static int64_t tensor_count(const struct expected_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

void model_visit_tensors(const struct model *model,
                         void (*visit)(void *context, const struct expected_tensor *tensor),
                         void *context)
{
    for (int i = 0; i < model->parameter_count; i++) {
        const struct source *source = model->parameters[i]->source;
        for (int part = 0; part < source->part_count; part++) {
            char name[KEY_BYTES], misfit[512];
            struct expected_tensor tensor = {
                .name = name, .parameter = &source->parameter, .found = source->parts[part]};
            expand_part(source->parameter.name, part, name);
            tensor.rank = wanted_shape(source, tensor.shape);
            tensor.first = part * tensor_count(&tensor);
            if (tensor.found && !fits(source, tensor.found)) {
                describe_misfit(misfit, sizeof misfit, source, tensor.found);
                tensor.misfit = misfit;
            }
            visit(context, &tensor);
        }
    }
}

/* ---- which tensors a configuration expects ---- */

/* The parameters do not depend on the size: the smallest pictures will do. */
static int collect_parameters(struct model *model, struct status *status)
{
    const struct model_config *config = &model->config;
    struct program *program = program_create(kernels_plain_f32(), TYPE_F32, 1);
    if (!program)
        return status_set(status, STATUS_FAILURE, "out of memory for the list of parameters");
    struct tape *tape = program_tape(program, "parameters");
    int64_t image_side = model_size_multiple(model);
    int64_t latent_side = image_side / model_latent_factor(model);
    if (config->unet.present) {
        int64_t shape[4] = {1, latent_side, latent_side, config->unet.in_channels};
        value x = tape_state(tape, program_state(program, "x", TYPE_F32, shape));
        value t = tape_state(tape, program_state(program, "t", TYPE_F32, (int64_t[4]){1, 1, 1, 1}));
        unet_record(tape, model, x, t);
    }
    if (config->autoencoder.present) {
        int64_t shape[4] = {1, latent_side, latent_side, config->autoencoder.embed_dim};
        value z = tape_state(tape, program_state(program, "z", TYPE_F32, shape));
        decoder_record(tape, model, z, true);
        int64_t image_shape[4] = {1, image_side, image_side, config->autoencoder.in_channels};
        value image = tape_state(tape, program_state(program, "image", TYPE_F32, image_shape));
        encoder_record(tape, model, image);
    }
    if (!status_ok(tape_status(tape)))
        status_set(status, tape_status(tape)->code, "%s", tape_status(tape)->message);
    program_free(program);
    return status->code;
}

static bool has_prefix(const struct checkpoint *checkpoint, const char *prefix)
{
    for (int i = 0; i < checkpoint_count(checkpoint); i++)
        if (starts_with(checkpoint_at(checkpoint, i)->name, prefix))
            return true;
    return false;
}

static int check_ema(const struct model *model, struct status *status)
{
    if (!model->use_ema || !model->checkpoint)
        return STATUS_OK;
    if (!model->config.unet.present)
        return status_set(status, STATUS_BAD_INPUT,
                          "EMA weights belong to a UNet, and this configuration has none");
    if (!has_prefix(model->checkpoint, ema_prefix))
        return status_set(status, STATUS_BAD_INPUT,
                          "%s has no EMA weights (no names that begin with %s)",
                          checkpoint_path(model->checkpoint), ema_prefix);
    return STATUS_OK;
}

/* ---- which files ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

/* The files that a model was named by; empty where there is none. */
struct files {
    char config[4096], checkpoint[4096];
};

static int remember_one(char kept[4096], const char *folder, const char *name, const char *kind,
                        struct status *status)
{
    if (kept[0])
        return status_set(status, STATUS_BAD_INPUT,
                          "%s holds more than one %s (%s and %s): name the file instead", folder,
                          kind, strrchr(kept, '/') + 1, name);
    if (snprintf(kept, 4096, "%s/%s", folder, name) >= 4096)
        return status_set(status, STATUS_BAD_INPUT, "%s: path too long", folder);
    return STATUS_OK;
}

static int find_in_folder(const char *folder, struct files *files, struct status *status)
{
    DIR *directory = opendir(folder);
    if (!directory)
        return status_set(status, STATUS_BAD_INPUT, "%s: cannot read this folder", folder);
    for (struct dirent *entry; status_ok(status) && (entry = readdir(directory));) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        if (ends_with(name, ".yaml"))
            remember_one(files->config, folder, name, "configuration", status);
        else if (ends_with(name, ".safetensors") || ends_with(name, ".ckpt"))
            remember_one(files->checkpoint, folder, name, "checkpoint", status);
    }
    closedir(directory);
    if (status_ok(status) && !files->checkpoint[0])
        status_set(status, STATUS_BAD_INPUT,
                   "%s holds no checkpoint (a .safetensors or .ckpt file)", folder);
    return status->code;
}

static int find_beside(const char *path, struct files *files, struct status *status)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    int stem = (int)(dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path));
    if (snprintf(files->checkpoint, sizeof files->checkpoint, "%s", path) >= 4096 ||
        snprintf(files->config, sizeof files->config, "%.*s.yaml", stem, path) >= 4096)
        return status_set(status, STATUS_BAD_INPUT, "%s: path too long", path);
    struct stat info;
    if (stat(files->config, &info))
        files->config[0] = 0;
    return STATUS_OK;
}

static int find_files(const char *path, struct files *files, struct status *status)
{
    struct stat info;
    if (stat(path, &info))
        return status_set(status, STATUS_BAD_INPUT, "%s: no such model file or folder", path);
    return S_ISDIR(info.st_mode) ? find_in_folder(path, files, status)
                                 : find_beside(path, files, status);
}

/* config_path NULL: the text in the checkpoint's metadata. */
static int read_config(struct model *model, const char *config_path, struct status *status)
{
    if (config_path)
        return config_read_file(&model->config, config_path, status);
    const char *text = checkpoint_metadata(model->checkpoint, "config");
    if (!text)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: no configuration: expected a .yaml beside it or the metadata key "
                          "\"config\"",
                          checkpoint_path(model->checkpoint));
    return config_read_text(&model->config, text, strlen(text), checkpoint_path(model->checkpoint),
                            status);
}

/* Models trained with scale_by_std keep the factor that training measured. */
static int take_scale_factor(struct model *model, struct status *status)
{
    const struct checkpoint_tensor *tensor = checkpoint_find(model->checkpoint, "scale_factor");
    if (!tensor || tensor->rank != 0 || tensor->type > CHECKPOINT_F64)
        return STATUS_OK;
    float factor;
    checkpoint_read(tensor, &factor);
    if (!(factor > 0 && factor < 1e30f))
        return status_set(status, STATUS_BAD_INPUT, "%s: scale_factor is %g: expected above 0",
                          checkpoint_path(model->checkpoint), (double)factor);
    model->config.scale_factor = (double)factor;
    return STATUS_OK;
}

static int open_files(struct model *model, const char *path, const char *config_path,
                      const char *checkpoint_path, bool use_ema, struct status *status)
{
    struct files files = {0};
    *model = (struct model){.use_ema = use_ema};
    if (path) {
        if (find_files(path, &files, status))
            goto done;
        config_path = files.config[0] ? files.config : NULL;
        checkpoint_path = files.checkpoint;
    }
    if (config_path && !(model->config_path = strdup(config_path))) {
        status_set(status, STATUS_FAILURE, "out of memory for a path");
        goto done;
    }
    if (checkpoint_path && !(model->checkpoint = checkpoint_open(checkpoint_path, status)))
        goto done;
    if (read_config(model, config_path, status) || check_ema(model, status))
        goto done;
    if (model->checkpoint) {
        model->bare_first_stage =
            !model->config.unet.present && !has_prefix(model->checkpoint, first_stage_prefix);
        take_scale_factor(model, status);
    }
done:
    return status->code;
}

int model_open_any(struct model *model, const char *path, const char *config_path,
                   const char *checkpoint_path, bool use_ema, struct status *status)
{
    if (open_files(model, path, config_path, checkpoint_path, use_ema, status) == STATUS_OK)
        collect_parameters(model, status);
    if (!status_ok(status))
        model_close(model);
    return status->code;
}

/* An autoencoder whose UNet is still to be trained. */
static bool awaits_its_unet(const struct model *model)
{
    return model->checkpoint && model->config.autoencoder.present &&
           !has_prefix(model->checkpoint, unet_prefix) &&
           has_prefix(model->checkpoint, first_stage_prefix);
}

int model_open(struct model *model, const char *path, const char *config_path,
               const char *checkpoint_path, bool use_ema, struct status *status)
{
    if (open_files(model, path, config_path, checkpoint_path, use_ema, status) == STATUS_OK) {
        if (awaits_its_unet(model))
            model->config.unet.present = false;
        collect_parameters(model, status);
    }
    if (status_ok(status) && model->checkpoint && check_parameters(model, status) == STATUS_OK)
        verify_parameters(model, status);
    if (!status_ok(status))
        model_close(model);
    return status->code;
}

void model_close(struct model *model)
{
    for (int i = 0; i < model->parameter_count; i++) {
        parameter_release(model->parameters[i]);
        free(model->parameters[i]);
    }
    free(model->parameters);
    free(model->config_path);
    if (model->checkpoint)
        checkpoint_close(model->checkpoint);
    *model = (struct model){0};
}

/* ---- what else is in the file ---- */

static bool is_known_extra(const struct model *model, const char *name)
{
    static const char *const prefixes[] = {"model_ema.", "loss.", "first_stage_model.loss."};
    static const char *const buffers[] = {"betas",
                                          "alphas_cumprod",
                                          "alphas_cumprod_prev",
                                          "sqrt_alphas_cumprod",
                                          "sqrt_one_minus_alphas_cumprod",
                                          "log_one_minus_alphas_cumprod",
                                          "sqrt_recip_alphas_cumprod",
                                          "sqrt_recipm1_alphas_cumprod",
                                          "posterior_variance",
                                          "posterior_log_variance_clipped",
                                          "posterior_mean_coef1",
                                          "posterior_mean_coef2",
                                          "scale_factor"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (starts_with(name, prefixes[i]))
            return true;
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (strcmp(name, buffers[i]) == 0)
            return true;
    return model->use_ema && starts_with(name, unet_prefix);
}

static bool is_used(const struct model *model, const struct checkpoint_tensor *tensor)
{
    for (int i = 0; i < model->parameter_count; i++) {
        const struct source *source = model->parameters[i]->source;
        for (int part = 0; part < source->part_count; part++)
            if (source->parts[part] == tensor)
                return true;
    }
    return false;
}

int model_list_extra(struct model *model, const char ***names, int *count, struct status *status)
{
    *count = 0;
    int all = model->checkpoint ? checkpoint_count(model->checkpoint) : 0;
    *names = status_calloc(status, (unsigned long)all + 1, sizeof **names, "the list of names");
    if (!*names)
        return status->code;
    for (int i = 0; i < all; i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(model->checkpoint, i);
        if (!is_used(model, tensor) && !is_known_extra(model, tensor->name))
            (*names)[(*count)++] = tensor->name;
    }
    return STATUS_OK;
}
