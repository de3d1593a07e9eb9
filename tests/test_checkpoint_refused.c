/* Checkpoints that must be refused with a message that says why, and odd ones that must not. */
#include "model/checkpoint_file.h"
#include "tests/support/archive.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/data/checkpoint/"

static void refuse(const void *bytes, size_t length, const char *message)
{
    struct status status = {0};
    unsigned char *exact = malloc(length ? length : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, length);
    struct checkpoint *checkpoint = checkpoint_open_memory(exact, length, "FILE", &status);
    if (checkpoint)
        fail_msg("accepted, expected \"%s\"", message);
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    if (strncmp(status.message, "FILE: ", 6) != 0 || !strstr(status.message, message))
        fail_msg("\"%s\" does not say \"%s\"", status.message, message);
    free(exact);
}

static void test_other_files(void **state)
{
    (void)state;
    unsigned char tar[512] = {0}, *bytes;
    size_t length;
    struct status status = {0};
    memcpy(tar + 257, "ustar", 5);
    refuse("", 0, "empty file");
    refuse("hello, world", 12, "neither a PyTorch zip checkpoint nor a safetensors file");
    refuse(tar, sizeof tar, "a tar archive");
    refuse("\x80\x02}.", 4, "a bare pickle");
    refuse("<!DOCTYPE html>", 15, "web page");
    refuse("version https://git-lfs.github.com/spec/v1", 42, "git lfs pull");
    bytes = mutate_load(DATA "before_1_6.pt", &length);
    assert_non_null(bytes);
    refuse(bytes, length, "before PyTorch 1.6");
    free(bytes);
    assert_null(checkpoint_open("tests/data/none.ckpt", &status));
    assert_string_equal(status.message, "tests/data/none.ckpt: No such file or directory");
    status = (struct status){0};
    assert_null(checkpoint_open("tests/data", &status));
    assert_string_equal(status.message, "tests/data: not a regular file");
}

static void test_truncated(void **state)
{
    (void)state;
    size_t length;
    unsigned char *bytes = mutate_load(DATA "types.pt", &length);
    assert_non_null(bytes);
    refuse(bytes, length - 1, "truncated");
    refuse(bytes, length / 2, "truncated");
    free(bytes);
    bytes = mutate_load(DATA "types.safetensors", &length);
    assert_non_null(bytes);
    refuse(bytes, length - 1, "tensor \"bytes\": truncated");
    refuse(bytes, 100, "truncated or damaged safetensors file");
    free(bytes);
}

static const float storage[6] = {1, 2, 3, 4, 5, 6};

static void refuse_tensors(const struct tensor_record *tensors, int count, const char *message)
{
    struct bytes pickle = pickle_tensors(tensors, count);
    struct bytes archive = archive_checkpoint(pickle, storage, sizeof storage);
    refuse(archive.data, archive.length, message);
    bytes_free(&archive);
    bytes_free(&pickle);
}

static void refuse_tensor(struct tensor_record tensor, const char *message)
{
    refuse_tensors(&tensor, 1, message);
}

#define SIZES(...) ((const int64_t[]){__VA_ARGS__})

static void test_hostile_tensors(void **state)
{
    (void)state;
    const struct tensor_record good = {"w", "FloatStorage", "0",         6, 0,
                                       2,   SIZES(2, 3),    SIZES(3, 1), 0};
    struct tensor_record bad = good;
    const int64_t most = INT64_MAX;
    bad.numel = 7;
    refuse_tensor(bad, "tensor \"w\": truncated or damaged: its storage has 24 bytes");
    bad.numel = -1;
    refuse_tensor(bad, "no key or size");
    bad = good, bad.numel = 5;
    refuse_tensor(bad, "it reaches element 5 of a storage of 5");
    bad = good, bad.offset = 1;
    refuse_tensor(bad, "it reaches element 6 of a storage of 6");
    bad.offset = most;
    refuse_tensor(bad, "its strides overflow");
    bad.offset = -1;
    refuse_tensor(bad, "its offset is not a size");
    bad = good, bad.stride = SIZES(3, most);
    refuse_tensor(bad, "its strides overflow");
    bad.stride = SIZES(most / 2 + 1, 1);
    refuse_tensor(bad, "it reaches element");
    bad.stride = SIZES(3, -1);
    refuse_tensor(bad, "not sizes");
    bad = good, bad.shape = SIZES(-2, 3);
    refuse_tensor(bad, "not sizes");
    bad.shape = SIZES(most, most), bad.stride = SIZES(0, 0);
    refuse_tensor(bad, "more elements than the file has bytes");
    bad.shape = SIZES(0, most), bad.offset = 7;
    refuse_tensor(bad, "of a storage of 6");
    bad = good, bad.rank = 9, bad.shape = SIZES(1, 1, 1, 1, 1, 1, 1, 1, 1), bad.stride = bad.shape;
    refuse_tensor(bad, "9 dimensions: expected at most 8");
    bad = good, bad.strides_left_out = 1;
    refuse_tensor(bad, "its shape and strides differ in length");
    bad = good, bad.key = "1";
    refuse_tensor(bad, "its storage is missing from the archive");
    bad = good, bad.name = "w\n";
    refuse_tensor(bad, "control character");
    bad = good, bad.type = "StrangeStorage";
    refuse_tensor(bad, "no tensors in it");
    const struct tensor_record twice[] = {
        good, {"v", "IntStorage", "0", 6, 0, 0, NULL, NULL, 0}, good};
    refuse_tensors(twice, 3, "tensor \"w\" is there twice");
}

