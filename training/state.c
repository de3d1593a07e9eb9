/* What training writes: the state that resuming needs, and the model. */
#include "training/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTINGS_BYTES = 1024, KINDS = 4, ADVERSARY_KINDS = 3 };
static const char *const kinds[KINDS] = {"weight", "first_moment", "second_moment", "average"};

/* What a state keeps: a kind of a parameter's values, those of the weights first. */
struct kept {
    char name[256];
    int slot;
};

static int kept_count(const struct training *training)
{
    int of_adversary = training->settings.adversary > 0 ? DISCRIMINATOR_PARAMETERS : 0;
    return KINDS * training->weights.count + ADVERSARY_KINDS * of_adversary;
}

static struct kept kept_of_weight(const struct training *training, int parameter, int kind)
{
    const struct trainable_parameter *weight = &training->weights.parameters[parameter];
    const struct optimised *slots = &training->optimised[parameter];
    const int all[KINDS] = {weight->slot, slots->first_moment, slots->second_moment,
                            slots->average};
    struct kept kept = {.slot = all[kind]};
    snprintf(kept.name, sizeof kept.name, "%s/%s", kinds[kind], weight->parameter->name);
    return kept;
}

static struct kept kept_of_adversary(const struct training *training, int parameter, int kind)
{
    const struct adversary *adversary = &training->adversary;
    const struct discriminator_parameter *weight = &adversary->discriminator.parameters[parameter];
    const int all[ADVERSARY_KINDS] = {weight->slot, adversary->slots[parameter].first_moment,
                                      adversary->slots[parameter].second_moment};
    struct kept kept = {.slot = all[kind]};
    snprintf(kept.name, sizeof kept.name, "%s/loss.discriminator.%s", kinds[kind], weight->name);
    return kept;
}

static struct kept kept_at(const struct training *training, int index)
{
    int of_weights = KINDS * training->weights.count, rest = index - of_weights;
    return index < of_weights
               ? kept_of_weight(training, index / KINDS, index % KINDS)
               : kept_of_adversary(training, rest / ADVERSARY_KINDS, rest % ADVERSARY_KINDS);
}

/* The settings that decide what a run computes, a line each. */
static void describe(const struct training *training, char text[SETTINGS_BYTES])
{
    const struct training_settings *s = &training->settings;
    int used = snprintf(
        text, SETTINGS_BYTES,
        "part %d\nsize %lld\nbatch %d\naccumulate %d\nsteps %lld\nwarmup %lld\nschedule %d\n"
        "learning-rate %.9g\nbeta1 %.9g\nbeta2 %.9g\nepsilon %.9g\nweight-decay %.9g\n"
        "clip %.9g\nema %.9g\nl1 %.9g\nmse %.9g\ncodebook %.9g\ncommitment %.9g\n"
        "restart-every %lld\nvariants %d\nstandardize %d\nseed %llu\npictures %d\n"
        "held-out pictures %d\n",
        s->part, (long long)s->side, s->batch, s->accumulate,
        s->schedule == RATE_COSINE ? (long long)s->steps : 0LL, (long long)s->warmup_steps,
        s->schedule, s->learning_rate, s->beta1, s->beta2, s->epsilon, s->weight_decay, s->clip,
        s->average, s->l1, s->mse, s->codebook, s->commitment, (long long)s->restart_every,
        s->variants, s->standardize, (unsigned long long)s->seed, training->source.training_count,
        training->source.held_out_count);
    if (s->quantize_from > 0)
        used += snprintf(text + used, (size_t)(SETTINGS_BYTES - used), "quantize-from %lld\n",
                         (long long)s->quantize_from);
    if (s->components > 0)
        used += snprintf(text + used, (size_t)(SETTINGS_BYTES - used), "components %.9g\n",
                         s->components);
    if (s->adversary > 0)
        snprintf(text + used, (size_t)(SETTINGS_BYTES - used),
                 "adversary %.9g\nadversary-start %lld\nadversary channels %d\n", s->adversary,
                 (long long)s->adversary_start, s->adversary_channels);
}

/* ---- tensors of one file ---- */
struct tensors {
    struct checkpoint_tensor *list;
    float **values; /* of each parameter and kind */
    int count, value_count;
};

static void tensors_free(struct tensors *tensors)
{
    for (int i = 0; i < tensors->count; i++)
        free((char *)tensors->list[i].name);
    for (int i = 0; i < tensors->value_count; i++)
        free(tensors->values[i]);
    free(tensors->list);
    free(tensors->values);
}

