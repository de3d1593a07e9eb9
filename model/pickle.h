/* A pickle machine that executes nothing. It builds the tree that a pickle (protocols 2 to 5, the
 * binary opcodes) describes: values, containers, and calls that are recorded and never made, so an
 * unknown class is just one more node. Each byte of a pickle adds at most one node, so memory stays
 * in proportion to its size. */
#ifndef MODEL_PICKLE_H
#define MODEL_PICKLE_H

#include "runtime/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
    PICKLE_UNSET, /* a free memo slot */
    PICKLE_MARK,
    PICKLE_OPAQUE, /* None, bytes, an integer beyond 64 bits: nothing a state dict needs */
    PICKLE_BOOL,
    PICKLE_INTEGER,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_OBJECT
};

struct pickle_value {
    uint32_t kind;
    uint32_t length; /* of a text */
    union {
        int64_t integer;
        double real;
        const char *text; /* in the pickle, without a final zero */
        size_t object;
    };
};

enum pickle_object_kind {
    PICKLE_GLOBAL,     /* a = module, b = name */
    PICKLE_CALL,       /* a = callable, b = arguments; items as set on the result */
    PICKLE_PERSISTENT, /* a = id */
    PICKLE_TUPLE,
    PICKLE_LIST, /* or a set */
    PICKLE_DICTIONARY
};

struct pickle_object {
    enum pickle_object_kind kind;
    struct pickle_value a, b;
    size_t first_item, last_item; /* indices into pickle.items; 0 is none */
    size_t count;                 /* a dictionary's keys and values count singly */
};

struct pickle_item {
    struct pickle_value value;
    size_t next;
};

struct pickle {
    struct pickle_object *objects;
    struct pickle_item *items;
    struct pickle_value *stack, *memo;
    size_t object_count, item_count, stack_count, memo_count;
    size_t object_capacity, item_capacity, stack_capacity, memo_capacity;
    struct pickle_value result;
};

/* The bytes must outlive `pickle`; free it even after an error. */
int pickle_read(struct pickle *pickle, const unsigned char *bytes, size_t size,
                struct status *status);
void pickle_free(struct pickle *pickle);

/* The object of that kind that a value refers to; NULL if it is something else. */
const struct pickle_object *pickle_object(const struct pickle *pickle, struct pickle_value value,
                                          enum pickle_object_kind kind);
/* Item `index` of a tuple, by walking there; PICKLE_UNSET beyond its end. */
struct pickle_value pickle_item(const struct pickle *pickle, const struct pickle_object *tuple,
                                size_t index);
bool pickle_text_is(struct pickle_value value, const char *text);
/* Whether a value is the global MODULE.NAME. */
bool pickle_is_global(const struct pickle *pickle, struct pickle_value value, const char *module,
                      const char *name);

#endif
