#include "model/zip.h"
#include "model/bytes.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* PKWARE's APPNOTE 4.3: record signatures and sizes without their variable parts. */
enum {
    LOCAL_SIGNATURE = 0x04034b50,
    CENTRAL_SIGNATURE = 0x02014b50,
    END_SIGNATURE = 0x06054b50,
    END64_SIGNATURE = 0x06064b50,
    LOCATOR64_SIGNATURE = 0x07064b50,
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR64_BYTES = 20,
    ZIP64_EXTRA = 1,
    FLAG_ENCRYPTED = 1
};

struct directory {
    uint64_t offset, size, count;
};

static int damaged(struct status *status, const char *what)
{
    return status_set(status, STATUS_BAD_INPUT, "truncated or damaged zip archive: %s", what);
}

static int find_end(const unsigned char *bytes, size_t size, size_t *end, struct status *status)
{
    size_t longest_comment = 0xffff;
    for (size_t comment = 0; comment <= longest_comment && comment + END_BYTES <= size; comment++) {
        *end = size - END_BYTES - comment;
        if (load_u32(bytes + *end) == END_SIGNATURE && load_u16(bytes + *end + 20) == comment)
            return STATUS_OK;
    }
    return damaged(status, "it does not end with a zip directory");
}

static int find_directory64(const unsigned char *bytes, size_t end, struct directory *directory,
                            struct status *status)
{
    if (end < LOCATOR64_BYTES || load_u32(bytes + end - LOCATOR64_BYTES) != LOCATOR64_SIGNATURE)
        return damaged(status, "no zip64 locator");
    uint64_t offset = load_u64(bytes + end - LOCATOR64_BYTES + 8);
    if (!range_is_inside(offset, END64_BYTES, end - LOCATOR64_BYTES) ||
        load_u32(bytes + offset) != END64_SIGNATURE)
        return damaged(status, "the zip64 locator points elsewhere than at the zip64 directory");
    directory->count = load_u64(bytes + offset + 32);
    directory->size = load_u64(bytes + offset + 40);
    directory->offset = load_u64(bytes + offset + 48);
    return STATUS_OK;
}

static int find_directory(const unsigned char *bytes, size_t size, struct directory *directory,
                          struct status *status)
{
    size_t end = 0;
    if (find_end(bytes, size, &end, status) != STATUS_OK)
        return status->code;
    directory->count = load_u16(bytes + end + 10);
    directory->size = load_u32(bytes + end + 12);
    directory->offset = load_u32(bytes + end + 16);
    if ((directory->count == 0xffff || directory->size == 0xffffffff ||
         directory->offset == 0xffffffff) &&
        find_directory64(bytes, end, directory, status) != STATUS_OK)
        return status->code;
    if (!range_is_inside(directory->offset, directory->size, end) ||
        directory->count > directory->size / CENTRAL_BYTES)
        return damaged(status, "its directory does not fit into the file");
    return STATUS_OK;
}

/* Fields that are all ones in a directory record stand in its zip64 extra field, in this order. */
static bool read_extra64(const unsigned char *extra, size_t length, uint64_t *fields[3])
{
    while (length >= 4) {
        size_t id = load_u16(extra), size = load_u16(extra + 2);
        extra += 4;
        length -= 4;
        if (size > length)
            return false;
        if (id == ZIP64_EXTRA)
            break;
        extra += size;
        length -= size;
    }
    for (int i = 0; i < 3; i++) {
        if (*fields[i] != 0xffffffff)
            continue;
        if (length < 8)
            return false;
        *fields[i] = load_u64(extra);
        extra += 8;
        length -= 8;
    }
    return true;
}

