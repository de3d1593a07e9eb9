/* Replay of a planned tape as one graph on a device, loops and all. */
#include "runtime/tape_internal.h"

#include <time.h>

static const float *watched_data(const struct program *program)
{
    int slot = program->watched_slot;
    return slot < 0 ? NULL : (const float *)(program->arena + program->slots[slot].offset);
}

static struct device_loop *loop_data(const struct program *program, const struct node *node)
{
    return (struct device_loop *)(program->arena + program->slots[node->loop_slot].offset);
}

static bool record_tape(const struct tape *tape, unsigned char *base);

static bool record_loop(const struct tape *tape, int n, unsigned char *base)
{
    const struct node *node = &tape->plan.nodes[n];
    const struct program *program = tape->program;
    struct device *device = program->kernels->device;
    return device->record_while(device, loop_data(program, node), node->limit,
                                watched_data(program)) &&
           record_tape(node->body, loop_base(tape, n, base)) && device->record_end_while(device);
}

static bool record_tape(const struct tape *tape, unsigned char *base)
{
    const struct kernels *kernels = tape->program->kernels;
    bool done = true;
    for (int n = 0; done && n < tape->plan.node_count; n++) {
        const struct node *node = &tape->plan.nodes[n];
        struct tensor input[KERNEL_MAX_INPUTS], output[KERNEL_MAX_OUTPUTS];
        if (node->op == OP_WHILE) {
            done = record_loop(tape, n, base);
        } else if (node->op == OP_EXIT_IF) {
            done = kernels->device->record_exit_if(
                kernels->device, value_data(tape, node->input[0], base, WEIGHT_PLAIN));
        } else {
            const struct kernel_call call = node_call(tape, node, n, base, input, output);
            done = weight_upload(tape, n, base);
            kernels->kernel[node->op].run(&call);
        }
    }
    return done;
}

int graph_record(struct tape *tape, struct status *status)
{
    const struct program *program = tape->program;
    struct device *device = program->kernels->device;
    bool recorded =
        device->record_begin(device) && record_tape(tape, program->arena + program->pinned_bytes);
    tape->graph = device->record_end(device);
    if (recorded && tape->graph)
        return status->code;
    if (device_status(program, status) == STATUS_OK)
        status_set(status, STATUS_FAILURE, "out of memory");
    status_prefix(status, "recording %s", tape->name);
    return status->code;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000}, NULL);
}

/* Looks at the running graph until it is done. */
static void watch(const struct program *program, const struct program_hooks *hooks,
                  struct status *status)
{
    struct device *device = program->kernels->device;
    int32_t told = 0;
    while (!device->finished(device)) {
        struct device_progress progress = device->progress(device);
        bool stop = hooks->cancelled && *hooks->cancelled;
        if (hooks->after_iteration && progress.iterations != told) {
            told = progress.iterations;
            stop |= told && !hooks->after_iteration(hooks->context, told, progress.watched);
        }
        if (stop && status_ok(status)) {
            device->cancel(device);
            status_set(status, STATUS_INTERRUPTED, "interrupted");
        }
        nap();
    }
}

static void read_iterations(const struct tape *tape)
{
    const struct program *program = tape->program;
    struct device *device = program->kernels->device;
    for (int n = 0; n < tape->plan.node_count; n++) {
        const struct node *node = &tape->plan.nodes[n];
        struct device_loop loop = {0};
        if (node->op != OP_WHILE)
            continue;
        device->read(device, &loop, loop_data(program, node), sizeof loop);
        node->body->iterations = loop.iterations;
        read_iterations(node->body);
    }
}

static bool has_loop(const struct tape *tape)
{
    for (int n = 0; n < tape->plan.node_count; n++)
        if (tape->plan.nodes[n].op == OP_WHILE)
            return true;
    return false;
}

/* A tape without a loop is not waited for: what reads its results will. */
int graph_run(struct tape *tape, const struct program_hooks *hooks, struct status *status)
{
    const struct program *program = tape->program;
    struct device *device = program->kernels->device;
    if (hooks && hooks->cancelled && *hooks->cancelled)
        return status_set(status, STATUS_INTERRUPTED, "interrupted");
    if (!tape->graph && graph_record(tape, status) != STATUS_OK)
        return status->code;
    if (!device->launch(device, tape->graph) || !has_loop(tape))
        return device_status(program, status);
    if (hooks)
        watch(program, hooks, status);
    read_iterations(tape);
    return status->code;
}
