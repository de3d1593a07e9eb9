#include "runtime/tune.h"

#include "runtime/array.h"
#include "runtime/tape_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_BYTES = 256,
    MOST_WAYS = 99,
    MOST_FILE_BYTES = 4 << 20,
    RUNS = 4,   /* between two looks at the clock */
    REPEATS = 5 /* at most, while they get faster */
};

/* Lines of "card <tab> convolution <tab> way <tab> milliseconds". */
struct record {
    char *text;
    size_t length, capacity;
};

static void write_key(char key[KEY_BYTES], const struct kernels *kernels,
                      const struct kernel_call *call, bool backward)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *x = call->input[0].shape, *y = call->output[0].shape;
    snprintf(key, KEY_BYTES,
             "%s\t%s %" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 " to %" PRId64 "x%" PRId64
             "x%" PRId64 " kernel %dx%d stride %d upsample %d form %d%s%s\t",
             kernels->device->name, backward ? "backward" : "forward", x[0], x[1], x[2], x[3], y[1],
             y[2], y[3], a->kernel_height, a->kernel_width, a->stride, a->upsample, (int)a->form,
             !backward && call->input[2].shape[3] ? " bias" : "",
             !backward && call->input[3].shape[3] ? " residual" : "");
}

static bool valid_line(const char *line, size_t length)
{
    int way, used = 0;
    double ms;
    char text[KEY_BYTES + 64];
    if (length >= sizeof text)
        return false;
    memcpy(text, line, length);
    text[length] = '\0';
    const char *second = strchr(text, '\t'), *third = second ? strchr(second + 1, '\t') : NULL;
    return third && sscanf(third + 1, "%d\t%lf%n", &way, &ms, &used) == 2 && third[1 + used] == 0 &&
           way >= 1 && way <= MOST_WAYS;
}

static int read_record(struct record *record, const char *path, struct status *status)
{
    if (access(path, F_OK) != 0)
        return status->code;
    record->text = file_read_text(path, MOST_FILE_BYTES, &record->length, status);
    if (!record->text)
        return status->code;
    record->capacity = record->length + 1;
    int number = 1;
    for (const char *line = record->text; *line; number++) {
        const char *end = strchr(line, '\n');
        if (!end || !valid_line(line, (size_t)(end - line)))
            return status_set(status, STATUS_BAD_INPUT,
                              "%s, line %d: expected card, convolution, way and milliseconds, "
                              "separated by tabs; remove the file to have it made anew",
                              path, number);
        line = end + 1;
    }
    return status->code;
}

/* The way of the record's last line that begins with key, 0 where there is none. */
static int find_way(const struct record *record, const char *key)
{
    int way = 0;
    size_t length = strlen(key);
    for (const char *line = record->text; line && *line; line = strchr(line, '\n') + 1)
        if (strncmp(line, key, length) == 0)
            way = (int)strtol(line + length, NULL, 10);
    return way;
}

static int add_line(struct record *record, const char *key, int way, double ms,
                    struct status *status)
{
    char line[KEY_BYTES + 64];
    size_t length = (size_t)snprintf(line, sizeof line, "%s%d\t%.6f\n", key, way, ms);
    if (record->length + length + 1 > record->capacity) {
        size_t capacity = 2 * record->capacity + length + 1;
        char *text = realloc(record->text, capacity);
        if (!text)
            return status_set(status, STATUS_FAILURE, "out of memory choosing convolutions");
        record->text = text;
        record->capacity = capacity;
    }
    memcpy(record->text + record->length, line, length + 1);
    record->length += length;
    return status->code;
}

/* ---- timing ---- */

/* A call with memory of its own on the device. */
struct trial {
    struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
    union attributes attributes;
    struct kernel_call call;
    const struct kernel *kernel;
};

static bool give_memory(const struct kernels *kernels, struct trial *trial, bool backward)
{
    struct device *device = kernels->device;
    bool given = true;
    int inputs = backward ? 2 : 4;
    for (int i = 0; i < inputs; i++) {
        struct tensor *tensor = &trial->input[i];
        size_t bytes = i == 1 ? kernels->weight_bytes(trial->attributes.conv2d.form, tensor->shape)
                              : (size_t)tensor_elements(tensor) * element_bytes(tensor->type);
        tensor->data = bytes ? device->allocate(device, bytes) : NULL;
        given &= tensor->data || !bytes;
    }
    trial->output[0].data = device->allocate(device, (size_t)tensor_elements(&trial->output[0]) *
                                                         element_bytes(trial->output[0].type));
    return given && trial->output[0].data;
}