/* Where an entry's data lie: behind the local header, which must name the same file. */
static int locate_data(struct zip_entry *entry, const unsigned char *bytes, uint64_t limit,
                       uint64_t offset, uint64_t size, struct status *status)
{
    if (!range_is_inside(offset, LOCAL_BYTES, limit) || load_u32(bytes + offset) != LOCAL_SIGNATURE)
        return damaged(status, "a directory record points elsewhere than at a file");
    uint64_t name_length = load_u16(bytes + offset + 26);
    uint64_t start = offset + LOCAL_BYTES + name_length + load_u16(bytes + offset + 28);
    if (!range_is_inside(start, size, limit))
        return damaged(status, "a file in it reaches beyond its end");
    if (name_length != entry->name_length ||
        memcmp(bytes + offset + LOCAL_BYTES, entry->name, name_length) != 0)
        return damaged(status, "a file's name differs from the directory's");
    entry->data = bytes + start;
    entry->size_bytes = size;
    return STATUS_OK;
}

/* Reads the record at `record`, with `left` bytes to the directory's end; its length goes to
 * `length`. */
static int read_record(struct zip_entry *entry, const unsigned char *bytes, uint64_t limit,
                       const unsigned char *record, size_t left, size_t *length,
                       struct status *status)
{
    if (left < CENTRAL_BYTES || load_u32(record) != CENTRAL_SIGNATURE)
        return damaged(status, "a directory record is missing");
    size_t name_length = load_u16(record + 28), extra_length = load_u16(record + 30);
    *length = CENTRAL_BYTES + name_length + extra_length + load_u16(record + 32);
    if (*length > left)
        return damaged(status, "a directory record reaches beyond the directory");
    uint64_t compressed = load_u32(record + 20), size = load_u32(record + 24);
    uint64_t offset = load_u32(record + 42);
    uint64_t *fields[3] = {&size, &compressed, &offset};
    if (!read_extra64(record + CENTRAL_BYTES + name_length, extra_length, fields))
        return damaged(status, "a directory record lacks its 64-bit sizes");
    unsigned method = load_u16(record + 10), flags = load_u16(record + 8);
    entry->name = (const char *)record + CENTRAL_BYTES;
    entry->name_length = name_length;
    entry->crc32 = load_u32(record + 16);
    entry->plain = method == 0 && !(flags & FLAG_ENCRYPTED);
    if (entry->plain && size != compressed)
        return damaged(status, "a stored file has two sizes");
    return locate_data(entry, bytes, limit, offset, compressed, status);
}

static int compare_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_entries(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return compare_names(x->name, x->name_length, y->name, y->name_length);
}

int zip_read(struct zip *zip, const unsigned char *bytes, size_t size, struct status *status)
{
    struct directory directory = {0};
    if (find_directory(bytes, size, &directory, status) != STATUS_OK)
        return status->code;
    zip->count = directory.count;
    zip->entries =
        status_calloc(status, zip->count, sizeof *zip->entries, "the directory of a zip archive");
    if (!zip->entries)
        return status->code;
    const unsigned char *record = bytes + directory.offset;
    size_t left = directory.size, length = 0;
    for (size_t i = 0; i < zip->count; i++) {
        if (read_record(&zip->entries[i], bytes, directory.offset, record, left, &length, status) !=
            STATUS_OK)
            return status->code;
        record += length;
        left -= length;
    }
    qsort(zip->entries, zip->count, sizeof *zip->entries, compare_entries);
    for (size_t i = 1; i < zip->count; i++)
        if (compare_entries(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return damaged(status, "two files in it have one name");
    return STATUS_OK;
}

void zip_free(struct zip *zip)
{
    free(zip->entries);
    *zip = (struct zip){0};
}

struct zip_entry *zip_find(const struct zip *zip, const char *name)
{
    struct zip_entry wanted = {.name = name, .name_length = strlen(name)};
    return bsearch(&wanted, zip->entries, zip->count, sizeof wanted, compare_entries);
}

int zip_verify(struct zip_entry *entry, struct status *status)
{
    if (entry->verified || entry->crc32 == 0)
        return STATUS_OK;
    if (crc32_z(0, entry->data, entry->size_bytes) != entry->crc32)
        return status_set(status, STATUS_BAD_INPUT,
                          "damaged: \"%.*s\" in the archive does not match its checksum",
                          (int)entry->name_length, entry->name);
    entry->verified = true;
    return STATUS_OK;
}
