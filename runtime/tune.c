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

/* Lines of "card, libraries <tab> convolution <tab> way <tab> milliseconds". */
struct record {
    char *text;
    size_t length, capacity;
};

static void write_key(char key[KEY_BYTES], const struct kernels *kernels,
                      const struct kernel_call *call, bool backward)
{
    const struct conv2d_attributes *a = &call->attributes->conv2d;
    const int64_t *x = call->input[0].shape, *y = call->output[0].shape;
    const struct device *device = kernels->device;
    snprintf(key, KEY_BYTES,
             "%s%s%s\t%s %" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 " to %" PRId64 "x%" PRId64
             "x%" PRId64 " kernel %dx%d stride %d upsample %d form %d%s%s\t",
             device->name, *device->libraries ? ", " : "", device->libraries,
             backward ? "backward" : "forward", x[0], x[1], x[2], x[3], y[1], y[2], y[3],
             a->kernel_height, a->kernel_width, a->stride, a->upsample, (int)a->form,
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

/* Negative where its memory is not to be had, and where a library refuses. */
static double time_way(struct device *device, struct trial *trial, int way)
{
    double best = -1;
    trial->attributes.conv2d.way = way;
    size_t bytes =
        trial->kernel->workspace_bytes ? trial->kernel->workspace_bytes(&trial->call) : 0;
    trial->call.workspace = bytes ? device->allocate(device, bytes) : NULL;
    trial->call.stream = device->stream(device);
    if (bytes && !trial->call.workspace)
        goto done;
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
done:
    if (way >= WAY_LIBRARIES && device->error(device))
        best = -1;
    return best / RUNS;
}

static bool way_exists(const struct kernels *kernels, const struct kernel_call *call, bool backward,
                       int way)
{
    if (way >= WAY_LIBRARIES)
        return kernels->conv2d_by_library && kernels->conv2d_by_library(call, backward, way);
    return way >= 1 && way <= kernels->conv2d_ways(call, backward);
}

static bool has_choice(const struct kernels *kernels, const struct kernel_call *call, bool backward)
{
    int ways = kernels->conv2d_ways(call, backward);
    for (int way = WAY_LIBRARIES; way < WAY_END; way++)
        ways += way_exists(kernels, call, backward, way);
    return ways > 1;
}

/* The fastest from way `first` on, before `end`; 0: none works. */
static int time_ways(const struct kernels *kernels, struct trial *trial, bool backward, int first,
                     int end, double *best_ms)
{
    int best = 0;
    if (give_memory(kernels, trial, backward))
        for (int way = first; way < end; way++) {
            double ms = way_exists(kernels, &trial->call, backward, way)
                            ? time_way(kernels->device, trial, way)
                            : -1;
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
    bool cudnn_alone; /* it does what it can, and nothing is timed against it */
    struct tuning *tuning;
    struct record seen; /* this program's convolutions, with their ways */
};

/* A library loads its code at its first call, which may not be one that is recorded: before the
 * plan is made each of its ways has been run. */
static bool works(const struct kernels *kernels, struct trial *trial, bool backward, int way)
{
    double ms;
    return way_exists(kernels, &trial->call, backward, way) &&
           (way < WAY_LIBRARIES || time_ways(kernels, trial, backward, way, way + 1, &ms) == way);
}

/* The file's way, or the fastest of all, which the file then gets. */
static int kept_or_timed(struct tuner *tuner, struct trial *trial, bool backward, const char *key,
                         int *way, struct status *status)
{
    const struct kernels *kernels = tuner->program->kernels;
    double ms = 0;
    *way = find_way(&tuner->record, key);
    if (works(kernels, trial, backward, *way))
        return status->code;
    *way = time_ways(kernels, trial, backward, 1, WAY_END, &ms);
    tuner->tuning->timed++;
    if (!*way)
        return device_status(tuner->program, status) == STATUS_OK
                   ? status_set(status, STATUS_FAILURE, "timing a convolution failed")
                   : status->code;
    return add_line(&tuner->record, key, *way, ms, status);
}

static int choose_way(struct tuner *tuner, struct trial *trial, bool backward, int *way,
                      struct status *status)
{
    const struct kernels *kernels = tuner->program->kernels;
    char key[KEY_BYTES];
    write_key(key, kernels, &trial->call, backward);
    *way = find_way(&tuner->seen, key);
    if (*way)
        return status->code;
    if (tuner->cudnn_alone)
        *way = works(kernels, trial, backward, WAY_CUDNN) ? WAY_CUDNN : 1;
    else if (kept_or_timed(tuner, trial, backward, key, way, status) != STATUS_OK)
        return status->code;
    tuner->tuning->convolutions++;
    tuner->tuning->by_cudnn += *way == WAY_CUDNN;
    tuner->tuning->by_cublas += *way == WAY_CUBLAS;
    return add_line(&tuner->seen, key, *way, 0, status);
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
    if (!tuner->cudnn_alone && !has_choice(tuner->program->kernels, &trial.call, backward))
        return status->code;
    return choose_way(tuner, &trial, backward, &node->attributes.conv2d.way, status);
}

static void tune_nodes(struct tuner *tuner, struct status *status)
{
    const struct program *program = tuner->program;
    for (int t = 0; status_ok(status) && t < program->tape_count; t++) {
        struct tape *tape = program->tapes[t];
        for (int n = 0; status_ok(status) && n < tape->node_count; n++)
            if (is_convolution(&tape->nodes[n]))
                tune_node(tuner, tape, &tape->nodes[n], status);
    }
    free(tuner->seen.text);
}

int program_tune(struct program *program, const char *path, struct tuning *tuning,
                 struct status *status)
{
    struct tuner tuner = {.program = program, .tuning = tuning};
    const struct kernels *kernels = program->kernels;
    struct status unwritten = {0};
    *tuning = (struct tuning){0};
    if (!kernels->device || !kernels->conv2d_ways)
        return status->code;
    kernels->device->open_libraries(kernels->device);
    read_record(&tuner.record, path, status);
    tune_nodes(&tuner, status);
    tuning->saved =
        !tuning->timed || file_write(path, tuner.record.text, tuner.record.length, &unwritten) == 0;
    free(tuner.record.text);
    return status->code;
}

int program_take_cudnn(struct program *program, struct tuning *tuning, struct status *status)
{
    struct tuner tuner = {.program = program, .tuning = tuning, .cudnn_alone = true};
    struct device *device = program->kernels->device;
    *tuning = (struct tuning){0};
    if (!device)
        return status_set(status, STATUS_BAD_INPUT, "no cuDNN: it needs a card");
    device->open_libraries(device);
    if (*device->no_cudnn)
        return status_set(status, STATUS_BAD_INPUT, "no cuDNN: %s", device->no_cudnn);
    tune_nodes(&tuner, status);
    return status->code;
}
