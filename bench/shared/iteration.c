#include "bench/shared/iteration.h"

static const int64_t one[4] = {1, 1, 1, 1};

struct iteration iteration_record(struct program *program, struct tape *tape, struct model *model,
                                  int64_t size)
{
    const struct autoencoder_config *ae = &model->config.autoencoder;
    int64_t side = size / model_latent_factor(model);
    const int64_t latent[4] = {1, side, side, ae->embed_dim},
                  image[4] = {1, size, size, ae->out_ch};
    struct iteration it = {.latent_slot = program_state(program, "z", TYPE_F32, latent),
                           .target_slot = program_state(program, "target", TYPE_F32, image),
                           .loss_slot = program_state(program, "loss", TYPE_F32, one)};
    it.latent = tape_state(tape, it.latent_slot);
    it.image = decoder_record(tape, model, it.latent, true);
    value loss = tape_mean_squared_error(tape, it.image, tape_state(tape, it.target_slot));
    it.gradient = tape_gradient(tape, loss, it.latent);
    tape_assign(tape, tape_state(tape, it.loss_slot), loss);
    return it;
}

void iteration_record_step(struct program *program, struct tape *tape,
                           const struct iteration *iteration)
{
    const int64_t *latent = program_shape(program, iteration->latent_slot);
    value m = tape_state(tape, program_state(program, "m", TYPE_F32, latent));
    value v = tape_state(tape, program_state(program, "v", TYPE_F32, latent));
    value step = tape_state(tape, program_state(program, "step", TYPE_I32, one));
    tape_adam_step(tape, iteration->latent, iteration->gradient, m, v, step, 5e-3, 0.01);
}