/* Strides that reach no further than they may, however large. */
static void test_tolerated_tensors(void **state)
{
    (void)state;
    const struct tensor_record tensors[] = {
        {"one", "FloatStorage", "0", 6, 5, 2, SIZES(1, 1), SIZES(INT64_MAX, INT64_MAX), 0},
        {"column", "FloatStorage", "0", 6, 0, 3, SIZES(1, 3, 1), SIZES(INT64_MAX, 2, INT64_MAX), 0},
        {"none", "FloatStorage", "0", 6, 6, 2, SIZES(0, INT64_MAX), SIZES(INT64_MAX, 1), 0}};
    struct bytes pickle = pickle_tensors(tensors, 3);
    struct bytes archive = archive_checkpoint(pickle, storage, sizeof storage);
    struct status status = {0};
    struct checkpoint *checkpoint =
        checkpoint_open_memory(archive.data, archive.length, "FILE", &status);
    if (!checkpoint)
        fail_msg("%s", status.message);
    float values[3] = {0};
    checkpoint_read(checkpoint_find(checkpoint, "none"), values);
    assert_true(values[0] == 0);
    checkpoint_read(checkpoint_find(checkpoint, "one"), values);
    assert_true(values[0] == 6);
    checkpoint_read(checkpoint_find(checkpoint, "column"), values);
    assert_true(values[0] == 1 && values[1] == 3 && values[2] == 5);
    checkpoint_close(checkpoint);
    bytes_free(&archive);
    bytes_free(&pickle);
}

static void refuse_pickle(const char *opcodes, size_t length, const char *message)
{
    struct bytes pickle = {0};
    bytes_append(&pickle, opcodes, length);
    struct bytes archive = archive_checkpoint(pickle, storage, sizeof storage);
    refuse(archive.data, archive.length, message);
    bytes_free(&archive);
    bytes_free(&pickle);
}

#define REFUSE_PICKLE(opcodes, message) refuse_pickle(opcodes, sizeof(opcodes) - 1, message)

static void test_hostile_pickles(void **state)
{
    (void)state;
    REFUSE_PICKLE("", "a pickle of 0 bytes");
    REFUSE_PICKLE("\x80\x02}", "it ends without a STOP (opcode 0x7d at byte 2)");
    REFUSE_PICKLE("\x80\x09}.", "unknown protocol");
    REFUSE_PICKLE(".", "a value that is not there");
    REFUSE_PICKLE("(.", "a value that is not there");
    REFUSE_PICKLE("N}s.", "something that holds none");
    REFUSE_PICKLE("N\x86.", "a value that is not there");
    REFUSE_PICKLE("0", "a value that is not there");
    REFUSE_PICKLE("}t.", "a mark that is not there");
    REFUSE_PICKLE("}(Nu.", "a key has no value");
    REFUSE_PICKLE("(NNNd.", "a key has no value");
    REFUSE_PICKLE("N(NNu.", "something that holds none");
    REFUSE_PICKLE("}Na.", "something that holds none");
    REFUSE_PICKLE("(NNu.", "something that holds none");
    REFUSE_PICKLE("]NNs.", "something that holds none");
    REFUSE_PICKLE("}r\xff\xff\xff\xff.", "memo index is too large");
    REFUSE_PICKLE("h\x01.", "a memo entry that is not there");
    REFUSE_PICKLE("}q\x02h\x01.", "a memo entry that is not there");
    REFUSE_PICKLE("X\xff\xff\xff\x7f", "it ends within an opcode");
    REFUSE_PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "it ends within an opcode");
    REFUSE_PICKLE("cos\nsystem", "it ends within an opcode");
    REFUSE_PICKLE("(ios\nsystem\n.", "an opcode that state dicts have no use for (opcode 0x69");
    REFUSE_PICKLE("cos\nsystem\n(X\x02\x00\x00\x00lstR.",
                  "its outermost object is not a dictionary");
    REFUSE_PICKLE("N.", "its outermost object is not a dictionary");
    REFUSE_PICKLE("}.", "no tensors in it");
    REFUSE_PICKLE("}2\x86.", "its outermost object is not a dictionary");
    REFUSE_PICKLE("}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n)Rs.",
                  "tensor \"w\": damaged: it lacks its storage");
}

