#include "runtime/yaml.h"

#include "runtime/array.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 64, MAX_NODES = 20000, MAX_BYTES = 1 << 20 };

struct reader {
    yaml_parser_t parser;
    struct yaml_document *document;
    struct status *status;
    int nodes;
};

static void free_node(struct yaml_node *node)
{
    if (!node)
        return;
    for (int i = 0; i < node->count; i++) {
        free_node(node->items[i]);
        if (node->keys)
            free_node(node->keys[i]);
    }
    free(node->text);
    free(node->items);
    free(node->keys);
    free(node);
}

void yaml_close(struct yaml_document *document)
{
    free_node(document->root);
    free(document->origin);
    memset(document, 0, sizeof *document);
}

static bool next_event(struct reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return true;
    status_set(reader->status, STATUS_BAD_INPUT, "%s: line %zu: not valid YAML: %s",
               reader->document->origin, reader->parser.problem_mark.line + 1,
               reader->parser.problem ? reader->parser.problem : "cannot be read");
    return false;
}

static bool refuse(struct reader *reader, const yaml_event_t *event, const char *why)
{
    status_set(reader->status, STATUS_BAD_INPUT, "%s: line %zu: %s", reader->document->origin,
               event->start_mark.line + 1, why);
    return false;
}

static struct yaml_node *new_node(struct reader *reader, const yaml_event_t *event,
                                  enum yaml_kind kind)
{
    if (++reader->nodes > MAX_NODES) {
        refuse(reader, event, "more than 20000 nodes");
        return NULL;
    }
    struct yaml_node *node = status_calloc(reader->status, 1, sizeof *node, "YAML");
    if (node) {
        node->kind = kind;
        node->line = (int)event->start_mark.line + 1;
    }
    return node;
}

/* Makes room for item number `count` (and its key in a mapping): arrays grow by doubling. */
static bool grow_node(struct reader *reader, struct yaml_node *node)
{
    if (node->count & (node->count - 1))
        return true;
    size_t capacity = node->count ? 2 * (size_t)node->count : 1;
    struct yaml_node **items = realloc(node->items, capacity * sizeof *items);
    if (items)
        node->items = items;
    struct yaml_node **keys = node->keys;
    if (node->kind == YAML_MAPPING) {
        keys = realloc(node->keys, capacity * sizeof *keys);
        if (keys)
            node->keys = keys;
    }
    if (!items || (node->kind == YAML_MAPPING && !keys))
        return !status_set(reader->status, STATUS_FAILURE, "out of memory for YAML");
    return true;
}

static struct yaml_node *read_node(struct reader *reader, yaml_event_t *event, int depth);

static bool read_key(struct reader *reader, yaml_event_t *event, struct yaml_node *mapping,
                     int depth, struct yaml_node **key)
{
    if (event->type != YAML_SCALAR_EVENT)
        return refuse(reader, event, "a key must be a plain word");
    *key = read_node(reader, event, depth);
    if (!*key)
        return false;
    for (int i = 0; i < mapping->count; i++) {
        if (strcmp(mapping->keys[i]->text, (*key)->text) == 0) {
            status_set(reader->status, STATUS_BAD_INPUT,
                       "%s: line %d: the key %.100s is there twice", reader->document->origin,
                       (*key)->line, (*key)->text);
            return false;
        }
    }
    return true;
}

/* Reads a collection's members up to its end event. */
static bool read_members(struct reader *reader, struct yaml_node *node, int depth)
{
    bool mapping = node->kind == YAML_MAPPING;
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event))
            return false;
        bool end = event.type == (mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT);
        struct yaml_node *key = NULL;
        bool fine = end || (grow_node(reader, node) &&
                            (!mapping || read_key(reader, &event, node, depth + 1, &key)));
        if (!end && (mapping || !fine))
            yaml_event_delete(&event);
        if (end) {
            yaml_event_delete(&event);
            return true;
        }
        if (fine && mapping)
            fine = next_event(reader, &event);
        struct yaml_node *item = NULL;
        if (fine) {
            item = read_node(reader, &event, depth + 1);
            yaml_event_delete(&event);
        }
        if (!item) {
            free_node(key);
            return false;
        }
        if (mapping)
            node->keys[node->count] = key;
        node->items[node->count++] = item;
    }
}

static struct yaml_node *read_scalar(struct reader *reader, const yaml_event_t *event)
{
    struct yaml_node *node = new_node(reader, event, YAML_SCALAR);
    if (!node)
        return NULL;
    size_t length = event->data.scalar.length;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = status_calloc(reader->status, length + 1, 1, "YAML");
    if (node->text)
        memcpy(node->text, event->data.scalar.value, length);
    if (!node->text || strlen(node->text) != length) {
        refuse(reader, event, "a zero byte in a text");
        free_node(node);
        return NULL;
    }
    return node;
}

static struct yaml_node *read_node(struct reader *reader, yaml_event_t *event, int depth)
{
    if (depth > MAX_DEPTH) {
        refuse(reader, event, "nested more than 64 deep");
        return NULL;
    }
    if (event->type == YAML_SCALAR_EVENT)
        return read_scalar(reader, event);
    if (event->type != YAML_SEQUENCE_START_EVENT && event->type != YAML_MAPPING_START_EVENT) {
        refuse(reader, event,
               event->type == YAML_ALIAS_EVENT ? "aliases are not supported"
                                               : "a value is missing");
        return NULL;
    }
    bool mapping = event->type == YAML_MAPPING_START_EVENT;
    struct yaml_node *node = new_node(reader, event, mapping ? YAML_MAPPING : YAML_SEQUENCE);
    if (node && !read_members(reader, node, depth)) {
        free_node(node);
        return NULL;
    }
    return node;
}

