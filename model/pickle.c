#include "model/pickle.h"
#include "model/bytes.h"

#include <stdlib.h>
#include <string.h>

/* A tensor takes about 150 bytes of pickle, so this is room for 200,000 of them. */
enum { MAX_BYTES = 32 << 20 };

struct machine {
    struct pickle *pickle;
    const unsigned char *bytes;
    size_t size, at, opcode_at;
    uint64_t number; /* the opcode's argument */
    const unsigned char *data;
    size_t length;
    const unsigned char *second_data;
    size_t second_length;
    size_t memo_used;
    bool stopped;
    struct status *status;
};

static bool fail(struct machine *machine, const char *what)
{
    status_set(machine->status, STATUS_BAD_INPUT, "damaged pickle: %s (opcode 0x%02x at byte %zu)",
               what, machine->bytes[machine->opcode_at], machine->opcode_at);
    return false;
}

/* Makes room for one more element; new memory is zero. */
static bool grow(struct machine *machine, void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t enlarged = count < 32 ? 64 : count * 2;
    char *memory;
    memcpy(&memory, array, sizeof memory);
    memory = reallocarray(memory, enlarged, size);
    if (!memory) {
        status_set(machine->status, STATUS_FAILURE, "out of memory for a pickle");
        return false;
    }
    memset(memory + *capacity * size, 0, (enlarged - *capacity) * size);
    memcpy(array, &memory, sizeof memory);
    *capacity = enlarged;
    return true;
}

static bool push(struct machine *machine, struct pickle_value value)
{
    struct pickle *pickle = machine->pickle;
    if (!grow(machine, &pickle->stack, pickle->stack_count, &pickle->stack_capacity,
              sizeof *pickle->stack))
        return false;
    pickle->stack[pickle->stack_count++] = value;
    return true;
}

static bool pop(struct machine *machine, struct pickle_value *value)
{
    struct pickle *pickle = machine->pickle;
    if (pickle->stack_count == 0 || pickle->stack[pickle->stack_count - 1].kind == PICKLE_MARK)
        return fail(machine, "it takes a value that is not there");
    *value = pickle->stack[--pickle->stack_count];
    return true;
}

static bool top(struct machine *machine, struct pickle_value *value)
{
    if (!pop(machine, value))
        return false;
    machine->pickle->stack_count++;
    return true;
}

/* The stack index just above the topmost mark. */
static bool find_mark(struct machine *machine, size_t *first)
{
    const struct pickle *pickle = machine->pickle;
    for (*first = pickle->stack_count; *first > 0; --*first)
        if (pickle->stack[*first - 1].kind == PICKLE_MARK)
            return true;
    return fail(machine, "it takes values up to a mark that is not there");
}

static bool new_object(struct machine *machine, enum pickle_object_kind kind,
                       struct pickle_value *value)
{
    struct pickle *pickle = machine->pickle;
    if (!grow(machine, &pickle->objects, pickle->object_count, &pickle->object_capacity,
              sizeof *pickle->objects))
        return false;
    pickle->objects[pickle->object_count].kind = kind;
    *value = (struct pickle_value){.kind = PICKLE_OBJECT, .object = pickle->object_count++};
    return true;
}

/* Moves the stack's values from index `first` on to the end of an object's items. */
static bool move_items(struct machine *machine, struct pickle_value target, size_t first)
{
    struct pickle *pickle = machine->pickle;
    struct pickle_object *object = &pickle->objects[target.object];
    for (size_t i = first; i < pickle->stack_count; i++) {
        if (pickle->item_count == 0)
            pickle->item_count = 1;
        if (!grow(machine, &pickle->items, pickle->item_count, &pickle->item_capacity,
                  sizeof *pickle->items))
            return false;
        size_t item = pickle->item_count++;
        pickle->items[item].value = pickle->stack[i];
        if (object->last_item)
            pickle->items[object->last_item].next = item;
        else
            object->first_item = item;
        object->last_item = item;
        object->count++;
    }
    pickle->stack_count = first;
    return true;
}

static bool push_opaque(struct machine *machine)
{
    return push(machine, (struct pickle_value){.kind = PICKLE_OPAQUE});
}