/* A dictionary that holds itself and a million nested tuples are read without recursion. */
static void test_nested_pickles(void **state)
{
    (void)state;
    struct bytes pickle = {0};
    bytes_append(&pickle, "}2q\0X\1\0\0\0xh\0sN", 14);
    size_t depth = 1000000;
    unsigned char *tuples = malloc(depth);
    assert_non_null(tuples);
    memset(tuples, 0x85, depth);
    bytes_append(&pickle, tuples, depth);
    bytes_append(&pickle, "0.", 2);
    struct bytes archive = archive_checkpoint(pickle, storage, sizeof storage);
    refuse(archive.data, archive.length, "no tensors in it");
    free(tuples);
    bytes_free(&archive);
    bytes_free(&pickle);
}

static void refuse_archive(const struct archive_file *files, int count, const char *message)
{
    for (int zip64 = 0; zip64 < 2; zip64++) {
        struct bytes archive = archive_build(files, count, zip64);
        refuse(archive.data, archive.length, message);
        bytes_free(&archive);
    }
}

static void test_hostile_archives(void **state)
{
    (void)state;
    const struct tensor_record good = {"w", "FloatStorage", "0",         6, 0,
                                       2,   SIZES(2, 3),    SIZES(3, 1), 0};
    struct bytes pickle = pickle_tensors(&good, 1);
    const struct archive_file files[] = {{"r/data.pkl", pickle.data, pickle.length, 0},
                                         {"r/data/0", storage, sizeof storage, 0},
                                         {"r/data/0", storage, sizeof storage, 0}};
    struct archive_file changed[3];
    refuse_archive(files, 0, "without data.pkl");
    refuse_archive(files + 1, 1, "without data.pkl");
    refuse_archive(files, 3, "two files in it have one name");
    memcpy(changed, files, sizeof files);
    changed[2].name = "s/data.pkl";
    refuse_archive(changed, 3, "two data.pkl");
    changed[2] = (struct archive_file){"r/byteorder", "big", 3, 0};
    refuse_archive(changed, 3, "big-endian");
    changed[0].method = 8;
    refuse_archive(changed, 2, "\"r/data.pkl\" in the archive is compressed");
    changed[0].method = 0, changed[1].method = 8;
    refuse_archive(changed, 2, "\"r/data/0\" in the archive is compressed");
    bytes_free(&pickle);
}

static unsigned char *find_last(struct bytes archive, const char *signature)
{
    size_t i = archive.length - 4;
    while (memcmp(archive.data + i, signature, 4) != 0)
        i--;
    return archive.data + i;
}

/* Directory records that are cut short where a careless reader would go on. */
static void test_cut_records(void **state)
{
    (void)state;
    const char *const names[] = {"r/long_name_0", "r/long_name_1", "r/long_name_2",
                                 "r/long_name_3"};
    struct archive_file files[4];
    for (int i = 0; i < 4; i++)
        files[i] = (struct archive_file){names[i], storage, sizeof storage, 0};
    struct bytes archive = archive_build(files, 4, true);
    find_last(archive, "PK\1\2")[46 + 13] = 2; /* the extra field's kind */
    refuse(archive.data, archive.length, "a directory record lacks its 64-bit sizes");
    bytes_free(&archive);

    archive = archive_build(files, 4, false);
    unsigned char end[22];
    archive.length -= sizeof end;
    memcpy(end, archive.data + archive.length, sizeof end);
    end[10] = 5;  /* one more record, */
    end[12] += 4; /* of four bytes */
    bytes_append(&archive, "PK\1\2", 4);
    bytes_append(&archive, end, sizeof end);
    refuse(archive.data, archive.length, "a directory record is missing");
    find_last(archive, "PK\5\6")[10] = 4;
    find_last(archive, "PK\5\6")[12] -= 5;
    refuse(archive.data, archive.length, "a directory record reaches beyond the directory");
    bytes_free(&archive);
}

