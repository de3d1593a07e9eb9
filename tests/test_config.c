/* Model configurations: the official form read unchanged, every refusal by file, key and line,
 * mutations. */
#include "model/config.h"
#include "runtime/array.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char ldm_vq4[] = "models/ldm-vq4-256/ldm-vq4-256.yaml";
static const char kl[] = "tests/data/networks/kl/kl.yaml";

static void read_or_fail(struct model_config *config, const char *path)
{
    struct status status = {0};
    if (config_read_file(config, path, &status))
        fail_msg("%s", status.message);
}

static void assert_list(const int *read, int count, const int *expected, int expected_count)
{
    assert_int_equal(count, expected_count);
    for (int i = 0; i < count; i++)
        assert_int_equal(read[i], expected[i]);
}

static void ldm_vq4_file(void **state)
{
    (void)state;
    struct model_config config;
    read_or_fail(&config, ldm_vq4);
    assert_true(config.linear_start == 0.0015 && config.linear_end == 0.0195);
    assert_true(config.scale_factor == 1);
    assert_int_equal(config.timesteps, 1000);
    assert_int_equal(config.image_size, 64);
    assert_int_equal(config.channels, 3);
    const struct unet_config *unet = &config.unet;
    assert_true(unet->present);
    assert_int_equal(unet->image_size, 64);
    assert_int_equal(unet->in_channels, 3);
    assert_int_equal(unet->out_channels, 3);
    assert_int_equal(unet->model_channels, 224);
    assert_int_equal(unet->num_res_blocks, 2);
    assert_int_equal(unet->num_head_channels, 32);
    assert_int_equal(unet->num_heads, -1);
    assert_list(unet->channel_mult, unet->levels, (const int[]){1, 2, 3, 4}, 4);
    assert_list(unet->attention_resolutions, unet->attention_count, (const int[]){8, 4, 2}, 3);
    const struct autoencoder_config *autoencoder = &config.autoencoder;
    assert_true(autoencoder->present && autoencoder->is_vq && !autoencoder->double_z);
    assert_int_equal(autoencoder->embed_dim, 3);
    assert_int_equal(autoencoder->n_embed, 8192);
    assert_int_equal(autoencoder->z_channels, 3);
    assert_int_equal(autoencoder->resolution, 256);
    assert_int_equal(autoencoder->in_channels, 3);
    assert_int_equal(autoencoder->out_ch, 3);
    assert_int_equal(autoencoder->ch, 128);
    assert_int_equal(autoencoder->num_res_blocks, 2);
    assert_int_equal(autoencoder->attention_count, 0);
    assert_list(autoencoder->ch_mult, autoencoder->levels, (const int[]){1, 2, 4}, 3);
}

static void first_stage_alone(void **state)
{
    (void)state;
    struct model_config config;
    read_or_fail(&config, kl);
    assert_false(config.unet.present);
    assert_true(config.autoencoder.present && !config.autoencoder.is_vq);
    assert_true(config.autoencoder.double_z);
    assert_int_equal(config.autoencoder.embed_dim, 4);
    assert_list(config.autoencoder.attn_resolutions, config.autoencoder.attention_count,
                (const int[]){16, 8}, 2);
    assert_true(config.scale_factor == 1);
    static const char vq[] = "model:\n"
                             "  target: ldm.models.autoencoder.VQModel\n"
                             "  params: {embed_dim: 3, n_embed: 256, monitor: val/rec_loss,\n"
                             "    ddconfig: {double_z: false, z_channels: 3, resolution: 256,\n"
                             "      in_channels: 3, out_ch: 3, ch: 128, ch_mult: [1, 2, 4, 8],\n"
                             "      num_res_blocks: 2, attn_resolutions: [32], dropout: 0.0}}\n"
                             "data: {target: main.DataModuleFromConfig, size: !!int 4}\n";
    struct status status = {0};
    assert_int_equal(config_read_text(&config, vq, sizeof vq - 1, "vq.yaml", &status), STATUS_OK);
    assert_true(config.autoencoder.is_vq);
    assert_int_equal(config.autoencoder.levels, 4);
}

static void other_files(void **state)
{
    (void)state;
    struct model_config config;
    read_or_fail(&config, "tests/data/networks/wide/wide.yaml");
    assert_true(config.scale_factor == 0.5);
    read_or_fail(&config, "tests/data/networks/heads/heads.yaml");
    assert_int_equal(config.unet.num_heads, 2);
    assert_int_equal(config.unet.num_head_channels, -1);
    read_or_fail(&config, "tests/data/networks/gray/gray.yaml");
    assert_int_equal(config.autoencoder.in_channels, 1);
    read_or_fail(&config, "models/ct-128/ct-128.yaml");
    read_or_fail(&config, "tests/data/tiny/tiny.yaml");
}