static bool push_bool(struct machine *machine)
{
    return push(machine, (struct pickle_value){.kind = PICKLE_BOOL,
                                               .integer = machine->bytes[machine->opcode_at] ==
                                                          0x88 /* NEWTRUE */});
}

static bool push_unsigned(struct machine *machine)
{
    return push(machine,
                (struct pickle_value){.kind = PICKLE_INTEGER, .integer = (int64_t)machine->number});
}

static bool push_int32(struct machine *machine)
{
    return push(machine, (struct pickle_value){.kind = PICKLE_INTEGER,
                                               .integer = (int32_t)(uint32_t)machine->number});
}

/* Two's complement of any length, little endian. */
static bool push_long(struct machine *machine)
{
    if (machine->length > 8)
        return push_opaque(machine);
    uint64_t value = load_little_endian(machine->data, (int)machine->length);
    int unused = 64 - 8 * (int)machine->length;
    if (machine->length > 0 && (machine->data[machine->length - 1] & 0x80) && unused > 0)
        value |= ~(uint64_t)0 << (64 - unused);
    return push(machine, (struct pickle_value){.kind = PICKLE_INTEGER, .integer = (int64_t)value});
}

static bool push_float(struct machine *machine)
{
    struct pickle_value value = {.kind = PICKLE_FLOAT};
    uint64_t bits = __builtin_bswap64(machine->number);
    memcpy(&value.real, &bits, sizeof bits);
    return push(machine, value);
}

static struct pickle_value text_value(const unsigned char *data, size_t length)
{
    return (struct pickle_value){
        .kind = PICKLE_TEXT, .length = (uint32_t)length, .text = (const char *)data};
}

static bool push_text(struct machine *machine)
{
    return push(machine, text_value(machine->data, machine->length));
}

static bool push_mark(struct machine *machine)
{
    return push(machine, (struct pickle_value){.kind = PICKLE_MARK});
}

static bool discard_top(struct machine *machine)
{
    if (machine->pickle->stack_count == 0)
        return fail(machine, "it takes a value that is not there");
    machine->pickle->stack_count--;
    return true;
}

static bool discard_to_mark(struct machine *machine)
{
    size_t first;
    if (!find_mark(machine, &first))
        return false;
    machine->pickle->stack_count = first - 1;
    return true;
}

static bool duplicate_top(struct machine *machine)
{
    struct pickle_value value;
    return top(machine, &value) && push(machine, value);
}

static bool push_empty(struct machine *machine, enum pickle_object_kind kind)
{
    struct pickle_value value;
    return new_object(machine, kind, &value) && push(machine, value);
}

static bool push_empty_tuple(struct machine *machine)
{
    return push_empty(machine, PICKLE_TUPLE);
}

static bool push_empty_list(struct machine *machine)
{
    return push_empty(machine, PICKLE_LIST);
}

static bool push_empty_dictionary(struct machine *machine)
{
    return push_empty(machine, PICKLE_DICTIONARY);
}

/* The values above the mark become one object in the mark's place. */
static bool collect(struct machine *machine, enum pickle_object_kind kind)
{
    size_t first;
    struct pickle_value value;
    if (!find_mark(machine, &first) || !new_object(machine, kind, &value) ||
        !move_items(machine, value, first))
        return false;
    machine->pickle->stack[first - 1] = value;
    return true;
}

static bool collect_tuple(struct machine *machine)
{
    return collect(machine, PICKLE_TUPLE);
}

static bool collect_list(struct machine *machine)
{
    return collect(machine, PICKLE_LIST);
}

static bool collect_dictionary(struct machine *machine)
{
    size_t first;
    if (!find_mark(machine, &first))
        return false;
    if ((machine->pickle->stack_count - first) % 2 != 0)
        return fail(machine, "a key has no value");
    return collect(machine, PICKLE_DICTIONARY);
}

