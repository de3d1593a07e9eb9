/* PyTorch's zip checkpoints: ROOT/data.pkl describes the tensors, ROOT/data/KEY holds their
 * storages (spec: torch/serialization.py, torch/_utils.py). */
#include "model/checkpoint_file.h"
#include "model/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct checkpoint *checkpoint;
    struct pickle pickle;
    const char *root;
    int root_length;
    struct status *status;
};

static const struct {
    const char *name;
    enum checkpoint_type type;
    int bytes;
} storage_types[] = {
    {"FloatStorage", CHECKPOINT_F32, 4},          {"HalfStorage", CHECKPOINT_F16, 2},
    {"BFloat16Storage", CHECKPOINT_BF16, 2},      {"DoubleStorage", CHECKPOINT_F64, 8},
    {"LongStorage", CHECKPOINT_I64, 8},           {"IntStorage", CHECKPOINT_I32, 4},
    {"ShortStorage", CHECKPOINT_OTHER, 2},        {"CharStorage", CHECKPOINT_OTHER, 1},
    {"ByteStorage", CHECKPOINT_OTHER, 1},         {"BoolStorage", CHECKPOINT_OTHER, 1},
    {"ComplexFloatStorage", CHECKPOINT_OTHER, 8}, {"ComplexDoubleStorage", CHECKPOINT_OTHER, 16},
    {"QInt8Storage", CHECKPOINT_OTHER, 1},        {"QUInt8Storage", CHECKPOINT_OTHER, 1},
    {"QInt32Storage", CHECKPOINT_OTHER, 4},
};

struct storage {
    struct zip_entry *entry;
    enum checkpoint_type type;
    int element_bytes;
    int64_t count;
};

static int bad(struct reader *reader, const char *what)
{
    return status_set(reader->status, STATUS_BAD_INPUT, "%s", what);
}

