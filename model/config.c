#include "model/config.h"

#include "runtime/yaml.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* One part of the file being read: messages name keys by their whole path. */
struct section {
    const struct yaml_document *document;
    const struct yaml_node *node;
    const char *path; /* "model.params.unet_config.params" */
    struct status *status;
};

static const struct yaml_node *find(const struct section *section, const char *key, char *path,
                                    size_t path_bytes)
{
    snprintf(path, path_bytes, "%s.%s", section->path, key);
    return yaml_find(section->node, key);
}

static void missing(const struct section *section, const char *path)
{
    status_set(section->status, STATUS_BAD_INPUT, "%s: %s (line %d): missing",
               section->document->origin, path, section->node->line);
}

/* An integer within limits; fallback INT_MIN: it must be there. */
static int integer(const struct section *section, const char *key, int fallback, int least,
                   int most)
{
    char path[192];
    int64_t result = fallback;
    const struct yaml_node *node = find(section, key, path, sizeof path);
    if (node)
        yaml_integer(section->document, node, path, least, most, &result, section->status);
    else if (fallback == INT_MIN)
        missing(section, path);
    return (int)result;
}

static double number(const struct section *section, const char *key, double fallback, double least,
                     double most)
{
    char path[192];
    double result = fallback;
    const struct yaml_node *node = find(section, key, path, sizeof path);
    if (node)
        yaml_real(section->document, node, path, least, most, &result, section->status);
    return result;
}

static bool boolean(const struct section *section, const char *key, bool fallback)
{
    char path[192];
    bool result = fallback;
    const struct yaml_node *node = find(section, key, path, sizeof path);
    if (node)
        yaml_boolean(section->document, node, path, &result, section->status);
    return result;
}

/* A list of integers; returns how many. */
static int integers(const struct section *section, const char *key, bool required, int least,
                    int most, int result[CONFIG_MAX_LEVELS])
{
    char path[192];
    const struct yaml_node *node = find(section, key, path, sizeof path);
    if (!node) {
        if (required)
            missing(section, path);
        return 0;
    }
    if (node->kind != YAML_SEQUENCE || node->count > CONFIG_MAX_LEVELS ||
        (required && node->count < 1)) {
        status_set(section->status, STATUS_BAD_INPUT,
                   "%s: %s (line %d): expected a list of at most %d integers",
                   section->document->origin, path, node->line, CONFIG_MAX_LEVELS);
        return 0;
    }
    for (int i = 0; i < node->count; i++) {
        int64_t item = 0;
        yaml_integer(section->document, node->items[i], path, least, most, &item, section->status);
        result[i] = (int)item;
    }
    return node->count;
}

static void refuse(const struct section *section, const char *key, const char *why)
{
    char path[192];
    const struct yaml_node *node = find(section, key, path, sizeof path);
    status_set(section->status, STATUS_BAD_INPUT, "%s: %s (line %d): %s", section->document->origin,
               path, node ? node->line : section->node->line, why);
}

static const char *text(const struct section *section, const char *key)
{
    const struct yaml_node *node = yaml_find(section->node, key);
    return node && node->kind == YAML_SCALAR ? node->text : "";
}

/* The class that a target names, without its module: "ldm.models.autoencoder.VQModel" -> "VQModel".
 */
static const char *class_name(const char *target)
{
    const char *dot = strrchr(target, '.');
    return dot ? dot + 1 : target;
}

enum { MAX_CHANNELS = 65536, MAX_SIZE = 16384, MAX_CODES = 1 << 20, GROUPS = 32 };

/* Every normalised width is `base` times a multiplier. */
static void check_widths(const struct section *section, const char *base_key, int base,
                         const char *multiplier_key, const int *multiplier, int levels)
{
    if (base % GROUPS)
        refuse(section, base_key, "expected a multiple of 32 (the groups of the group norm)");
    for (int i = 0; i < levels; i++)
        if ((int64_t)base * multiplier[i] > MAX_CHANNELS)
            refuse(section, multiplier_key, "more than 65536 channels");
}