/* TUPLE1, TUPLE2, TUPLE3 */
static bool collect_short_tuple(struct machine *machine)
{
    struct pickle *pickle = machine->pickle;
    size_t count = machine->bytes[machine->opcode_at] - 0x84u;
    struct pickle_value value;
    for (size_t i = 0; i < count; i++)
        if (i >= pickle->stack_count ||
            pickle->stack[pickle->stack_count - 1 - i].kind == PICKLE_MARK)
            return fail(machine, "it takes a value that is not there");
    return new_object(machine, PICKLE_TUPLE, &value) &&
           move_items(machine, value, pickle->stack_count - count) && push(machine, value);
}

/* Adds the values from index `first` on to the object below them (below a mark, too). */
static bool add_items(struct machine *machine, size_t first, bool marked, bool pairs)
{
    struct pickle *pickle = machine->pickle;
    size_t below = first - (marked ? 1 : 0);
    if (pairs && (pickle->stack_count - first) % 2 != 0)
        return fail(machine, "a key has no value");
    if (below == 0 || pickle->stack[below - 1].kind != PICKLE_OBJECT)
        return fail(machine, "it adds items to something that holds none");
    struct pickle_value target = pickle->stack[below - 1];
    enum pickle_object_kind kind = pickle->objects[target.object].kind;
    if (kind != PICKLE_CALL && kind != (pairs ? PICKLE_DICTIONARY : PICKLE_LIST))
        return fail(machine, "it adds items to something that holds none");
    if (!move_items(machine, target, first))
        return false;
    pickle->stack_count = below;
    return true;
}

static bool add_value(struct machine *machine)
{
    struct pickle_value value;
    return top(machine, &value) &&
           add_items(machine, machine->pickle->stack_count - 1, false, false);
}

static bool add_pair(struct machine *machine)
{
    struct pickle_value value;
    size_t count = machine->pickle->stack_count;
    if (!pop(machine, &value) || !top(machine, &value))
        return false;
    machine->pickle->stack_count = count;
    return add_items(machine, count - 2, false, true);
}

static bool add_values(struct machine *machine)
{
    size_t first;
    return find_mark(machine, &first) && add_items(machine, first, true, false);
}

static bool add_pairs(struct machine *machine)
{
    size_t first;
    return find_mark(machine, &first) && add_items(machine, first, true, true);
}

static bool push_pair_object(struct machine *machine, enum pickle_object_kind kind,
                             struct pickle_value a, struct pickle_value b)
{
    struct pickle_value value;
    if (!new_object(machine, kind, &value))
        return false;
    machine->pickle->objects[value.object].a = a;
    machine->pickle->objects[value.object].b = b;
    return push(machine, value);
}

static bool push_global(struct machine *machine)
{
    return push_pair_object(machine, PICKLE_GLOBAL, text_value(machine->data, machine->length),
                            text_value(machine->second_data, machine->second_length));
}

static bool push_stack_global(struct machine *machine)
{
    struct pickle_value module, name;
    return pop(machine, &name) && pop(machine, &module) &&
           push_pair_object(machine, PICKLE_GLOBAL, module, name);
}

static bool push_call(struct machine *machine)
{
    struct pickle_value callable, arguments;
    return pop(machine, &arguments) && pop(machine, &callable) &&
           push_pair_object(machine, PICKLE_CALL, callable, arguments);
}

static bool push_call_with_keywords(struct machine *machine)
{
    struct pickle_value keywords;
    return pop(machine, &keywords) && push_call(machine);
}

static bool push_persistent(struct machine *machine)
{
    struct pickle_value id;
    return pop(machine, &id) &&
           push_pair_object(machine, PICKLE_PERSISTENT, id, (struct pickle_value){0});
}

/* An object's further state: of no interest, whatever the object. */
static bool build(struct machine *machine)
{
    struct pickle_value state, object;
    return pop(machine, &state) && top(machine, &object);
}

/* Picklers number the memo from 0 and spend two bytes at least on each entry, so that an index
 * beyond the pickle's size is none of theirs. */
