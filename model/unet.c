/* The UNet of latent diffusion (models.md section 2): predicts the noise in a latent. */
#include "model/layers.h"

#include <stdlib.h>

static const double norm_epsilon = 1e-5;
static const double longest_period = 10000;

struct unet {
    struct layers layers;
    const struct unet_config *config;
    value embedding; /* SiLU(time_embed(t)), shared by every residual block */
    value *skips;    /* stack of the input blocks' outputs */
    int skip_count;
};

enum { BLOCK_BYTES = 64 };

static value time_embedding(const struct unet *net, value t)
{
    const struct layers *layers = &net->layers;
    int64_t channels = net->config->model_channels;
    tape_label(layers->tape, "time_embed");
    value h = tape_timestep_embedding(layers->tape, t, channels, longest_period);
    h = tape_to_network(layers->tape, h);
    h = layer_convolution(layers, h, "time_embed", "0", 4 * channels, 1, NO_VALUE);
    h = tape_silu(layers->tape, h);
    h = layer_convolution(layers, h, "time_embed", "2", 4 * channels, 1, NO_VALUE);
    layer_visit(layers, "time_embed", h);
    return tape_silu(layers->tape, h);
}

static value residual_block(const struct unet *net, value x, const char *block, int64_t channels)
{
    const struct layers *layers = &net->layers;
    if (x == NO_VALUE)
        return NO_VALUE;
    value shift =
        layer_convolution(layers, net->embedding, block, "emb_layers.1", channels, 1, NO_VALUE);
    value h = layer_norm(layers, x, block, "in_layers.0", norm_epsilon, true);
    h = layer_convolution(layers, h, block, "in_layers.2", channels, 3, NO_VALUE);
    h = tape_add_channel(layers->tape, h, shift);
    h = layer_norm(layers, h, block, "out_layers.0", norm_epsilon, true);
    value skip = x;
    if (tape_shape(layers->tape, x)[3] != channels)
        skip = layer_convolution(layers, x, block, "skip_connection", channels, 1, NO_VALUE);
    return layer_convolution(layers, h, block, "out_layers.3", channels, 3, skip);
}

static value attention_block(const struct unet *net, value x, const char *block)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    int channels = (int)tape_shape(net->layers.tape, x)[3];
    int heads = net->config->num_heads, width = net->config->num_head_channels;
    if (width > 0)
        heads = channels / width;
    if (heads < 1 || channels % heads || (width > 0 && channels % width)) {
        status_set(tape_status(net->layers.tape), STATUS_BAD_INPUT,
                   "%s: %d channels do not divide into heads (%s %d)", block, channels,
                   width > 0 ? "num_head_channels" : "num_heads", width > 0 ? width : heads);
        return NO_VALUE;
    }
    return layer_attention(&net->layers, x, block, "qkv", heads, norm_epsilon);
}

static bool attends(const struct unet_config *config, int level)
{
    for (int i = 0; i < config->attention_count; i++)
        if (config->attention_resolutions[i] == 1 << level)
            return true;
    return false;
}

static void push(struct unet *net, int index, value v)
{
    char block[BLOCK_BYTES];
    snprintf(block, sizeof block, "input_blocks.%d", index);
    layer_visit(&net->layers, block, v);
    net->skips[net->skip_count++] = v;
}

static value input_blocks(struct unet *net, value x)
{
    const struct unet_config *config = net->config;
    char block[BLOCK_BYTES];
    int index = 0;
    value h = layer_convolution(&net->layers, x, "input_blocks.0", "0", config->model_channels, 3,
                                NO_VALUE);
    push(net, index++, h);
    for (int level = 0; level < config->levels; level++) {
        int64_t channels = (int64_t)config->channel_mult[level] * config->model_channels;
        for (int i = 0; i < config->num_res_blocks; i++) {
            snprintf(block, sizeof block, "input_blocks.%d.0", index);
            h = residual_block(net, h, block, channels);
            if (attends(config, level)) {
                snprintf(block, sizeof block, "input_blocks.%d.1", index);
                h = attention_block(net, h, block);
            }
            push(net, index++, h);
        }
        if (level + 1 < config->levels) {
            snprintf(block, sizeof block, "input_blocks.%d.0", index);
            h = layer_downsample(&net->layers, h, block, "op", false);
            push(net, index++, h);
        }
    }
    return h;
}

static value middle_block(const struct unet *net, value x)
{
    if (x == NO_VALUE)
        return NO_VALUE;
    int64_t channels = tape_shape(net->layers.tape, x)[3];
    value h = residual_block(net, x, "middle_block.0", channels);
    h = attention_block(net, h, "middle_block.1");
    h = residual_block(net, h, "middle_block.2", channels);
    layer_visit(&net->layers, "middle_block", h);
    return h;
}

static value output_block(struct unet *net, value h, int index, int level, bool upsample)
{
    const struct unet_config *config = net->config;
    char block[BLOCK_BYTES];
    snprintf(block, sizeof block, "output_blocks.%d.0", index);
    tape_label(net->layers.tape, "%s", block);
    h = tape_concat_channels(net->layers.tape, h, net->skips[--net->skip_count]);
    h = residual_block(net, h, block,
                       (int64_t)config->channel_mult[level] * config->model_channels);
    bool attention = attends(config, level);
    if (attention) {
        snprintf(block, sizeof block, "output_blocks.%d.1", index);
        h = attention_block(net, h, block);
    }
    if (upsample) {
        snprintf(block, sizeof block, "output_blocks.%d.%d", index, attention ? 2 : 1);
        h = layer_upsample(&net->layers, h, block, "conv");
    }
    snprintf(block, sizeof block, "output_blocks.%d", index);
    layer_visit(&net->layers, block, h);
    return h;
}

value unet_record(struct tape *tape, struct model *model, value x, value t)
{
    const struct unet_config *config = &model->config.unet;
    struct unet net = {.layers = {tape, model, "model.diffusion_model."}, .config = config};
    value h = NO_VALUE;
    if (!config->present) {
        status_set(tape_status(tape), STATUS_BAD_INPUT, "this configuration has no UNet");
        return NO_VALUE;
    }
    net.skips = status_calloc(tape_status(tape), (unsigned long)config->levels,
                              (unsigned long)(config->num_res_blocks + 1) * sizeof *net.skips,
                              "the UNet's skip connections");
    if (!net.skips)
        goto done;
    h = layer_input(&net.layers, x, "the UNet's input", config->in_channels,
                    1 << (config->levels - 1));
    h = tape_to_network(tape, h);
    net.embedding = time_embedding(&net, t);
    h = input_blocks(&net, h);
    h = middle_block(&net, h);
    int index = 0;
    for (int level = config->levels - 1; level >= 0; level--)
        for (int i = 0; i <= config->num_res_blocks; i++)
            h = output_block(&net, h, index++, level, level > 0 && i == config->num_res_blocks);
    h = layer_norm(&net.layers, h, "out", "0", norm_epsilon, true);
    h = layer_convolution(&net.layers, h, "out", "2", config->out_channels, 3, NO_VALUE);
    h = tape_to_real(tape, h);
done:
    free(net.skips);
    return h;
}