static void check_heads(const struct section *section, const struct unet_config *unet)
{
    for (int i = 0; i < unet->levels; i++) {
        int channels = unet->model_channels * unet->channel_mult[i], factor = 1 << i;
        bool attends = i == unet->levels - 1;
        for (int k = 0; k < unet->attention_count; k++)
            attends |= unet->attention_resolutions[k] == factor;
        if (!attends)
            continue;
        if (unet->num_head_channels > 0 && channels % unet->num_head_channels)
            refuse(section, "num_head_channels", "does not divide the channels of a level");
        else if (unet->num_head_channels <= 0 && channels % unet->num_heads)
            refuse(section, "num_heads", "does not divide the channels of a level");
    }
}

static bool unet_heads_differ(const struct section *section)
{
    int heads = integer(section, "num_heads", -1, -1, MAX_CHANNELS);
    int above = integer(section, "num_heads_upsample", -1, -1, MAX_CHANNELS);
    return above != -1 && above != heads;
}

static void check_unet_options(const struct section *section)
{
    static const char *const switches[] = {"use_scale_shift_norm", "resblock_updown",
                                           "use_spatial_transformer", "use_new_attention_order"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (boolean(section, switches[i], false))
            refuse(section, switches[i], "not supported; expected false");
    if (!boolean(section, "conv_resample", true))
        refuse(section, "conv_resample", "not supported; expected true");
    if (integer(section, "dims", 2, 1, 3) != 2)
        refuse(section, "dims", "not supported; expected 2");
    if (unet_heads_differ(section))
        refuse(section, "num_heads_upsample", "not supported; expected the same as num_heads");
    if (yaml_find(section->node, "num_classes"))
        refuse(section, "num_classes", "class conditioning is not supported");
    if (yaml_find(section->node, "context_dim"))
        refuse(section, "context_dim", "cross-attention is not supported");
}

static void read_unet(const struct section *section, struct unet_config *unet)
{
    unet->present = true;
    unet->image_size = integer(section, "image_size", INT_MIN, 1, MAX_SIZE);
    unet->in_channels = integer(section, "in_channels", INT_MIN, 1, MAX_CHANNELS);
    unet->out_channels = integer(section, "out_channels", INT_MIN, 1, MAX_CHANNELS);
    unet->model_channels = integer(section, "model_channels", INT_MIN, 1, MAX_CHANNELS);
    unet->num_res_blocks = integer(section, "num_res_blocks", INT_MIN, 1, 64);
    unet->levels = integers(section, "channel_mult", true, 1, 64, unet->channel_mult);
    unet->attention_count =
        integers(section, "attention_resolutions", false, 1, MAX_SIZE, unet->attention_resolutions);
    unet->num_heads = integer(section, "num_heads", -1, -1, MAX_CHANNELS);
    unet->num_head_channels = integer(section, "num_head_channels", -1, -1, MAX_CHANNELS);
    if (!status_ok(section->status))
        return;
    if (unet->num_heads < 1 && unet->num_head_channels < 1)
        refuse(section, "num_heads", "expected num_heads or num_head_channels");
    if (unet->out_channels != unet->in_channels)
        refuse(section, "out_channels", "expected the same as in_channels (the noise alone)");
    check_unet_options(section);
    check_widths(section, "model_channels", unet->model_channels, "channel_mult",
                 unet->channel_mult, unet->levels);
    if (status_ok(section->status))
        check_heads(section, unet);
}

static void check_autoencoder(const struct section *dd,
                              const struct autoencoder_config *autoencoder)
{
    check_widths(dd, "ch", autoencoder->ch, "ch_mult", autoencoder->ch_mult, autoencoder->levels);
    if (autoencoder->is_vq && autoencoder->double_z)
        refuse(dd, "double_z", "expected false for a VQ model");
    if (!autoencoder->is_vq && !autoencoder->double_z)
        refuse(dd, "double_z", "expected true for a KL model");
    if (autoencoder->out_ch != autoencoder->in_channels)
        refuse(dd, "out_ch", "expected the same as in_channels");
    if (autoencoder->resolution % (1 << (autoencoder->levels - 1)))
        refuse(dd, "resolution", "does not divide by 2^(levels - 1)");
    static const char *const switches[] = {"use_linear_attn", "give_pre_end", "tanh_out"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (boolean(dd, switches[i], false))
            refuse(dd, switches[i], "not supported; expected false");
    if (!boolean(dd, "resamp_with_conv", true))
        refuse(dd, "resamp_with_conv", "not supported; expected true");
    if (*text(dd, "attn_type") && strcmp(text(dd, "attn_type"), "vanilla") != 0)
        refuse(dd, "attn_type", "not supported; expected vanilla");
}

static void read_autoencoder(const struct section *section, const char *target,
                             struct autoencoder_config *autoencoder)
{
    char path[160];
    snprintf(path, sizeof path, "%s.ddconfig", section->path);
    const struct section dd = {section->document, yaml_find(section->node, "ddconfig"), path,
                               section->status};
    if (!dd.node) {
        missing(section, path);
        return;
    }
    autoencoder->present = true;
    autoencoder->is_vq = strcmp(class_name(target), "AutoencoderKL") != 0;
    autoencoder->embed_dim = integer(section, "embed_dim", INT_MIN, 1, MAX_CHANNELS);
    autoencoder->n_embed =
        autoencoder->is_vq ? integer(section, "n_embed", INT_MIN, 1, MAX_CODES) : 0;
    autoencoder->double_z = boolean(&dd, "double_z", true);
    autoencoder->z_channels = integer(&dd, "z_channels", INT_MIN, 1, MAX_CHANNELS);
    autoencoder->resolution = integer(&dd, "resolution", INT_MIN, 1, MAX_SIZE);
    autoencoder->in_channels = integer(&dd, "in_channels", INT_MIN, 1, MAX_CHANNELS);
    autoencoder->out_ch = integer(&dd, "out_ch", INT_MIN, 1, MAX_CHANNELS);
    autoencoder->ch = integer(&dd, "ch", INT_MIN, 1, MAX_CHANNELS);
    autoencoder->num_res_blocks = integer(&dd, "num_res_blocks", INT_MIN, 1, 64);
    autoencoder->levels = integers(&dd, "ch_mult", true, 1, 64, autoencoder->ch_mult);
    autoencoder->attention_count =
        integers(&dd, "attn_resolutions", false, 1, MAX_SIZE, autoencoder->attn_resolutions);
    if (status_ok(section->status))
        check_autoencoder(&dd, autoencoder);
}

static const char *const autoencoders[] = {"VQModelInterface", "VQModel", "AutoencoderKL", NULL};
static const char *const unets[] = {"UNetModel", NULL};

/* The target of {target, params}; a class that is not in the list is an error. */
static const char *read_target(const struct section *section, const struct yaml_node *parent,
                               const char *path, const char *const *known)
{
    const struct yaml_node *node = yaml_find(parent, "target");
    const char *target = node && node->kind == YAML_SCALAR ? node->text : "";
    for (int i = 0; known[i]; i++)
        if (strcmp(class_name(target), known[i]) == 0)
            return target;
    char expected[96];
    int length = snprintf(expected, sizeof expected, "%s", known[0]);
    for (int i = 1; known[i]; i++)
        length += snprintf(expected + length, sizeof expected - (size_t)length, " or %s", known[i]);
    status_set(section->status, STATUS_BAD_INPUT,
               "%s: %s.target (line %d): expected %s, found '%.60s'", section->document->origin,
               path, node ? node->line : parent->line, expected, target);
    return target;
}

/* An entry {target, params} under model.params. */
static const struct yaml_node *component(const struct section *section, const char *key,
                                         const char *const *known, const char **target)
{
    char path[96];
    const struct yaml_node *node = find(section, key, path, sizeof path);
    const struct yaml_node *params = node ? yaml_find(node, "params") : NULL;
    if (!params)
        status_set(section->status, STATUS_BAD_INPUT, "%s: %s.params (line %d): missing",
                   section->document->origin, path, node ? node->line : section->node->line);
    else
        *target = read_target(section, node, path, known);
    return params;
}

/* A network that takes more than the noisy latent and the time is none of ours. */
static void refuse_conditions(const struct section *section)
{
    const struct yaml_node *stage = yaml_find(section->node, "cond_stage_config");
    if (stage && strcmp(text(section, "cond_stage_config"), "__is_unconditional__") != 0)
        refuse(section, "cond_stage_config", "conditional models are not supported");
    if (yaml_find(section->node, "conditioning_key"))
        refuse(section, "conditioning_key", "conditional models are not supported");
}

static void read_latent_diffusion(const struct section *section, struct model_config *config)
{
    const char *target = "";
    config->linear_start = number(section, "linear_start", 1e-4, 1e-12, 0.999);
    config->linear_end = number(section, "linear_end", 2e-2, 1e-12, 0.999);
    config->timesteps = integer(section, "timesteps", 1000, 1, 100000);
    config->image_size = integer(section, "image_size", 256, 1, MAX_SIZE);
    config->channels = integer(section, "channels", 3, 1, MAX_CHANNELS);
    config->scale_factor = number(section, "scale_factor", 1, 1e-6, 1e6);
    if (*text(section, "beta_schedule") && strcmp(text(section, "beta_schedule"), "linear") != 0)
        refuse(section, "beta_schedule", "expected linear");
    if (*text(section, "parameterization") && strcmp(text(section, "parameterization"), "eps") != 0)
        refuse(section, "parameterization", "expected eps");
    refuse_conditions(section);
    struct section part = *section;
    part.node = component(section, "unet_config", unets, &target);
    part.path = "model.params.unet_config.params";
    if (part.node)
        read_unet(&part, &config->unet);
    part.node = component(section, "first_stage_config", autoencoders, &target);
    part.path = "model.params.first_stage_config.params";
    if (part.node && status_ok(section->status))
        read_autoencoder(&part, target, &config->autoencoder);
    if (status_ok(section->status) && config->unet.in_channels != config->autoencoder.embed_dim)
        refuse(section, "unet_config.params.in_channels", "expected the autoencoder's embed_dim");
}

static int read_document(struct model_config *config, const struct yaml_document *document,
                         struct status *status)
{
    memset(config, 0, sizeof *config);
    config->scale_factor = 1;
    const struct section section = {document, yaml_find(document->root, "model.params"),
                                    "model.params", status};
    if (!section.node)
        return status_set(status, STATUS_BAD_INPUT, "%s: model.params (line %d): missing",
                          document->origin, document->root->line);
    bool diffusion = yaml_find(section.node, "unet_config") != NULL ||
                     yaml_find(section.node, "first_stage_config") != NULL;
    if (diffusion)
        read_latent_diffusion(&section, config);
    else
        read_autoencoder(
            &section,
            read_target(&section, yaml_find(document->root, "model"), "model", autoencoders),
            &config->autoencoder);
    return status->code;
}

int config_read_text(struct model_config *config, const char *text, size_t length,
                     const char *origin, struct status *status)
{
    struct yaml_document document;
    if (yaml_read_text(&document, text, length, origin, status) == STATUS_OK)
        read_document(config, &document, status);
    yaml_close(&document);
    return status->code;
}

int config_read_file(struct model_config *config, const char *path, struct status *status)
{
    struct yaml_document document;
    if (yaml_read_file(&document, path, status) == STATUS_OK)
        read_document(config, &document, status);
    yaml_close(&document);
    return status->code;
}
