/* 10,000 mutations of each kind of checkpoint are read, or refused with one line, without a crash.
 */
#include "model/checkpoint_file.h"
#include "model/pickle.h"
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

enum { MUTATIONS = 10000 };

/* Uses all that a reader of the checkpoint would, and closes it. */
static int exercise(struct checkpoint *checkpoint, const struct status *status)
{
    if (!checkpoint)
        return status->code != STATUS_BAD_INPUT || !status->message[0];
    int result = checkpoint_count(checkpoint) < 1;
    for (int i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        struct status damage = {0};
        int64_t count = checkpoint_count_elements(tensor, (int64_t)checkpoint->size_bytes);
        float *values = count < 0 ? NULL : malloc((size_t)(count + 1) * sizeof *values);
        if (values)
            checkpoint_read(tensor, values);
        else
            result = 1;
        free(values);
        checkpoint_verify(checkpoint, tensor, &damage);
        result |= checkpoint_find(checkpoint, tensor->name) != tensor;
    }
    checkpoint_metadata(checkpoint, "config");
    checkpoint_drop_pages(checkpoint);
    checkpoint_close(checkpoint);
    return result;
}

static int read_both_ways(const struct mutation *mutation, void *context)
{
    (void)context;
    struct status in_memory = {0}, mapped = {0};
    int result = exercise(
        checkpoint_open_memory(mutation->bytes, mutation->length, mutation->path, &in_memory),
        &in_memory);
    result |= exercise(checkpoint_open(mutation->path, &mapped), &mapped);
    return result || strcmp(in_memory.message, mapped.message) != 0;
}

/* The mutation is a data.pkl: read where the first byte beyond it would be noticed, then put into
 * an archive whose checksums are right, which is how far a forged file gets. */
static int read_as_pickle(const struct mutation *mutation, void *context)
{
    (void)context;
    struct pickle pickle;
    struct status alone = {0}, status = {0};
    pickle_read(&pickle, mutation->bytes, mutation->length, &alone);
    pickle_free(&pickle);
    unsigned char storages[512] = {0};
    struct archive_file files[16] = {{"lightning/data.pkl", mutation->bytes, mutation->length, 0}};
    char names[15][32];
    for (int i = 0; i < 15; i++) {
        snprintf(names[i], sizeof names[i], "lightning/data/%d", i);
        files[i + 1] = (struct archive_file){names[i], storages, sizeof storages, 0};
    }
    struct bytes archive = archive_build(files, 16, mutation->length % 2);
    int result =
        exercise(checkpoint_open_memory(archive.data, archive.length, "FILE", &status), &status);
    bytes_free(&archive);
    return result;
}

static void run(const char *name, int (*reader)(const struct mutation *, void *), int count)
{
    char path[256];
    size_t length;
    snprintf(path, sizeof path, DATA "%s", name);
    unsigned char *bytes = mutate_load(path, &length);
    assert_non_null(bytes);
    int result = mutate_run(name, bytes, length, 1, count, reader, NULL);
    free(bytes);
    assert_int_equal(result, 0);
}

static void test_zip(void **state)
{
    (void)state;
    run("types.pt", read_both_ways, MUTATIONS);
}

static void test_safetensors(void **state)
{
    (void)state;
    run("types.safetensors", read_both_ways, MUTATIONS);
}

/* The data.pkl of a checkpoint of ours, cut out of the archive. */
static void test_pickle(void **state)
{
    (void)state;
    const char *const names[] = {"lightning.ckpt", "views.pt", "protocol4.pt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        size_t length;
        struct zip archive = {0};
        struct status status = {0};
        snprintf(path, sizeof path, DATA "%s", names[i]);
        unsigned char *bytes = mutate_load(path, &length);
        assert_non_null(bytes);
        assert_int_equal(zip_read(&archive, bytes, length, &status), STATUS_OK);
        snprintf(path, sizeof path, "%.*s/data.pkl", (int)strcspn(names[i], "."), names[i]);
        const struct zip_entry *entry = zip_find(&archive, path);
        assert_non_null(entry);
        assert_int_equal(
            mutate_run(path, entry->data, entry->size_bytes, 1, MUTATIONS, read_as_pickle, NULL),
            0);
        zip_free(&archive);
        free(bytes);
    }
}

static void test_zip64(void **state)
{
    (void)state;
    static const float storage[4] = {1, 2, 3, 4};
    const int64_t shape[] = {2, 2}, stride[] = {2, 1};
    const struct tensor_record tensor = {"w", "FloatStorage", "0", 4, 0, 2, shape, stride, 0};
    struct bytes pickle = pickle_tensors(&tensor, 1);
    const struct archive_file files[] = {{"r/data/0", storage, sizeof storage, 0},
                                         {"r/data.pkl", pickle.data, pickle.length, 0}};
    struct bytes archive = archive_build(files, 2, true);
    assert_int_equal(
        mutate_run("zip64", archive.data, archive.length, 1, MUTATIONS, read_both_ways, NULL), 0);
    bytes_free(&archive);
    bytes_free(&pickle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zip),
        cmocka_unit_test(test_zip64),
        cmocka_unit_test(test_pickle),
        cmocka_unit_test(test_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