static void take_memory(struct device *device, struct trial *trial)
{
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        if (trial->input[i].data)
            device->release(device, trial->input[i].data);
    if (trial->output[0].data)
        device->release(device, trial->output[0].data);
}

static double time_way(struct device *device, struct trial *trial, int way)
{
    double best = -1;
    trial->attributes.conv2d.way = way;
    size_t bytes =
        trial->kernel->workspace_bytes ? trial->kernel->workspace_bytes(&trial->call) : 0;
    trial->call.workspace = bytes ? device->allocate(device, bytes) : NULL;
    trial->call.stream = device->stream(device);
    if (bytes && !trial->call.workspace)
        return best;
    trial->kernel->run(&trial->call);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        bool begun = device->time_begin(device);
        for (int run = 0; run < RUNS; run++)
            trial->kernel->run(&trial->call);
        double ms = begun ? device->time_end_ms(device) : -1;
        bool faster = ms >= 0 && (best < 0 || ms < 0.99 * best);
        if (!faster)
            break;
        best = ms;
    }
    if (bytes)
        device->release(device, trial->call.workspace);
    return best / RUNS;
}

/* Ways whose memory is not to be had do not count. */
static int time_ways(const struct kernels *kernels, struct trial *trial, bool backward,
                     double *best_ms)
{
    int best = 0, ways = kernels->conv2d_ways(&trial->call, backward);
    if (give_memory(kernels, trial, backward))
        for (int way = 1; way <= ways; way++) {
            double ms = time_way(kernels->device, trial, way);
            if (ms >= 0 && (!best || ms < *best_ms)) {
                best = way;
                *best_ms = ms;
            }
        }
    take_memory(kernels->device, trial);
    return best;
}

/* ---- choosing ---- */

struct tuner {
    struct program *program;
    struct record record;
    struct tuning *tuning;
    struct record seen; /* keys of this program */
};

static int choose_way(struct tuner *tuner, struct trial *trial, bool backward, int *way,
                      struct status *status)
{
    const struct kernels *kernels = tuner->program->kernels;
    char key[KEY_BYTES];
    double ms = 0;
    write_key(key, kernels, &trial->call, backward);
    *way = find_way(&tuner->record, key);
    if (!find_way(&tuner->seen, key)) {
        tuner->tuning->convolutions++;
        add_line(&tuner->seen, key, 1, 0, status);
    }
    if (*way >= 1 && *way <= kernels->conv2d_ways(&trial->call, backward))
        return status->code;
    *way = time_ways(kernels, trial, backward, &ms);
    tuner->tuning->timed++;
    if (!*way)
        return device_status(tuner->program, status) == STATUS_OK
                   ? status_set(status, STATUS_FAILURE, "timing a convolution failed")
                   : status->code;
    return add_line(&tuner->record, key, *way, ms, status);
}

static int tune_node(struct tuner *tuner, const struct tape *tape, struct node *node,
                     struct status *status)
{
    bool backward = node->op == KERNEL_conv2d_backward_data;
    struct trial trial = {.attributes = node->attributes};
    node_tensors(tape, node, NULL, trial.input, trial.output);
    for (int i = 0; i < KERNEL_MAX_INPUTS; i++)
        trial.input[i].data = NULL;
    trial.output[0].data = NULL;
    trial.call = (struct kernel_call){.input = trial.input,
                                      .output = trial.output,
                                      .attributes = &trial.attributes,
                                      .threads = tuner->program->threads};
    trial.kernel = &tuner->program->kernels->kernel[node->op];
    if (tuner->program->kernels->conv2d_ways(&trial.call, backward) < 2)
        return status->code;
    return choose_way(tuner, &trial, backward, &node->attributes.conv2d.way, status);
}

int program_tune(struct program *program, const char *path, struct tuning *tuning,
                 struct status *status)
{
    struct tuner tuner = {.program = program, .tuning = tuning};
    const struct kernels *kernels = program->kernels;
    *tuning = (struct tuning){0};
    if (!kernels->device || !kernels->conv2d_ways)
        return status->code;
    read_record(&tuner.record, path, status);
    for (int t = 0; status_ok(status) && t < program->tape_count; t++) {
        struct tape *tape = program->tapes[t];
        for (int n = 0; status_ok(status) && n < tape->node_count; n++)
            if (is_convolution(&tape->nodes[n]))
                tune_node(&tuner, tape, &tape->nodes[n], status);
    }
    struct status unwritten = {0};
    tuning->saved =
        !tuning->timed || file_write(path, tuner.record.text, tuner.record.length, &unwritten) == 0;
    free(tuner.record.text);
    free(tuner.seen.text);
    return status->code;
}
