/* A small tree over libyaml's parser: mappings, sequences, scalars with their line. Aliases and
 * documents beyond the first are errors; depth and node count are bounded. Tags such as
 * !!python/tuple are accepted and ignored. */
#ifndef RUNTIME_YAML_H
#define RUNTIME_YAML_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
    enum yaml_kind kind;
    int line; /* from 1 */
    bool quoted;
    char *text;               /* scalar */
    int count;                /* sequence items, mapping pairs */
    struct yaml_node **items; /* sequence items, mapping values */
    struct yaml_node **keys;  /* mapping keys (scalars) */
};

struct yaml_document {
    char *origin; /* file name for messages */
    struct yaml_node *root;
};

int yaml_read_file(struct yaml_document *document, const char *path, struct status *status);
int yaml_read_text(struct yaml_document *document, const char *text, size_t length,
                   const char *origin, struct status *status);
/* Not "yaml_free": libyaml exports that name and would call ours. */
void yaml_close(struct yaml_document *document);
/* Value of `key` in a mapping; "a.b.c" walks down. NULL if absent (or null / ~). */
const struct yaml_node *yaml_find(const struct yaml_node *node, const char *key);
/* Typed reads; on a wrong type or range the error says "FILE: KEY (line L): what was expected". */
int yaml_integer(const struct yaml_document *document, const struct yaml_node *node,
                 const char *key, int64_t least, int64_t most, int64_t *result,
                 struct status *status);
int yaml_real(const struct yaml_document *document, const struct yaml_node *node, const char *key,
              double least, double most, double *result, struct status *status);
int yaml_boolean(const struct yaml_document *document, const struct yaml_node *node,
                 const char *key, bool *result, struct status *status);

#endif
