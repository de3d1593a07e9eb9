/* What a tape and a program are made of; for runtime/ only. */
#ifndef RUNTIME_TAPE_INTERNAL_H
#define RUNTIME_TAPE_INTERNAL_H

#include "runtime/device.h"
#include "runtime/program.h"

/* ops beyond the kernels */
enum { OP_WHILE = KERNEL_COUNT, OP_EXIT_IF, OP_COUNT };

struct value_info {
    enum value_kind kind;
    enum element_type type;
    int64_t shape[4];
    int slot;                    /* VALUE_STATE */
    struct parameter *parameter; /* VALUE_PARAMETER */
    unsigned offloaded; /* bit f: its form f stays in host memory and is uploaded for each use */
};

struct node {
    int op; /* enum kernel_id, OP_WHILE or OP_EXIT_IF */
    value input[KERNEL_MAX_INPUTS];
    value output[KERNEL_MAX_OUTPUTS]; /* NO_VALUE: unused; a state value: written in place */
    union attributes attributes;
    int label;               /* index into the tape's labels */
    int64_t shape[4];        /* of the result, where the inputs do not imply it */
    struct axis_table table; /* axis_filter: for its gradient */
    struct tape *body;       /* OP_WHILE */
    int64_t limit;
    int loop_slot; /* a struct device_loop, where there is a device; else -1 */
};

/* One operation's row: how it behaves on a tape. The name, the numbers of inputs and outputs and
 * the kernel itself come from kernels.def. */
struct op_row {
    /* Output shapes and types from the inputs; false: sets the tape's status. */
    bool (*infer)(struct tape *tape, struct node *node, struct value_info output[]);
    /* Appends the gradient of each input with wanted[i], given those of the outputs (NO_VALUE where
     * nothing flows). NULL: the operation has no gradient. */
    void (*vjp)(struct tape *tape, const struct node *node, const value *output_gradient,
                const bool *wanted, value *input_gradient);
    /* Appends the tangents of the outputs, given those of the inputs (NO_VALUE where nothing
     * flows). NULL: the operation has no tangent. */
    void (*jvp)(struct tape *tape, const struct node *node, const value *input_tangent,
                value *output_tangent);
    unsigned differentiable_inputs;        /* bit i: derivatives pass through input i */
    unsigned in_place_inputs;              /* bit i: output 0 may take input i's memory */
    int written_input[KERNEL_MAX_OUTPUTS]; /* 1 + the input that output k is, or 0 */
};

const struct op_row *op_row(int op);
const char *op_name(int op);
int op_inputs(int op);
int op_outputs(int op);

/* An interval of replay positions that needs bytes of the shared region. */
struct block {
    int first, last;
    size_t bytes, offset;
};

struct plan {
    struct node *nodes; /* what replay runs, in order: dead nodes dropped, recomputed ones added */
    int node_count;
    int *value_block; /* per value: index of its block, or -1 */
    int *node_block;  /* per node: workspace (a loop's region), or -1 */
    int *node_weight; /* per node: its offloaded weight, or -1 */
    struct block *blocks;
    int block_count;
    size_t region_bytes;             /* all of it */
    size_t region_without_workspace; /* values alone */
    size_t peak_live_bytes;
    size_t upload_bytes; /* of offloaded weights, by one replay */
    int recomputed;
};

struct tape {
    struct program *program;
    char name[64];
    struct status status;
    struct value_info *values;
    int value_count, value_capacity,
        recorded_values; /* the planner adds values of recomputed nodes */
    struct node *nodes;
    int node_count, node_capacity;
    int *phases; /* the first node of each tape_vjp and tape_jvp */
    int phase_count, phase_capacity;
    char (*labels)[96];
    int label_count, label_capacity;
    struct plan plan;
    int64_t iterations; /* of the last loop over this body */
    int64_t expected_replays;
    struct device_graph *graph; /* the whole tape; NULL: not recorded */
};

struct slot {
    char name[48];
    enum element_type type;
    int64_t shape[4];
    void *initial; /* constants */
    size_t bytes, offset;
};

/* A parameter in one of its packed forms. */
struct weight {
    struct parameter *parameter;
    enum weight_form form;
    size_t bytes;
    bool stays; /* a loop needs it, or a node that is no convolution */
    bool offloaded;
    int64_t uploads; /* in a whole run, were it offloaded */
};

