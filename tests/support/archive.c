#include "tests/support/archive.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

void bytes_append(struct bytes *bytes, const void *data, size_t length)
{
    if (bytes->capacity - bytes->length < length) {
        bytes->capacity = (bytes->length + length) * 2;
        bytes->data = realloc(bytes->data, bytes->capacity);
        if (!bytes->data)
            abort();
    }
    if (length > 0)
        memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

void bytes_append_integer(struct bytes *bytes, uint64_t value, int width)
{
    unsigned char digits[8];
    for (int i = 0; i < width; i++)
        digits[i] = (unsigned char)(value >> (8 * i));
    bytes_append(bytes, digits, (size_t)width);
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

/* What local and directory records share: version, flags, method, time, date, checksum, sizes, and
 * the lengths of name and extra field. */
static void append_common(struct bytes *bytes, const struct archive_file *file, size_t extra,
                          bool zip64)
{
    uint64_t size = zip64 ? 0xffffffff : file->length;
    bytes_append_integer(bytes, zip64 ? 45 : 20, 2);
    bytes_append_integer(bytes, 0, 2);
    bytes_append_integer(bytes, (uint64_t)file->method, 2);
    bytes_append_integer(bytes, 0, 4);
    bytes_append_integer(bytes, crc32(0, file->data, (unsigned)file->length), 4);
    bytes_append_integer(bytes, size, 4);
    bytes_append_integer(bytes, size, 4);
    bytes_append_integer(bytes, strlen(file->name), 2);
    bytes_append_integer(bytes, extra, 2);
}

static void append_extra64(struct bytes *bytes, const struct archive_file *file, bool with_offset,
                           uint64_t offset)
{
    bytes_append_integer(bytes, 1, 2);
    bytes_append_integer(bytes, with_offset ? 24 : 16, 2);
    bytes_append_integer(bytes, file->length, 8);
    bytes_append_integer(bytes, file->length, 8);
    if (with_offset)
        bytes_append_integer(bytes, offset, 8);
}

static void append_directory_record(struct bytes *bytes, const struct archive_file *file,
                                    uint64_t offset, bool zip64)
{
    bytes_append(bytes, "PK\1\2\55\0", 6);
    append_common(bytes, file, zip64 ? 28 : 0, zip64);
    bytes_append(bytes, "\0\0\0\0\0\0\0\0\0", 10); /* comment, disk, attributes */
    bytes_append_integer(bytes, zip64 ? 0xffffffff : offset, 4);
    bytes_append(bytes, file->name, strlen(file->name));
    if (zip64)
        append_extra64(bytes, file, true, offset);
}

static void append_end64(struct bytes *bytes, uint64_t count, uint64_t size, uint64_t offset)
{
    uint64_t end64 = bytes->length;
    bytes_append(bytes, "PK\6\6", 4);
    bytes_append_integer(bytes, 44, 8);
    bytes_append_integer(bytes, 45, 2);
    bytes_append_integer(bytes, 45, 2);
    bytes_append_integer(bytes, 0, 8);
    bytes_append_integer(bytes, count, 8);
    bytes_append_integer(bytes, count, 8);
    bytes_append_integer(bytes, size, 8);
    bytes_append_integer(bytes, offset, 8);
    bytes_append(bytes, "PK\6\7\0\0\0\0", 8);
    bytes_append_integer(bytes, end64, 8);
    bytes_append_integer(bytes, 1, 4);
}

struct bytes archive_build(const struct archive_file *files, int count, bool zip64)
{
    struct bytes archive = {0}, directory = {0};
    for (int i = 0; i < count; i++) {
        append_directory_record(&directory, &files[i], archive.length, zip64);
        bytes_append(&archive, "PK\3\4", 4);
        append_common(&archive, &files[i], zip64 ? 20 : 0, zip64);
        bytes_append(&archive, files[i].name, strlen(files[i].name));
        if (zip64)
            append_extra64(&archive, &files[i], false, 0);
        bytes_append(&archive, files[i].data, files[i].length);
    }
    uint64_t offset = archive.length;
    bytes_append(&archive, directory.data, directory.length);
    if (zip64)
        append_end64(&archive, (uint64_t)count, directory.length, offset);
    bytes_append(&archive, "PK\5\6\0\0\0\0", 8);
    bytes_append_integer(&archive, zip64 ? 0xffff : (uint64_t)count, 2);
    bytes_append_integer(&archive, zip64 ? 0xffff : (uint64_t)count, 2);
    bytes_append_integer(&archive, zip64 ? 0xffffffff : directory.length, 4);
    bytes_append_integer(&archive, zip64 ? 0xffffffff : offset, 4);
    bytes_append_integer(&archive, 0, 2);
    bytes_free(&directory);
    return archive;
}

struct bytes archive_checkpoint(struct bytes pickle, const void *storage, size_t storage_length)
{
    struct archive_file files[] = {{"r/data.pkl", pickle.data, pickle.length, 0},
                                   {"r/byteorder", "little", 6, 0},
                                   {"r/data/0", storage, storage_length, 0}};
    return archive_build(files, 3, false);
}

static void append_text(struct bytes *pickle, const char *text)
{
    bytes_append(pickle, "X", 1);
    bytes_append_integer(pickle, strlen(text), 4);
    bytes_append(pickle, text, strlen(text));
}

static void append_number(struct bytes *pickle, int64_t value)
{
    bytes_append(pickle, "\x8a\x08", 2);
    bytes_append_integer(pickle, (uint64_t)value, 8);
}

static void append_sizes(struct bytes *pickle, const int64_t *sizes, int count)
{
    bytes_append(pickle, "(", 1);
    for (int i = 0; i < count; i++)
        append_number(pickle, sizes[i]);
    bytes_append(pickle, "t", 1);
}

static void append_tensor(struct bytes *pickle, const struct tensor_record *tensor)
{
    static const char rebuild[] = "ctorch._utils\n_rebuild_tensor_v2\n((";
    append_text(pickle, tensor->name);
    bytes_append(pickle, rebuild, sizeof rebuild - 1);
    append_text(pickle, "storage");
    bytes_append(pickle, "ctorch\n", 7);
    bytes_append(pickle, tensor->type, strlen(tensor->type));
    bytes_append(pickle, "\n", 1);
    append_text(pickle, tensor->key);
    append_text(pickle, "cpu");
    append_number(pickle, tensor->numel);
    bytes_append(pickle, "tQ", 2);
    append_number(pickle, tensor->offset);
    append_sizes(pickle, tensor->shape, tensor->rank);
    append_sizes(pickle, tensor->stride, tensor->rank - tensor->strides_left_out);
    bytes_append(pickle, "\x89NtR", 4);
}

struct bytes pickle_tensors(const struct tensor_record *tensors, int count)
{
    struct bytes pickle = {0};
    bytes_append(&pickle, "\x80\x02}(", 4);
    for (int i = 0; i < count; i++)
        append_tensor(&pickle, &tensors[i]);
    bytes_append(&pickle, "u.", 2);
    return pickle;
}