/* The events before the first node: stream start, document start. */
static void read_document(struct reader *reader)
{
    yaml_event_t event;
    while (next_event(reader, &event)) {
        yaml_event_type_t type = event.type;
        if (type == YAML_STREAM_END_EVENT)
            status_set(reader->status, STATUS_BAD_INPUT, "%s: the file is empty",
                       reader->document->origin);
        else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT)
            reader->document->root = read_node(reader, &event, 0);
        yaml_event_delete(&event);
        if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT)
            return;
    }
}

static void expect_end(struct reader *reader)
{
    yaml_event_t event;
    while (status_ok(reader->status) && next_event(reader, &event)) {
        yaml_event_type_t type = event.type;
        if (type == YAML_DOCUMENT_START_EVENT)
            refuse(reader, &event, "a second document");
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return;
    }
}

int yaml_read_text(struct yaml_document *document, const char *text, size_t length,
                   const char *origin, struct status *status)
{
    struct reader reader = {.document = document, .status = status};
    memset(document, 0, sizeof *document);
    if (length > MAX_BYTES)
        return status_set(status, STATUS_BAD_INPUT, "%s: %zu bytes of YAML, expected at most %d",
                          origin, length, MAX_BYTES);
    document->origin = strdup(origin);
    if (!document->origin || !yaml_parser_initialize(&reader.parser)) {
        yaml_close(document);
        return status_set(status, STATUS_FAILURE, "out of memory for YAML");
    }
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    read_document(&reader);
    expect_end(&reader);
    yaml_parser_delete(&reader.parser);
    if (!status_ok(status))
        yaml_close(document);
    return status->code;
}

int yaml_read_file(struct yaml_document *document, const char *path, struct status *status)
{
    size_t length;
    memset(document, 0, sizeof *document);
    char *text = file_read_text(path, MAX_BYTES, &length, status);
    if (text)
        yaml_read_text(document, text, length, path, status);
    free(text);
    return status->code;
}

/* Looking things up */

static bool is_null(const struct yaml_node *node)
{
    if (node->kind != YAML_SCALAR || node->quoted)
        return false;
    const char *t = node->text;
    return !*t || !strcmp(t, "~") || !strcmp(t, "null") || !strcmp(t, "Null") || !strcmp(t, "NULL");
}

const struct yaml_node *yaml_find(const struct yaml_node *node, const char *key)
{
    while (node && *key) {
        size_t length = strcspn(key, ".");
        const struct yaml_node *found = NULL;
        for (int i = 0; node->kind == YAML_MAPPING && i < node->count; i++)
            if (strlen(node->keys[i]->text) == length &&
                memcmp(node->keys[i]->text, key, length) == 0)
                found = node->items[i];
        node = found;
        key += length + (key[length] == '.');
    }
    return node && !is_null(node) ? node : NULL;
}

static const char *shown(const struct yaml_node *node)
{
    return node->kind == YAML_SCALAR    ? node->text
           : node->kind == YAML_MAPPING ? "a mapping"
                                        : "a list";
}

static int unexpected(const struct yaml_document *document, const struct yaml_node *node,
                      const char *key, const char *expected, struct status *status)
{
    return status_set(status, STATUS_BAD_INPUT, "%s: %s (line %d): expected %s, found '%.60s'",
                      document->origin, key, node->line, expected, shown(node));
}

int yaml_integer(const struct yaml_document *document, const struct yaml_node *node,
                 const char *key, int64_t least, int64_t most, int64_t *result,
                 struct status *status)
{
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least,
             (long long)most);
    if (node->kind != YAML_SCALAR || node->quoted || !*node->text)
        return unexpected(document, node, key, expected, status);
    char *end;
    errno = 0;
    long long parsed = strtoll(node->text, &end, 10);
    if (errno || *end || parsed < least || parsed > most)
        return unexpected(document, node, key, expected, status);
    *result = parsed;
    return status->code;
}

int yaml_real(const struct yaml_document *document, const struct yaml_node *node, const char *key,
              double least, double most, double *result, struct status *status)
{
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    if (node->kind != YAML_SCALAR || node->quoted || !*node->text ||
        strspn(node->text, "0123456789+-.eE") != strlen(node->text))
        return unexpected(document, node, key, expected, status);
    char *end;
    double parsed = strtod(node->text, &end);
    if (*end || !isfinite(parsed) || parsed < least || parsed > most)
        return unexpected(document, node, key, expected, status);
    *result = parsed;
    return status->code;
}

int yaml_boolean(const struct yaml_document *document, const struct yaml_node *node,
                 const char *key, bool *result, struct status *status)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes",
                                      "YES",  "on",   "On",   "ON"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No",
                                     "NO",    "off",   "Off",   "OFF"};
    for (int i = 0; node->kind == YAML_SCALAR && !node->quoted && i < 9; i++) {
        if (!strcmp(node->text, yes[i]) || !strcmp(node->text, no[i])) {
            *result = !strcmp(node->text, yes[i]);
            return status->code;
        }
    }
    return unexpected(document, node, key, "true or false", status);
}