/* Text of a file with the first `old` replaced, NUL-terminated. */
static char *edited(const char *path, const char *old, const char *new)
{
    struct status status = {0};
    size_t length;
    char *text = file_read_text(path, 1 << 16, &length, &status);
    char *at = text ? strstr(text, old) : NULL;
    if (!at)
        fail_msg("%s: no \"%s\"", path, old);
    size_t size = length + strlen(new) + 1;
    char *result = malloc(size);
    assert_non_null(result);
    snprintf(result, size, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    free(text);
    return result;
}

struct edit {
    const char *old, *new, *message;
};

static void refuse(const char *path, const struct edit *edits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct status status = {0};
        struct model_config config;
        char *text = edited(path, edits[i].old, edits[i].new);
        config_read_text(&config, text, strlen(text), "f.yaml", &status);
        free(text);
        if (status.code != STATUS_BAD_INPUT || strncmp(status.message, "f.yaml: model", 13) != 0 ||
            !strstr(status.message, edits[i].message))
            fail_msg("%s -> %s: %d \"%s\", expected \"%s\"", edits[i].old, edits[i].new,
                     status.code, status.message, edits[i].message);
    }
}

static void refused_unets(void **state)
{
    (void)state;
    static const struct edit edits[] = {
        {"model_channels: 224\n", "model_channels: 224x\n",
         "model.params.unet_config.params.model_channels (line 20): expected an integer from 1 to "
         "65536, found '224x'"},
        {"model_channels: 224\n", "model_channels: 100\n", "expected a multiple of 32"},
        {"model_channels: 224\n", "model_channels: 65537\n", "from 1 to 65536, found '65537'"},
        {"model_channels: 224\n", "model_channels: 32768\n", "more than 65536 channels"},
        {"        model_channels: 224\n", "", "model_channels (line 17): missing"},
        {"        - 4\n        num",
         "        - 1\n        - 1\n        - 1\n        - 1\n        - 1\n        - 1\n        "
         "num",
         "expected a list of at most 8 integers"},
        {"        - 3\n", "        - 0\n", "channel_mult (line 30): expected an integer from 1"},
        {"num_res_blocks: 2", "num_res_blocks: [2]", "num_res_blocks (line 26)"},
        {"num_head_channels: 32", "num_head_channels: 60", "does not divide the channels"},
        {"num_head_channels: 32", "num_heads: 5", "num_heads (line 32): does not divide"},
        {"num_head_channels: 32", "dropout: 0", "expected num_heads or num_head_channels"},
        {"num_head_channels: 32", "num_heads: 8\n        num_heads_upsample: 4",
         "num_heads_upsample (line 33): not supported"},
        {"num_head_channels: 32", "num_head_channels: 32\n        use_scale_shift_norm: true",
         "use_scale_shift_norm (line 33): not supported"},
        {"num_head_channels: 32", "num_head_channels: 32\n        resblock_updown: True",
         "resblock_updown (line 33): not supported"},
        {"num_head_channels: 32", "num_head_channels: 32\n        use_spatial_transformer: true",
         "use_spatial_transformer (line 33)"},
        {"num_head_channels: 32", "num_head_channels: 32\n        use_new_attention_order: true",
         "use_new_attention_order (line 33)"},
        {"num_head_channels: 32", "num_head_channels: 32\n        conv_resample: false",
         "conv_resample (line 33): not supported"},
        {"num_head_channels: 32", "num_head_channels: 32\n        dims: 3", "dims (line 33)"},
        {"num_head_channels: 32", "num_head_channels: 32\n        num_classes: 1000",
         "num_classes (line 33): class conditioning is not supported"},
        {"num_head_channels: 32", "num_head_channels: 32\n        context_dim: 512",
         "context_dim (line 33): cross-attention is not supported"},
        {"out_channels: 3", "out_channels: 6", "out_channels (line 19): expected the same"},
        {"        in_channels: 3\n        out_channels: 3",
         "        in_channels: 4\n        out_channels: 4", "expected the autoencoder's embed_dim"},
        {"openaimodel.UNetModel", "openaimodel.EncoderUNetModel",
         "unet_config.target (line 15): expected UNetModel, found 'ldm.modules.diffusionmodules."
         "openaimodel.EncoderUNetModel'"},
        {"unet_config:", "other:", "model.params.unet_config.params (line 5): missing"}};
    refuse(ldm_vq4, edits, sizeof edits / sizeof *edits);
}