/* The entry ROOT/NAME; NULL without a message if it is absent. */
static struct zip_entry *find_entry(struct reader *reader, const char *name, int name_length)
{
    char path[1024];
    int length = snprintf(path, sizeof path, "%.*s/%.*s", reader->root_length, reader->root,
                          name_length, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return NULL;
    return zip_find(&reader->checkpoint->archive, path);
}

/* The archive's one file named ROOT/data.pkl gives the root. */
static struct zip_entry *find_root(struct reader *reader)
{
    static const char suffix[] = "/data.pkl";
    size_t suffix_length = sizeof suffix - 1;
    struct zip *archive = &reader->checkpoint->archive;
    struct zip_entry *found = NULL;
    for (size_t i = 0; i < archive->count; i++) {
        struct zip_entry *entry = &archive->entries[i];
        if (entry->name_length <= suffix_length)
            continue;
        size_t root_length = entry->name_length - suffix_length;
        if (memcmp(entry->name + root_length, suffix, suffix_length) != 0 ||
            memchr(entry->name, '/', root_length))
            continue;
        if (found) {
            bad(reader, "a zip archive with two data.pkl: expected one PyTorch checkpoint");
            return NULL;
        }
        found = entry;
        reader->root = entry->name;
        reader->root_length = (int)root_length;
    }
    if (!found)
        bad(reader, "a zip archive without data.pkl: not a PyTorch checkpoint");
    return found;
}

static int require_plain(struct reader *reader, const struct zip_entry *entry)
{
    if (entry->plain)
        return STATUS_OK;
    return status_set(reader->status, STATUS_BAD_INPUT,
                      "\"%.*s\" in the archive is compressed or encrypted; PyTorch stores it "
                      "plainly: write the checkpoint again with torch.save",
                      (int)entry->name_length, entry->name);
}

static int check_byte_order(struct reader *reader)
{
    const struct zip_entry *entry = find_entry(reader, "byteorder", 9);
    if (!entry || (entry->plain && entry->size_bytes == 6 && !memcmp(entry->data, "little", 6)))
        return STATUS_OK;
    return bad(reader, "written on a big-endian machine: expected byte order \"little\"");
}

/* ('storage', torch.XStorage, key, location, count). False: not a storage we can name the type of;
 * with an error set, one that is damaged. */
static bool read_storage(struct reader *reader, struct pickle_value value, struct storage *storage)
{
    const struct pickle *pickle = &reader->pickle;
    const struct pickle_object *persistent = pickle_object(pickle, value, PICKLE_PERSISTENT);
    if (!persistent)
        return false;
    const struct pickle_object *id = pickle_object(pickle, persistent->a, PICKLE_TUPLE);
    if (!id || id->count < 5 || !pickle_text_is(pickle_item(pickle, id, 0), "storage"))
        return false;
    size_t type = 0, type_count = sizeof storage_types / sizeof *storage_types;
    struct pickle_value class = pickle_item(pickle, id, 1);
    while (type < type_count && !pickle_is_global(pickle, class, "torch", storage_types[type].name))
        type++;
    if (type == type_count)
        return false;
    struct pickle_value key = pickle_item(pickle, id, 2), count = pickle_item(pickle, id, 4);
    if (key.kind != PICKLE_TEXT || count.kind != PICKLE_INTEGER || count.integer < 0) {
        bad(reader, "damaged: its storage has no key or size");
        return false;
    }
    char name[256];
    int length = snprintf(name, sizeof name, "data/%.*s", (int)key.length, key.text);
    storage->entry = find_entry(reader, name, length);
    storage->type = storage_types[type].type;
    storage->element_bytes = storage_types[type].bytes;
    storage->count = count.integer;
    if (length < 0 || (size_t)length >= sizeof name || !storage->entry)
        bad(reader, "its storage is missing from the archive");
    else if (require_plain(reader, storage->entry) == STATUS_OK &&
             (uint64_t)storage->count >
                 storage->entry->size_bytes / (unsigned)storage->element_bytes)
        status_set(reader->status, STATUS_BAD_INPUT,
                   "truncated or damaged: its storage has %zu bytes, expected %lld elements of %d",
                   storage->entry->size_bytes, (long long)storage->count, storage->element_bytes);
    return status_ok(reader->status);
}

/* A tuple of non-negative integers. */
static int read_sizes(struct reader *reader, struct pickle_value value, int64_t *sizes, int *rank)
{
    const struct pickle_object *tuple = pickle_object(&reader->pickle, value, PICKLE_TUPLE);
    if (!tuple)
        return bad(reader, "damaged: its shape or strides are not a tuple");
    if (tuple->count > CHECKPOINT_MAX_RANK)
        return status_set(reader->status, STATUS_BAD_INPUT, "%zu dimensions: expected at most %d",
                          tuple->count, CHECKPOINT_MAX_RANK);
    for (size_t i = 0; i < tuple->count; i++) {
        struct pickle_value size = pickle_item(&reader->pickle, tuple, i);
        if (size.kind != PICKLE_INTEGER || size.integer < 0)
            return bad(reader, "damaged: its shape or strides are not sizes");
        sizes[i] = size.integer;
    }
    *rank = (int)tuple->count;
    return STATUS_OK;
}

/* Every element that shape and strides reach lies within the storage. */
static int check_reach(struct reader *reader, const struct checkpoint_tensor *tensor,
                       const struct storage *storage, int64_t offset)
{
    int64_t count = checkpoint_count_elements(tensor, (int64_t)reader->checkpoint->size_bytes);
    if (count < 0)
        return bad(reader, "damaged: its shape has more elements than the file has bytes");
    int64_t last = offset, distance;
    for (int i = 0; i < tensor->rank && count > 0; i++)
        if (__builtin_mul_overflow(tensor->shape[i] - 1, tensor->stride[i], &distance) ||
            __builtin_add_overflow(last, distance, &last))
            return bad(reader, "damaged: its strides overflow");
    if (offset > storage->count || (count > 0 && last >= storage->count))
        return status_set(reader->status, STATUS_BAD_INPUT,
                          "damaged: it reaches element %lld of a storage of %lld", (long long)last,
                          (long long)storage->count);
    return STATUS_OK;
}

/* A parameter wraps its tensor: _rebuild_parameter(tensor, requires_grad, hooks). */
static struct pickle_value unwrap_parameter(const struct pickle *pickle, struct pickle_value value)
{
    const struct pickle_object *call = pickle_object(pickle, value, PICKLE_CALL);
    if (!call ||
        !(pickle_is_global(pickle, call->a, "torch._utils", "_rebuild_parameter") ||
          pickle_is_global(pickle, call->a, "torch._utils", "_rebuild_parameter_with_state")))
        return value;
    const struct pickle_object *arguments = pickle_object(pickle, call->b, PICKLE_TUPLE);
    return arguments ? pickle_item(pickle, arguments, 0) : value;
}

/* _rebuild_tensor_v2(storage, offset, shape, strides, ...). False: something else than a tensor, or
 * an error. */
static bool read_tensor(struct reader *reader, struct pickle_value value,
                        struct checkpoint_entry *entry)
{
    const struct pickle *pickle = &reader->pickle;
    const struct pickle_object *call =
        pickle_object(pickle, unwrap_parameter(pickle, value), PICKLE_CALL);
    if (!call || !(pickle_is_global(pickle, call->a, "torch._utils", "_rebuild_tensor_v2") ||
                   pickle_is_global(pickle, call->a, "torch._utils", "_rebuild_tensor")))
        return false;
    const struct pickle_object *arguments = pickle_object(pickle, call->b, PICKLE_TUPLE);
    if (!arguments || arguments->count < 4) {
        bad(reader, "damaged: it lacks its storage, offset, shape or strides");
        return false;
    }
    struct storage storage;
    if (!read_storage(reader, pickle_item(pickle, arguments, 0), &storage))
        return false;
    struct checkpoint_tensor *tensor = &entry->tensor;
    struct pickle_value offset = pickle_item(pickle, arguments, 1);
    int stride_count = 0;
    if (offset.kind != PICKLE_INTEGER || offset.integer < 0)
        bad(reader, "damaged: its offset is not a size");
    else if (read_sizes(reader, pickle_item(pickle, arguments, 2), tensor->shape, &tensor->rank) ==
                 STATUS_OK &&
             read_sizes(reader, pickle_item(pickle, arguments, 3), tensor->stride, &stride_count) ==
                 STATUS_OK) {
        if (stride_count != tensor->rank)
            bad(reader, "damaged: its shape and strides differ in length");
        else if (check_reach(reader, tensor, &storage, offset.integer) == STATUS_OK)
            tensor->data = storage.entry->data + offset.integer * storage.element_bytes;
    }
    tensor->type = storage.type;
    entry->storage = storage.entry;
    return status_ok(reader->status);
}

/* A dict, or an OrderedDict or other class that pairs were set on. */
static const struct pickle_object *as_dictionary(const struct pickle *pickle,
                                                 struct pickle_value value)
{
    const struct pickle_object *object = pickle_object(pickle, value, PICKLE_DICTIONARY);
    if (object)
        return object;
    object = pickle_object(pickle, value, PICKLE_CALL);
    if (object && pickle_is_global(pickle, object->a, "collections", "OrderedDict"))
        return object;
    return NULL;
}

static const struct pickle_object *find_state_dictionary(struct reader *reader)
{
    const struct pickle *pickle = &reader->pickle;
    const struct pickle_object *outermost = as_dictionary(pickle, pickle->result);
    if (!outermost) {
        bad(reader, "its outermost object is not a dictionary: expected the tensors of a "
                    "state_dict; write it again with torch.save(model.state_dict(), ...)");
        return NULL;
    }
    const struct pickle_object *found = outermost;
    for (size_t i = outermost->first_item; i && pickle->items[i].next;) {
        size_t value = pickle->items[i].next;
        const struct pickle_object *inner = as_dictionary(pickle, pickle->items[value].value);
        if (inner && pickle_text_is(pickle->items[i].value, "state_dict"))
            found = inner;
        i = pickle->items[value].next;
    }
    return found;
}

static int read_tensors(struct reader *reader)
{
    struct checkpoint *checkpoint = reader->checkpoint;
    const struct pickle *pickle = &reader->pickle;
    const struct pickle_object *dictionary = find_state_dictionary(reader);
    if (!dictionary)
        return reader->status->code;
    checkpoint->entries = status_calloc(reader->status, dictionary->count / 2,
                                        sizeof *checkpoint->entries, "tensors");
    if (!checkpoint->entries)
        return reader->status->code;
    for (size_t i = dictionary->first_item; i && pickle->items[i].next;) {
        struct pickle_value key = pickle->items[i].value;
        size_t value = pickle->items[i].next;
        struct checkpoint_entry *entry = &checkpoint->entries[checkpoint->count];
        if (key.kind == PICKLE_TEXT && read_tensor(reader, pickle->items[value].value, entry)) {
            entry->tensor.name = key.text;
            entry->name_length = key.length;
            checkpoint->count++;
        }
        if (!status_ok(reader->status)) {
            status_prefix(reader->status, "tensor \"%.*s\"", (int)key.length, key.text);
            return reader->status->code;
        }
        i = pickle->items[value].next;
    }
    return STATUS_OK;
}

int pytorch_read(struct checkpoint *checkpoint, struct status *status)
{
    struct reader reader = {.checkpoint = checkpoint, .status = status};
    checkpoint->format = "pytorch-zip";
    if (zip_read(&checkpoint->archive, checkpoint->bytes, checkpoint->size_bytes, status) !=
        STATUS_OK)
        return status->code;
    struct zip_entry *entry = find_root(&reader);
    if (!entry || require_plain(&reader, entry) != STATUS_OK ||
        zip_verify(entry, status) != STATUS_OK || check_byte_order(&reader) != STATUS_OK)
        return status->code;
    if (pickle_read(&reader.pickle, entry->data, entry->size_bytes, status) == STATUS_OK)
        read_tensors(&reader);
    pickle_free(&reader.pickle);
    return status->code;
}