static int tensors_reserve(struct tensors *tensors, int count, struct status *status)
{
    tensors->list = status_calloc(status, (unsigned long)count, sizeof *tensors->list, "tensors");
    tensors->values =
        status_calloc(status, (unsigned long)count, sizeof *tensors->values, "tensors");
    return status->code;
}

static void set_strides(struct checkpoint_tensor *tensor)
{
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        tensor->stride[i] = stride;
        stride *= tensor->shape[i];
    }
}

static float *read_slot(const struct training *training, struct tensors *tensors, int slot,
                        struct status *status)
{
    const int64_t *s = program_shape(training->program, slot);
    float *values = status_calloc(status, (unsigned long)(s[0] * s[1] * s[2] * s[3]),
                                  sizeof *values, "a weight");
    if (values) {
        tensors->values[tensors->value_count++] = values;
        program_read(training->program, slot, values);
    }
    return values;
}

static int add_tensor(struct tensors *tensors, const char *name, int rank, const int64_t *shape,
                      const float *values, struct status *status)
{
    struct checkpoint_tensor *tensor = &tensors->list[tensors->count];
    tensor->name = strdup(name);
    if (!tensor->name)
        return status_set(status, STATUS_FAILURE, "out of memory for a name");
    tensor->type = CHECKPOINT_F32;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++)
        tensor->shape[i] = shape[i];
    tensor->data = (const unsigned char *)values;
    set_strides(tensor);
    tensors->count++;
    return STATUS_OK;
}

/* ---- the state ---- */

static int add_code_uses(const struct training *training, struct tensors *tensors,
                         struct status *status)
{
    if (!training->code_uses)
        return STATUS_OK;
    const int64_t codes = training->model->config.autoencoder.n_embed;
    return add_tensor(tensors, "code_uses", 1, &codes, training->code_uses, status);
}

int training_write_state(const struct training *training, const char *path, struct status *status)
{
    struct tensors tensors = {0};
    char settings[SETTINGS_BYTES], step[32];
    describe(training, settings);
    snprintf(step, sizeof step, "%lld", (long long)training->step);
    const char *metadata[] = {"step", step, "settings", settings, NULL};
    if (tensors_reserve(&tensors, kept_count(training) + 1, status) != STATUS_OK)
        goto done;
    for (int i = 0; i < kept_count(training); i++) {
        struct kept kept = kept_at(training, i);
        float *values = read_slot(training, &tensors, kept.slot, status);
        if (!values ||
            add_tensor(&tensors, kept.name, 4, program_shape(training->program, kept.slot), values,
                       status) != STATUS_OK)
            goto done;
    }
    if (add_code_uses(training, &tensors, status) == STATUS_OK)
        safetensors_write(path, tensors.list, tensors.count, CHECKPOINT_F32, metadata, status);
done:
    tensors_free(&tensors);
    return status->code;
}

/* The first line in which the two differ. */
static int compare_settings(const struct training *training, const struct checkpoint *checkpoint,
                            struct status *status)
{
    char ours[SETTINGS_BYTES];
    describe(training, ours);
    const char *theirs = checkpoint_metadata(checkpoint, "settings"), *mine = ours;
    while (theirs && *theirs && *mine) {
        size_t length = strcspn(theirs, "\n"), my_length = strcspn(mine, "\n");
        if (length != my_length || memcmp(theirs, mine, length) != 0)
            return status_set(status, STATUS_BAD_INPUT,
                              "%s was trained with %.*s, this run says %.*s: resuming needs the "
                              "same settings",
                              checkpoint_path(checkpoint), (int)length, theirs, (int)my_length,
                              mine);
        theirs += length + (theirs[length] == '\n');
        mine += my_length + 1;
    }
    if (theirs && !*theirs && !*mine)
        return STATUS_OK;
    return status_set(status, STATUS_BAD_INPUT, "%s: not a state of this training",
                      checkpoint_path(checkpoint));
}

/* The named tensor's values, which must be as many; allocated. */
static float *read_tensor(const struct checkpoint *checkpoint, const char *name, int64_t count,
                          struct status *status)
{
    const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, name);
    int64_t held = tensor ? 1 : 0;
    for (int i = 0; tensor && i < tensor->rank; i++)
        held *= tensor->shape[i];
    if (held != count || tensor->type != CHECKPOINT_F32) {
        status_set(status, STATUS_BAD_INPUT, "%s: %s is missing or has another shape",
                   checkpoint_path(checkpoint), name);
        return NULL;
    }
    float *values = status_calloc(status, (unsigned long)count, sizeof *values, name);
    if (values)
        checkpoint_read(tensor, values);
    return values;
}

