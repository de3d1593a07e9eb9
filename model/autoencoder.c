/* The first stage of latent diffusion (models.md section 1): encoder, quantiser, decoder of the VQ
 * and the KL autoencoder. */
#include "model/layers.h"

static const double norm_epsilon = 1e-6;

enum { BLOCK_BYTES = 64 };

static struct layers first_stage(struct tape *tape, struct model *model)
{
    return (struct layers){tape, model, "first_stage_model."};
}

static value residual_block(const struct layers *layers, value x, const char *block,
                            int64_t channels)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    value h = layer_norm(layers, x, block, "norm1", norm_epsilon, true);
    h = layer_convolution(layers, h, block, "conv1", channels, 3, NO_VALUE);
    h = layer_norm(layers, h, block, "norm2", norm_epsilon, true);
    value skip = x;
    if (tape_shape(layers->tape, x)[3] != channels)
        skip = layer_convolution(layers, x, block, "nin_shortcut", channels, 1, NO_VALUE);
    return layer_convolution(layers, h, block, "conv2", channels, 3, skip);
}

static value attention_block(const struct layers *layers, value x, const char *block)
{
    return layer_attention(layers, x, block, "{q,k,v}", 1, norm_epsilon);
}

static value middle(const struct layers *layers, value x, const char *part)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    int64_t channels = tape_shape(layers->tape, x)[3];
    char block[BLOCK_BYTES];
    snprintf(block, sizeof block, "%s.mid.block_1", part);
    value h = residual_block(layers, x, block, channels);
    snprintf(block, sizeof block, "%s.mid.attn_1", part);
    h = attention_block(layers, h, block);
    snprintf(block, sizeof block, "%s.mid.block_2", part);
    h = residual_block(layers, h, block, channels);
    snprintf(block, sizeof block, "%s.mid", part);
    layer_visit(layers, block, h);
    return h;
}

/* Where attention stands depends on the configured resolution, not on the picture at hand. */
static bool attends(const struct autoencoder_config *config, int resolution)
{
    for (int i = 0; i < config->attention_count; i++)
        if (config->attn_resolutions[i] == resolution)
            return true;
    return false;
}

/* Residual blocks of one level ("encoder.down.1"), each with its attention. */
static value level_blocks(const struct layers *layers, value h, const char *level, int blocks,
                          int64_t channels, bool attention)
{
    char block[BLOCK_BYTES];
    for (int i = 0; i < blocks; i++) {
        snprintf(block, sizeof block, "%s.block.%d", level, i);
        h = residual_block(layers, h, block, channels);
        if (attention) {
            snprintf(block, sizeof block, "%s.attn.%d", level, i);
            h = attention_block(layers, h, block);
        }
    }
    return h;
}

static bool has_autoencoder(struct tape *tape, const struct model *model)
{
    if (!model->config.autoencoder.present)
        status_set(tape_status(tape), STATUS_BAD_INPUT, "this configuration has no autoencoder");
    return model->config.autoencoder.present;
}

value encoder_record(struct tape *tape, struct model *model, value image)
{
    if (!has_autoencoder(tape, model))
        return NO_VALUE;
    const struct autoencoder_config *config = &model->config.autoencoder;
    struct layers layers = first_stage(tape, model);
    int resolution = config->resolution;
    value h = layer_input(&layers, image, "the encoder's input", config->in_channels,
                          model_latent_factor(model));
    h = tape_to_network(tape, h);
    h = layer_convolution(&layers, h, "encoder", "conv_in", config->ch, 3, NO_VALUE);
    for (int i = 0; i < config->levels; i++) {
        char level[BLOCK_BYTES];
        snprintf(level, sizeof level, "encoder.down.%d", i);
        h = level_blocks(&layers, h, level, config->num_res_blocks,
                         (int64_t)config->ch * config->ch_mult[i], attends(config, resolution));
        if (i + 1 < config->levels) {
            h = layer_downsample(&layers, h, level, "downsample.conv", true);
            resolution /= 2;
        }
        layer_visit(&layers, level, h);
    }
    h = middle(&layers, h, "encoder");
    h = layer_norm(&layers, h, "encoder", "norm_out", norm_epsilon, true);
    int halves = config->double_z ? 2 : 1; /* mean and log-variance */
    h = layer_convolution(&layers, h, "encoder", "conv_out", halves * config->z_channels, 3,
                          NO_VALUE);
    layer_visit(&layers, "encoder", h);
    h = layer_convolution(&layers, h, "", "quant_conv", (config->is_vq ? 1 : 2) * config->embed_dim,
                          1, NO_VALUE);
    if (!config->is_vq)
        h = tape_slice_channels(tape, h, 0, config->embed_dim);
    return tape_to_real(tape, h);
}

value codebook_record(struct tape *tape, struct model *model)
{
    const struct autoencoder_config *config = &model->config.autoencoder;
    struct layers layers = first_stage(tape, model);
    return layer_parameter(&layers,
                           model_codebook(model, "first_stage_model.quantize.embedding.weight",
                                          config->n_embed, config->embed_dim));
}

static value quantized(const struct layers *layers, value z)
{
    value codebook = codebook_record(layers->tape, layers->model);
    tape_label(layers->tape, "quantize");
    value q = tape_vector_quantize(layers->tape, z, codebook, NULL);
    layer_visit(layers, "quantize", q);
    return q;
}

value decoder_record(struct tape *tape, struct model *model, value z, bool quantize)
{
    if (!has_autoencoder(tape, model))
        return NO_VALUE;
    const struct autoencoder_config *config = &model->config.autoencoder;
    struct layers layers = first_stage(tape, model);
    int deepest = config->levels - 1;
    int resolution = config->resolution >> deepest;
    value h = layer_input(&layers, z, "the decoder's input", config->embed_dim, 1);
    if (model->config.scale_factor != 1) {
        tape_label(tape, "scale_factor");
        h = tape_combine(tape, 1 / model->config.scale_factor, h, 0, NO_VALUE);
    }
    if (quantize && config->is_vq)
        h = quantized(&layers, h);
    h = tape_to_network(tape, h);
    h = layer_convolution(&layers, h, "", "post_quant_conv", config->z_channels, 1, NO_VALUE);
    h = layer_convolution(&layers, h, "decoder", "conv_in",
                          (int64_t)config->ch * config->ch_mult[deepest], 3, NO_VALUE);
    h = middle(&layers, h, "decoder");
    for (int i = deepest; i >= 0; i--) {
        char level[BLOCK_BYTES];
        snprintf(level, sizeof level, "decoder.up.%d", i);
        h = level_blocks(&layers, h, level, config->num_res_blocks + 1,
                         (int64_t)config->ch * config->ch_mult[i], attends(config, resolution));
        if (i > 0) {
            h = layer_upsample(&layers, h, level, "upsample.conv");
            resolution *= 2;
        }
        layer_visit(&layers, level, h);
    }
    h = layer_norm(&layers, h, "decoder", "norm_out", norm_epsilon, true);
    h = layer_convolution(&layers, h, "decoder", "conv_out", config->out_ch, 3, NO_VALUE);
    return tape_to_real(tape, h);
}