static bool put(struct machine *machine)
{
    struct pickle *pickle = machine->pickle;
    struct pickle_value value;
    if (!top(machine, &value))
        return false;
    if (machine->number >= machine->size)
        return fail(machine, "its memo index is too large");
    size_t index = (size_t)machine->number;
    if (index >= pickle->memo_capacity &&
        !grow(machine, &pickle->memo, index, &pickle->memo_capacity, sizeof *pickle->memo))
        return false;
    if (pickle->memo[index].kind == PICKLE_UNSET)
        machine->memo_used++;
    pickle->memo[index] = value;
    if (index >= pickle->memo_count)
        pickle->memo_count = index + 1;
    return true;
}

static bool memoize(struct machine *machine)
{
    machine->number = machine->memo_used;
    return put(machine);
}

static bool get(struct machine *machine)
{
    const struct pickle *pickle = machine->pickle;
    if (machine->number >= pickle->memo_count || pickle->memo[machine->number].kind == PICKLE_UNSET)
        return fail(machine, "it takes a memo entry that is not there");
    return push(machine, pickle->memo[machine->number]);
}

static bool check_protocol(struct machine *machine)
{
    return machine->number <= 5 || fail(machine, "unknown protocol");
}

static bool skip(struct machine *machine)
{
    (void)machine;
    return true;
}

static bool stop(struct machine *machine)
{
    machine->stopped = true;
    return pop(machine, &machine->pickle->result);
}

enum argument { NOTHING, BYTES_1, BYTES_2, BYTES_4, BYTES_8, COUNT_1, COUNT_4, COUNT_8, TWO_LINES };

struct opcode {
    enum argument argument;
    bool (*run)(struct machine *machine);
};

/* Python's Lib/pickletools.py describes each. */
static const struct opcode opcodes[256] = {
    ['('] = {NOTHING, push_mark},
    ['.'] = {NOTHING, stop},
    ['0'] = {NOTHING, discard_top},
    ['1'] = {NOTHING, discard_to_mark},
    ['2'] = {NOTHING, duplicate_top},
    ['B'] = {COUNT_4, push_opaque},
    ['C'] = {COUNT_1, push_opaque},
    ['G'] = {BYTES_8, push_float},
    ['J'] = {BYTES_4, push_int32},
    ['K'] = {BYTES_1, push_unsigned},
    ['M'] = {BYTES_2, push_unsigned},
    ['N'] = {NOTHING, push_opaque},
    ['Q'] = {NOTHING, push_persistent},
    ['R'] = {NOTHING, push_call},
    ['T'] = {COUNT_4, push_text},
    ['U'] = {COUNT_1, push_text},
    ['X'] = {COUNT_4, push_text},
    [']'] = {NOTHING, push_empty_list},
    ['a'] = {NOTHING, add_value},
    ['b'] = {NOTHING, build},
    ['c'] = {TWO_LINES, push_global},
    ['d'] = {NOTHING, collect_dictionary},
    ['e'] = {NOTHING, add_values},
    ['h'] = {BYTES_1, get},
    ['j'] = {BYTES_4, get},
    ['l'] = {NOTHING, collect_list},
    ['q'] = {BYTES_1, put},
    ['r'] = {BYTES_4, put},
    ['s'] = {NOTHING, add_pair},
    ['t'] = {NOTHING, collect_tuple},
    ['u'] = {NOTHING, add_pairs},
    ['}'] = {NOTHING, push_empty_dictionary},
    [')'] = {NOTHING, push_empty_tuple},
    [0x80] = {BYTES_1, check_protocol},
    [0x81] = {NOTHING, push_call}, /* NEWOBJ */
    [0x85] = {NOTHING, collect_short_tuple},
    [0x86] = {NOTHING, collect_short_tuple},
    [0x87] = {NOTHING, collect_short_tuple},
    [0x88] = {NOTHING, push_bool},
    [0x89] = {NOTHING, push_bool},
    [0x8a] = {COUNT_1, push_long},
    [0x8b] = {COUNT_4, push_long},
    [0x8c] = {COUNT_1, push_text},
    [0x8d] = {COUNT_8, push_text},
    [0x8e] = {COUNT_8, push_opaque},             /* BINBYTES8 */
    [0x8f] = {NOTHING, push_empty_list},         /* EMPTY_SET */
    [0x90] = {NOTHING, add_values},              /* ADDITEMS */
    [0x91] = {NOTHING, collect_list},            /* FROZENSET */
    [0x92] = {NOTHING, push_call_with_keywords}, /* NEWOBJ_EX */
    [0x93] = {NOTHING, push_stack_global},
    [0x94] = {NOTHING, memoize},
    [0x95] = {BYTES_8, skip},        /* FRAME */
    [0x96] = {COUNT_8, push_opaque}, /* BYTEARRAY8 */
};