struct profile_row {
    char key[160];
    double seconds;
    int64_t calls;
};

struct program {
    const struct kernels *kernels;
    enum element_type real;
    int threads;
    struct slot *slots;
    int slot_count, slot_capacity;
    struct tape **tapes;
    int tape_count, tape_capacity;
    struct weight *weights;
    int weight_count, weight_capacity;
    size_t pinned_bytes, region_bytes;
    size_t weights_bytes, offloaded_bytes; /* on the device, or where it is the host; not on it */
    bool small_weights;                    /* convolutions take their weight's smaller form */
    int largest;                           /* the tape whose region is region_bytes */
    unsigned char *arena;                  /* in the device's memory where there is one */
    size_t arena_bytes;
    unsigned char *staging; /* the largest slot on its way to or from a device; else NULL */
    int watched_slot;       /* -1: none */
    bool failed;            /* no memory while declaring */
    bool profiling;
    struct profile_row *profile;
    int profile_count, profile_capacity;
};

/* Appends a node with these inputs; returns its first output. */
value tape_append(struct tape *tape, struct node *node);
value tape_add_value(struct tape *tape, const struct value_info *info);
value tape_one(struct tape *tape); /* a constant */
static inline bool is_convolution(const struct node *node)
{
    return node->op == KERNEL_conv2d || node->op == KERNEL_conv2d_backward_data;
}
struct node node_of(int op, value a, value b, value c, value d, value e);

/* Describes a node's operands for its kernel; base: where the tape's region begins (NULL while
 * planning: data pointers stay NULL). */
void node_tensors(const struct tape *tape, const struct node *node, unsigned char *base,
                  struct tensor input[], struct tensor output[]);

/* The call of a kernel node; input, output: room for its tensors, which it points to. */
struct kernel_call node_call(const struct tape *tape, const struct node *node, int n,
                             unsigned char *base, struct tensor input[], struct tensor output[]);
void *value_data(const struct tape *tape, value v, unsigned char *base, enum weight_form form);
/* Where the body of loop node n has its region, given its tape's. */
unsigned char *loop_base(const struct tape *tape, int n, unsigned char *base);

/* weights.c: forgets what an earlier plan offloaded, before the tapes are planned anew. */
void weights_keep_all(struct program *program);
/* Lists what the planned tapes use; for a device in the order in which they may be offloaded. */
int weights_list(struct program *program, struct status *status);
/* Offloads that many bytes more, or all that may be; false where there is nothing left. */
bool weights_offload(struct program *program, size_t bytes);
int weights_pack(struct program *program, struct status *status);
/* The bytes of a node's offloaded weight; 0: it has none. */
size_t offloaded_bytes(const struct tape *tape, const struct node *node);
/* Puts the upload of node n's offloaded weight, if it has one, on the device's stream. */
bool weight_upload(const struct tape *tape, int n, unsigned char *base);
/* Whether the tape is the body of a loop. */
bool is_body(const struct program *program, const struct tape *tape);

/* graph.c, for a program whose device has loops: records a tape as one graph; replays it, showing
 * the hooks how its loops go on. */
int graph_record(struct tape *tape, struct status *status);
int graph_run(struct tape *tape, const struct program_hooks *hooks, struct status *status);
/* What became of the device's work so far; nothing where there is no device. */
int device_status(const struct program *program, struct status *status);

/* Plans one tape into tape->plan; segments > 1 recomputes. */
int plan_tape(struct tape *tape, int segments, struct status *status);
void plan_release(struct plan *plan);
/* Whether something comes before the first derivative. */
bool can_recompute(const struct tape *tape);
/* Replaces plan->nodes with a list in which every phase computes the forward segments that it needs
 * again, so that none stays for the next. Returns false without memory. */
bool plan_recompute(struct tape *tape, int segments, struct node **nodes, int *count);
/* Offsets for blocks whose lifetimes overlap; returns the region's bytes. */
size_t plan_offsets(struct block *blocks, int count);

size_t round_up(size_t bytes, size_t unit);
size_t value_bytes(const struct value_info *info);
/* Makes room for one more item in a growing array; false without memory. */
bool array_grow(void *array, int *capacity, int count, size_t item_bytes);

#endif