static void refused_autoencoders(void **state)
{
    (void)state;
    static const struct edit edits[] = {
        {"ch: 128", "ch: 48", "ddconfig.ch (line 45): expected a multiple of 32"},
        {"ch: 128", "ch: 32768", "more than 65536 channels"},
        {"out_ch: 3", "out_ch: 1", "out_ch (line 44): expected the same as in_channels"},
        {"double_z: false", "double_z: true", "expected false for a VQ model"},
        {"double_z: false", "double_z: 0", "double_z (line 40): expected true or false, found '0'"},
        {"resolution: 256", "resolution: 254", "does not divide by 2^(levels - 1)"},
        {"n_embed: 8192", "n_embed: 0", "n_embed (line 37): expected an integer from 1"},
        {"embed_dim: 3", "embed_dim: 5", "expected the autoencoder's embed_dim"},
        {"ddconfig:", "other:", "first_stage_config.params.ddconfig (line 36): missing"},
        {"attn_resolutions: []", "attn_resolutions: 16", "expected a list of at most 8 integers"},
        {"dropout: 0.0", "attn_type: none", "attn_type (line 52): not supported; expected vanilla"},
        {"dropout: 0.0", "use_linear_attn: true", "use_linear_attn (line 52): not supported"},
        {"dropout: 0.0", "resamp_with_conv: false", "resamp_with_conv (line 52): not supported"},
        {"dropout: 0.0", "tanh_out: true", "tanh_out (line 52): not supported"},
        {"dropout: 0.0", "give_pre_end: true", "give_pre_end (line 52): not supported"},
        {"autoencoder.VQModelInterface", "autoencoder.IdentityFirstStage",
         "first_stage_config.target (line 34): expected VQModelInterface or VQModel or "
         "AutoencoderKL, found 'ldm.models.autoencoder.IdentityFirstStage'"},
        {"autoencoder.VQModelInterface", "autoencoder.AutoencoderKL",
         "double_z (line 40): expected true for a KL model"}};
    refuse(ldm_vq4, edits, sizeof edits / sizeof *edits);
    static const struct edit first_stages[] = {
        {"AutoencoderKL", "Other", "model.target (line 2): expected VQModelInterface or"},
        {"    ddconfig", "    unet_config: {}\n    ddconfig",
         "unet_config.params (line 5): missing"},
        {"  params", "  other", "model.params (line 1): missing"}};
    refuse(kl, first_stages, sizeof first_stages / sizeof *first_stages);
}

static void refused_diffusions(void **state)
{
    (void)state;
    static const struct edit edits[] = {
        {"linear_start: 0.0015", "linear_start: -1", "linear_start (line 5): expected a number"},
        {"linear_end: 0.0195", "linear_end: 1.5", "linear_end (line 6): expected a number"},
        {"timesteps: 1000", "timesteps: 0", "timesteps (line 9): expected an integer from 1"},
        {"channels: 3", "scale_factor: 0", "scale_factor (line 12): expected a number"},
        {"channels: 3", "beta_schedule: cosine", "beta_schedule (line 12): expected linear"},
        {"channels: 3", "parameterization: x0", "parameterization (line 12): expected eps"},
        {"channels: 3", "conditioning_key: crossattn", "conditioning_key (line 12): conditional"},
        {"__is_unconditional__", "__is_first_stage__", "cond_stage_config (line 55): conditional"}};
    refuse(ldm_vq4, edits, sizeof edits / sizeof *edits);
}

static bool bounded(const struct model_config *config)
{
    const struct unet_config *unet = &config->unet;
    const struct autoencoder_config *autoencoder = &config->autoencoder;
    for (int i = 0; i < unet->levels; i++)
        if ((long)unet->model_channels * unet->channel_mult[i] > 65536)
            return false;
    for (int i = 0; i < autoencoder->levels; i++)
        if ((long)autoencoder->ch * autoencoder->ch_mult[i] > 65536)
            return false;
    return unet->levels <= CONFIG_MAX_LEVELS && unet->model_channels % 32 == 0 &&
           autoencoder->levels <= CONFIG_MAX_LEVELS && autoencoder->ch % 32 == 0 &&
           autoencoder->present;
}

static int read_behaves(const struct mutation *mutation, void *context)
{
    (void)context;
    struct status status = {0};
    struct model_config config;
    int code = config_read_text(&config, (const char *)mutation->bytes, mutation->length, "m.yaml",
                                &status);
    return code == STATUS_OK ? !bounded(&config) : !status.message[0];
}

static void mutations(void **state)
{
    (void)state;
    const char *const names[] = {ldm_vq4, kl};
    for (int i = 0; i < 2; i++) {
        size_t length;
        unsigned char *bytes = mutate_load(names[i], &length);
        assert_non_null(bytes);
        assert_int_equal(mutate_run(names[i], bytes, length, 1000000 * (uint64_t)(i + 1), 5000,
                                    read_behaves, NULL),
                         0);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ldm_vq4_file),
        cmocka_unit_test(first_stage_alone),
        cmocka_unit_test(other_files),
        cmocka_unit_test(refused_unets),
        cmocka_unit_test(refused_autoencoders),
        cmocka_unit_test(refused_diffusions),
        cmocka_unit_test(mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