static bool take(struct machine *machine, uint64_t length, const unsigned char **data)
{
    if (!range_is_inside(machine->at, length, machine->size))
        return fail(machine, "it ends within an opcode");
    *data = machine->bytes + machine->at;
    machine->at += length;
    return true;
}

static bool take_line(struct machine *machine, const unsigned char **data, size_t *length)
{
    const unsigned char *start = machine->bytes + machine->at;
    const unsigned char *end = memchr(start, '\n', machine->size - machine->at);
    if (!end)
        return fail(machine, "it ends within an opcode");
    *length = (size_t)(end - start);
    return take(machine, *length + 1, data);
}

static bool take_argument(struct machine *machine, enum argument argument)
{
    static const unsigned char widths[] = {
        [BYTES_1] = 1, [BYTES_2] = 2, [BYTES_4] = 4, [BYTES_8] = 8,
        [COUNT_1] = 1, [COUNT_4] = 4, [COUNT_8] = 8};
    if (argument == NOTHING)
        return true;
    if (argument == TWO_LINES)
        return take_line(machine, &machine->data, &machine->length) &&
               take_line(machine, &machine->second_data, &machine->second_length);
    if (!take(machine, widths[argument], &machine->data))
        return false;
    machine->number = load_little_endian(machine->data, widths[argument]);
    if (argument < COUNT_1)
        return true;
    machine->length = machine->number;
    return take(machine, machine->number, &machine->data);
}

static bool step(struct machine *machine)
{
    if (machine->at == machine->size)
        return fail(machine, "it ends without a STOP");
    machine->opcode_at = machine->at++;
    struct opcode opcode = opcodes[machine->bytes[machine->opcode_at]];
    if (!opcode.run)
        return fail(machine, "an opcode that state dicts have no use for");
    return take_argument(machine, opcode.argument) && opcode.run(machine);
}

int pickle_read(struct pickle *pickle, const unsigned char *bytes, size_t size,
                struct status *status)
{
    *pickle = (struct pickle){0};
    if (size == 0 || size > MAX_BYTES)
        return status_set(status, STATUS_BAD_INPUT,
                          "a pickle of %zu bytes: expected 1 byte to 32 MiB", size);
    struct machine machine = {.pickle = pickle, .bytes = bytes, .size = size, .status = status};
    while (!machine.stopped)
        if (!step(&machine))
            return status->code;
    return STATUS_OK;
}

void pickle_free(struct pickle *pickle)
{
    free(pickle->objects);
    free(pickle->items);
    free(pickle->stack);
    free(pickle->memo);
    *pickle = (struct pickle){0};
}

const struct pickle_object *pickle_object(const struct pickle *pickle, struct pickle_value value,
                                          enum pickle_object_kind kind)
{
    if (value.kind != PICKLE_OBJECT || pickle->objects[value.object].kind != kind)
        return NULL;
    return &pickle->objects[value.object];
}

struct pickle_value pickle_item(const struct pickle *pickle, const struct pickle_object *tuple,
                                size_t index)
{
    if (index >= tuple->count)
        return (struct pickle_value){.kind = PICKLE_UNSET};
    size_t item = tuple->first_item;
    while (index-- > 0)
        item = pickle->items[item].next;
    return pickle->items[item].value;
}

bool pickle_text_is(struct pickle_value value, const char *text)
{
    return value.kind == PICKLE_TEXT && value.length == strlen(text) &&
           memcmp(value.text, text, value.length) == 0;
}

bool pickle_is_global(const struct pickle *pickle, struct pickle_value value, const char *module,
                      const char *name)
{
    const struct pickle_object *object = pickle_object(pickle, value, PICKLE_GLOBAL);
    return object && pickle_text_is(object->a, module) && pickle_text_is(object->b, name);
}