static int read_parameters(struct training *training, const struct checkpoint *checkpoint,
                           struct status *status)
{
    for (int i = 0; i < kept_count(training); i++) {
        struct kept kept = kept_at(training, i);
        const int64_t *s = program_shape(training->program, kept.slot);
        float *values = read_tensor(checkpoint, kept.name, s[0] * s[1] * s[2] * s[3], status);
        if (!values)
            return status->code;
        program_write(training->program, kept.slot, values);
        free(values);
    }
    return STATUS_OK;
}

static int read_code_uses(struct training *training, const struct checkpoint *checkpoint,
                          struct status *status)
{
    int codes = training->model->config.autoencoder.n_embed;
    if (!training->code_uses)
        return STATUS_OK;
    float *values = read_tensor(checkpoint, "code_uses", codes, status);
    if (values)
        memcpy(training->code_uses, values, (size_t)codes * sizeof *values);
    free(values);
    return status->code;
}

int training_read_state(struct training *training, const char *path, struct status *status)
{
    struct checkpoint *checkpoint = checkpoint_open(path, status);
    if (!checkpoint)
        return status->code;
    const char *step = checkpoint_metadata(checkpoint, "step");
    char *end = NULL;
    long long number = step ? strtoll(step, &end, 10) : -1;
    if (number < 0 || *end)
        status_set(status, STATUS_BAD_INPUT, "%s: not a state of this training", path);
    else if (compare_settings(training, checkpoint, status) == STATUS_OK &&
             read_parameters(training, checkpoint, status) == STATUS_OK &&
             read_code_uses(training, checkpoint, status) == STATUS_OK)
        training->step = number;
    checkpoint_close(checkpoint);
    return status->code;
}

/* ---- the model ---- */

struct model_writer {
    const struct training *training;
    struct tensors tensors;
    float **averages; /* of each trained parameter */
    struct status *status;
};

/* The original's ranks: its linear layers have no kernel, its UNet's attention has one axis of it.
 */
static int original_rank(const char *name, int rank)
{
    if (rank != 4 || strncmp(name, "model.diffusion_model.", 22) != 0)
        return rank;
    if (strstr(name, ".time_embed.") || strstr(name, ".emb_layers."))
        return 2;
    return strstr(name, ".qkv.") || strstr(name, ".proj_out.") ? 3 : 4;
}

static const float *average_of(const struct model_writer *writer, const struct parameter *parameter)
{
    const struct trainable *weights = &writer->training->weights;
    for (int i = 0; i < weights->count; i++)
        if (weights->parameters[i].parameter == parameter)
            return writer->averages[i];
    return NULL;
}

/* A tensor of the part that is not trained is taken from the checkpoint, if it has it. */
static void write_expected(void *context, const struct expected_tensor *expected)
{
    struct model_writer *writer = context;
    const float *values = average_of(writer, expected->parameter);
    if (!status_ok(writer->status))
        return;
    if (values) {
        add_tensor(&writer->tensors, expected->name, original_rank(expected->name, expected->rank),
                   expected->shape, values + expected->first, writer->status);
    } else if (expected->found) {
        char *name = strdup(expected->name);
        writer->tensors.list[writer->tensors.count] = *expected->found;
        writer->tensors.list[writer->tensors.count++].name = name;
        if (!name)
            status_set(writer->status, STATUS_FAILURE, "out of memory for a name");
    }
}

static void count_expected(void *context, const struct expected_tensor *expected)
{
    (void)expected;
    ++*(int *)context;
}

int training_write_model(const struct training *training, const char *path,
                         enum checkpoint_type type, struct status *status)
{
    struct model_writer writer = {.training = training, .status = status};
    int count = 0;
    float scale = (float)training->model->config.scale_factor;
    const char *metadata[] = {"format", "pt", NULL};
    model_visit_tensors(training->model, count_expected, &count);
    writer.averages = status_calloc(status, (unsigned long)training->weights.count + 1,
                                    sizeof *writer.averages, "the averages");
    if (!writer.averages || tensors_reserve(&writer.tensors, count + 1, status) != STATUS_OK)
        goto done;
    for (int i = 0; i < training->weights.count; i++) {
        writer.averages[i] =
            read_slot(training, &writer.tensors, training->optimised[i].average, status);
        if (!writer.averages[i])
            goto done;
    }
    if (scale != 1)
        add_tensor(&writer.tensors, "scale_factor", 0, NULL, &scale, status);
    model_visit_tensors(training->model, write_expected, &writer);
    if (status_ok(status))
        safetensors_write(path, writer.tensors.list, writer.tensors.count, type, metadata, status);
done:
    tensors_free(&writer.tensors);
    free(writer.averages);
    return status->code;
}