/* A 64-bit archive says the same as a plain one; a changed byte does not match the checksum. */
static void test_zip64_and_checksums(void **state)
{
    (void)state;
    const struct tensor_record good = {"w", "FloatStorage", "0",         6, 1,
                                       2,   SIZES(2, 2),    SIZES(3, 1), 0};
    struct bytes pickle = pickle_tensors(&good, 1);
    const struct archive_file files[] = {{"r/data/0", storage, sizeof storage, 0},
                                         {"r/data.pkl", pickle.data, pickle.length, 0}};
    struct bytes archive = archive_build(files, 2, true);
    struct status status = {0};
    struct checkpoint *checkpoint =
        checkpoint_open_memory(archive.data, archive.length, "FILE", &status);
    if (!checkpoint)
        fail_msg("%s", status.message);
    const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, "w");
    float values[4];
    checkpoint_read(tensor, values);
    assert_true(values[0] == 2 && values[1] == 3 && values[2] == 5 && values[3] == 6);
    archive.data[tensor->data - archive.data] ^= 1;
    assert_int_equal(checkpoint_verify(checkpoint, tensor, &status), STATUS_BAD_INPUT);
    assert_string_equal(status.message, "FILE: tensor \"w\": damaged: \"r/data/0\" in the archive "
                                        "does not match its checksum");
    checkpoint_close(checkpoint);
    for (size_t i = 0; i + 3 < archive.length; i++)
        if (memcmp(archive.data + i, "\x80\x02}(", 4) == 0)
            archive.data[i + 1] = 3;
    refuse(archive.data, archive.length, "\"r/data.pkl\" in the archive does not match");
    bytes_free(&archive);
    bytes_free(&pickle);
}

static void refuse_header(const char *header, size_t data_bytes, const char *message)
{
    struct bytes file = {0};
    bytes_append_integer(&file, strlen(header), 8);
    bytes_append(&file, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++)
        bytes_append(&file, "", 1);
    refuse(file.data, file.length, message);
    bytes_free(&file);
}

#define TENSOR(name, type, shape, offsets)                                                         \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_hostile_safetensors(void **state)
{
    (void)state;
    refuse_header("{}", 0, "no tensors in it");
    refuse_header("{\"a\":", 0, "its header is not JSON (at byte 5)");
    refuse_header("{\"a\":1}", 0, "tensor \"a\": expected an object of \"dtype\"");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"x\":1}}", 4, "no \"data_offsets\"");
    refuse_header("{" TENSOR("a", "F33", "[1]", "[0,4]") "}", 4, "unknown \"dtype\" F33");
    refuse_header("{" TENSOR("a", "F32", "1", "[0,4]") "}", 4, "no \"shape\" list");
    refuse_header("{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, "something else than sizes");
    refuse_header("{" TENSOR("a", "F32", "[1.5]", "[0,4]") "}", 4, "something else than sizes");
    refuse_header("{" TENSOR("a", "F32", "[1e300]", "[0,4]") "}", 4, "something else than sizes");
    refuse_header("{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "more than 8");
    refuse_header("{" TENSOR("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0,
                  "more elements than the file has bytes");
    refuse_header("{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "make 8 bytes, its offsets 4");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, "no \"data_offsets\"");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[-4,0]") "}", 4, "no \"data_offsets\"");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[0]") "}", 4, "no \"data_offsets\"");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[1,5]") "}", 4, "ends at byte 5 of the data");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[2,6]") "}",
                  6, "tensor \"b\" overlaps");
    refuse_header(
        "{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[6,10]") "}", 10,
        "tensor \"b\" leaves a hole");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 5, "bytes that belong to no tensor");
    refuse_header("{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}",
                  8, "tensor \"a\" is there twice");
    refuse_header("{\"__metadata__\":1}", 0, "\"__metadata__\" is not an object");
    refuse_header("{\"__metadata__\":{\"a\":1}}", 0, "\"a\" is not a string");
    refuse_header("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "is there twice");
    struct bytes deep = {0};
    bytes_append(&deep, "{\"a\":", 5);
    for (int i = 0; i < 100000; i++)
        bytes_append(&deep, "[", 1);
    bytes_append(&deep, "", 1);
    refuse_header((const char *)deep.data, 0, "its header is not JSON");
    bytes_free(&deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_files),         cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_hostile_tensors),     cmocka_unit_test(test_tolerated_tensors),
        cmocka_unit_test(test_hostile_pickles),     cmocka_unit_test(test_nested_pickles),
        cmocka_unit_test(test_hostile_archives),    cmocka_unit_test(test_cut_records),
        cmocka_unit_test(test_zip64_and_checksums), cmocka_unit_test(test_hostile_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
