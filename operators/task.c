#include "operators/task.h"
#include "operators/operator.h"
#include "runtime/yaml.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_NOTES = 16, KNOWN_BYTES = 400 };

static const double largest_noise = 1e6;

struct task {
    struct yaml_document document;
    const struct yaml_node *measurement;
    const struct operator_kind *kind;
    char *folder; /* of the file, with the final slash; "" for the working directory */
    char *data_root;
    const char *noise_name;
    double sigma, rate;
    char *notes[MAX_NOTES + 1];
    int note_count;
};

static int error_at(const struct task *task, const struct yaml_node *node, const char *path,
                    struct status *status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static int vector_error(const struct task *task, const struct yaml_node *node, const char *path,
                        struct status *status, const char *format, va_list arguments)
{
    char text[768];
    vsnprintf(text, sizeof text, format, arguments);
    return status_set(status, STATUS_BAD_INPUT, "%s: %s (line %d): %s", task->document.origin, path,
                      node ? node->line : 1, text);
}

static int error_at(const struct task *task, const struct yaml_node *node, const char *path,
                    struct status *status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vector_error(task, node, path, status, format, arguments);
    va_end(arguments);
    return status->code;
}

/* The node of a key, or of the innermost section around it that exists. */
static const struct yaml_node *nearest(const struct task *task, const char *key)
{
    char part[256];
    snprintf(part, sizeof part, "%s", key);
    for (;;) {
        const struct yaml_node *node = yaml_find(task->measurement, part);
        if (node)
            return node;
        char *dot = strrchr(part, '.');
        if (!dot)
            return task->measurement;
        *dot = 0;
    }
}

int task_error(const struct task *task, const char *key, struct status *status, const char *format,
               ...)
{
    char path[256];
    snprintf(path, sizeof path, "measurement.%s", key);
    va_list arguments;
    va_start(arguments, format);
    vector_error(task, nearest(task, key), path, status, format, arguments);
    va_end(arguments);
    return status->code;
}

static void note(struct task *task, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct task *task, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (task->note_count < MAX_NOTES && (task->notes[task->note_count] = strdup(text)))
        task->note_count++;
}

static bool listed(const char *const *list, const char *name)
{
    for (; list && *list; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

static void append(char known[KNOWN_BYTES], const char *name)
{
    size_t used = strlen(known);
    snprintf(known + used, KNOWN_BYTES - used, "%s%s", used ? ", " : "", name);
}

/* Every key of a mapping is in `keys` or, with a note, in `ignored`. A missing section is fine. */
static int check_keys(struct task *task, const struct yaml_node *section, const char *path,
                      const char *const *keys, const char *const *ignored, struct status *status)
{
    if (!section)
        return STATUS_OK;
    if (section->kind != YAML_MAPPING)
        return error_at(task, section, path, status, "expected a section of keys and values");
    for (int i = 0; i < section->count; i++) {
        const char *key = section->keys[i]->text;
        if (listed(ignored, key)) {
            note(task, "%s: %s%s%s is ignored", task->document.origin, path, *path ? "." : "", key);
            continue;
        }
        if (listed(keys, key))
            continue;
        char known[KNOWN_BYTES] = "", name[256];
        for (const char *const *list = keys; list && *list; list++)
            append(known, *list);
        snprintf(name, sizeof name, "%s%s%s", path, *path ? "." : "", key);
        return error_at(task, section->keys[i], name, status, "unknown key; known: %s", known);
    }
    return STATUS_OK;
}

static const char *scalar(const struct yaml_node *section, const char *key)
{
    const struct yaml_node *node = yaml_find(section, key);
    return node && node->kind == YAML_SCALAR ? node->text : NULL;
}

static int check_surroundings(struct task *task, struct status *status)
{
    const struct yaml_node *root = task->document.root;
    const struct yaml_node *conditioning = yaml_find(root, "conditioning");
    static const char *const root_keys[] = {"conditioning", "data", "measurement", NULL};
    static const char *const conditioning_keys[] = {"method", "main_sampler", "params", NULL};
    static const char *const data_keys[] = {"root", "name", NULL};
    if (!root || root->kind != YAML_MAPPING)
        return status_set(status, STATUS_BAD_INPUT,
                          "%s: expected a task file: conditioning, data, measurement",
                          task->document.origin);
    if (check_keys(task, root, "", root_keys, NULL, status) ||
        check_keys(task, conditioning, "conditioning", conditioning_keys, NULL, status) ||
        check_keys(task, yaml_find(root, "data"), "data", data_keys, NULL, status))
        return status->code;
    const char *sampler = scalar(conditioning, "main_sampler");
    if (sampler && strcmp(sampler, "resample") != 0)
        note(task, "%s: conditioning.main_sampler %s is ignored: the preset decides",
             task->document.origin, sampler);
    const char *method = scalar(conditioning, "method");
    if (method && strcmp(method, "ps") != 0)
        note(task, "%s: conditioning.method %s is ignored: the preset decides",
             task->document.origin, method);
    if (yaml_find(conditioning, "params"))
        note(task, "%s: conditioning.params is ignored, as in the official code",
             task->document.origin);
    return STATUS_OK;
}

static int check_operator(struct task *task, struct status *status)
{
    const struct yaml_node *self = yaml_find(task->measurement, "operator");
    char known[KNOWN_BYTES] = "";
    for (int i = 0; operator_kinds()[i]; i++)
        append(known, operator_kinds()[i]->name);
    const char *name = scalar(self, "name");
    if (!name)
        return task_error(task, "operator.name", status, "missing; known operators: %s", known);
    task->kind = operator_kind_find(name);
    if (!task->kind)
        return task_error(task, "operator.name", status, "unknown operator \"%s\"; known: %s", name,
                          known);
    const char *keys[16] = {"name"};
    for (int i = 0; task->kind->keys[i] && i < 14; i++)
        keys[i + 1] = task->kind->keys[i];
    return check_keys(task, self, "measurement.operator", keys, task->kind->ignored_keys, status);
}

static int check_mask(struct task *task, struct status *status)
{
    static const char *const keys[] = {"mask_type", "mask_prob_range", "mask_len_range", NULL};
    static const char *const ignored[] = {"image_size", NULL};
    const struct yaml_node *mask = yaml_find(task->measurement, "mask_opt");
    if (!mask)
        return STATUS_OK;
    if (strcmp(task->kind->name, "inpainting") != 0)
        note(task, "%s: measurement.mask_opt is ignored: the operator is %s", task->document.origin,
             task->kind->name);
    else if (task_has(task, "operator.mask"))
        note(task, "%s: measurement.mask_opt is ignored: operator.mask is given",
             task->document.origin);
    return check_keys(task, mask, "measurement.mask_opt", keys, ignored, status);
}

static int read_noise(struct task *task, struct status *status)
{
    static const char *const keys[] = {"name", "sigma", "rate", NULL};
    static const char *const names[] = {"gaussian", "poisson", "clean"};
    const struct yaml_node *noise = yaml_find(task->measurement, "noise");
    task->noise_name = names[0];
    task->sigma = -1;
    task->rate = 1;
    if (!noise)
        return STATUS_OK;
    if (check_keys(task, noise, "measurement.noise", keys, NULL, status))
        return status->code;
    const char *name = scalar(noise, "name");
    if (!name)
        return task_error(task, "noise.name", status, "missing; known: gaussian, poisson, clean");
    task->noise_name = NULL;
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            task->noise_name = names[i];
    if (!task->noise_name)
        return task_error(task, "noise.name", status,
                          "unknown noise \"%s\"; known: gaussian, poisson, clean", name);
    if (task->noise_name == names[0])
        return task_real(task, "noise.sigma", 0, largest_noise, &task->sigma, status);
    if (task->noise_name == names[1])
        return task_real(task, "noise.rate", 1e-6, largest_noise, &task->rate, status);
    task->sigma = 0;
    return STATUS_OK;
}

/* A file name of the task file as it is found from here; the caller frees. */
static char *locate(const struct task *task, const char *name, struct status *status)
{
    size_t bytes = strlen(task->folder) + strlen(name) + 1;
    char *path = status_calloc(status, bytes, 1, "a file name");
    if (!path)
        return NULL;
    if (name[0] != '/') {
        snprintf(path, bytes, "%s%s", task->folder, name);
        if (access(path, F_OK) == 0)
            return path;
    }
    snprintf(path, bytes, "%s", name);
    return path;
}

static int read_task(struct task *task, const char *path, struct status *status)
{
    const char *slash = strrchr(path, '/');
    task->folder = status_calloc(status, strlen(path) + 1, 1, "a file name");
    if (!task->folder || yaml_read_file(&task->document, path, status))
        return status->code;
    if (slash)
        memcpy(task->folder, path, (size_t)(slash - path) + 1);
    if (check_surroundings(task, status))
        return status->code;
    task->measurement = yaml_find(task->document.root, "measurement");
    if (!task->measurement)
        return error_at(task, task->document.root, "measurement", status, "missing");
    static const char *const keys[] = {"operator", "mask_opt", "noise", NULL};
    if (check_keys(task, task->measurement, "measurement", keys, NULL, status) ||
        check_operator(task, status) || check_mask(task, status) || read_noise(task, status))
        return status->code;
    const char *root = scalar(task->document.root, "data.root");
    if (root)
        task->data_root = locate(task, root, status);
    return status->code;
}

struct task *task_open(const char *path, struct status *status)
{
    struct task *task = status_calloc(status, 1, sizeof *task, "a task");
    if (task && read_task(task, path, status)) {
        task_free(task);
        return NULL;
    }
    return task;
}

void task_free(struct task *task)
{
    if (!task)
        return;
    yaml_close(&task->document);
    for (int i = 0; i < task->note_count; i++)
        free(task->notes[i]);
    free(task->data_root);
    free(task->folder);
    free(task);
}

const struct operator_kind *task_operator_kind(const struct task *task)
{
    return task->kind;
}

const char *task_data_root(const struct task *task)
{
    return task->data_root;
}

double task_noise_sigma(const struct task *task)
{
    return task->sigma;
}

double task_noise_rate(const struct task *task)
{
    return task->rate;
}

const char *task_noise_name(const struct task *task)
{
    return task->noise_name;
}

const char *const *task_notes(const struct task *task)
{
    return (const char *const *)task->notes;
}

bool task_has(const struct task *task, const char *key)
{
    return yaml_find(task->measurement, key) != NULL;
}

int task_integer(const struct task *task, const char *key, int64_t least, int64_t most,
                 int64_t *result, struct status *status)
{
    const struct yaml_node *node = yaml_find(task->measurement, key);
    if (!node)
        return status->code;
    return yaml_integer(&task->document, node, key, least, most, result, status);
}

int task_real(const struct task *task, const char *key, double least, double most, double *result,
              struct status *status)
{
    const struct yaml_node *node = yaml_find(task->measurement, key);
    if (!node)
        return status->code;
    return yaml_real(&task->document, node, key, least, most, result, status);
}

const char *task_string(const struct task *task, const char *key)
{
    return scalar(task->measurement, key);
}

int task_reals(const struct task *task, const char *key, double **values, int64_t *count,
               struct status *status)
{
    const struct yaml_node *node = yaml_find(task->measurement, key);
    if (!node || node->kind != YAML_SEQUENCE || node->count < 1)
        return task_error(task, key, status, "expected a list of numbers: [1, 2, ...]");
    *count = node->count;
    *values = status_calloc(status, (unsigned long)node->count, sizeof(double), "a list");
    for (int i = 0; *values && i < node->count; i++) {
        const struct yaml_node *item = node->items[i];
        char *end = NULL;
        if (item->kind == YAML_SCALAR)
            (*values)[i] = strtod(item->text, &end);
        if (!end || end == item->text || *end || !isfinite((*values)[i]))
            return task_error(task, key, status, "item %d is not a number", i + 1);
    }
    return status->code;
}

char *task_path(const struct task *task, const char *key, struct status *status)
{
    const char *name = task_string(task, key);
    if (!name) {
        task_error(task, key, status, "expected a file name");
        return NULL;
    }
    return locate(task, name, status);
}
