/* The checkpoint readers against PyTorch's own values (tests/data/checkpoint, made by
 * tests/reference/make_checkpoints.py), safetensors there and back, and files that must be refused.
 */
#include "model/checkpoint_file.h"
#include "model/half.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA "tests/data/checkpoint/"

static float *read_values(const struct checkpoint_tensor *tensor, int64_t *count)
{
    *count = checkpoint_count_elements(tensor, INT64_MAX);
    assert_true(*count >= 0);
    float *values = malloc((size_t)(*count ? *count : 1) * sizeof *values);
    assert_non_null(values);
    checkpoint_read(tensor, values);
    return values;
}

static bool same_value(float a, float b)
{
    return (isnan(a) && isnan(b)) || bits_from_float(a) == bits_from_float(b);
}

/* One line of a golden: name, type, shape, bits. */
static void check_line(char *line, const struct checkpoint_tensor *tensor)
{
    char *rest = NULL, shape[128] = "", *name = strtok_r(line, " \n", &rest);
    assert_string_equal(tensor->name, name);
    assert_string_equal(checkpoint_type_name(tensor->type), strtok_r(NULL, " \n", &rest));
    for (int i = 0; i < tensor->rank; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", i ? "x" : "",
                 (long long)tensor->shape[i]);
    assert_string_equal(tensor->rank ? shape : "-", strtok_r(NULL, " \n", &rest));
    int64_t count;
    float *values = read_values(tensor, &count);
    for (int64_t i = 0; i < count && tensor->type != CHECKPOINT_OTHER; i++) {
        char *bits = strtok_r(NULL, " \n", &rest);
        assert_non_null(bits);
        float expected = float_from_bits((uint32_t)strtoul(bits, NULL, 16));
        if (!same_value(values[i], expected))
            fail_msg("%s[%lld] is %a, expected %a", name, (long long)i, (double)values[i],
                     (double)expected);
    }
    assert_null(strtok_r(NULL, " \n", &rest));
    free(values);
}

static void check_golden(const char *name, const char *format)
{
    char path[256], golden[256], *line = NULL;
    size_t capacity = 0;
    int index = 0;
    struct status status = {0};
    snprintf(path, sizeof path, DATA "%s", name);
    snprintf(golden, sizeof golden, DATA "%s.txt", name);
    struct checkpoint *checkpoint = checkpoint_open(path, &status);
    if (!checkpoint)
        fail_msg("%s", status.message);
    assert_string_equal(checkpoint_format(checkpoint), format);
    assert_string_equal(checkpoint_path(checkpoint), path);
    FILE *file = fopen(golden, "r");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        assert_true(index < checkpoint_count(checkpoint));
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, index++);
        assert_ptr_equal(checkpoint_find(checkpoint, tensor->name), tensor);
        assert_int_equal(checkpoint_verify(checkpoint, tensor, &status), STATUS_OK);
        check_line(line, tensor);
        checkpoint_drop_pages(checkpoint);
    }
    assert_int_equal(index, checkpoint_count(checkpoint));
    assert_null(checkpoint_find(checkpoint, "no such tensor"));
    free(line);
    fclose(file);
    checkpoint_close(checkpoint);
}

static void test_goldens(void **state)
{
    (void)state;
    check_golden("types.pt", "pytorch-zip");
    check_golden("protocol4.pt", "pytorch-zip");
    check_golden("views.pt", "pytorch-zip");
    check_golden("lightning.ckpt", "pytorch-zip");
    check_golden("no_checksums.pt", "pytorch-zip");
    check_golden("types.safetensors", "safetensors");
}

static void test_metadata(void **state)
{
    (void)state;
    struct status status = {0};
    struct checkpoint *checkpoint = checkpoint_open(DATA "types.safetensors", &status);
    assert_non_null(checkpoint);
    assert_string_equal(checkpoint_metadata(checkpoint, "format"), "pt");
    assert_string_equal(checkpoint_metadata(checkpoint, "note"), "\xc3\xa9 \"quoted\"\n");
    assert_null(checkpoint_metadata(checkpoint, "Format"));
    checkpoint_close(checkpoint);
    checkpoint = checkpoint_open(DATA "types.pt", &status);
    assert_null(checkpoint_metadata(checkpoint, "format"));
    checkpoint_close(checkpoint);
}

/* Every binary16 by its definition, and the rounding at, just below and just above the middle of
 * each pair of neighbours. */
static void test_half(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7c00; half++) {
        int exponent = half >> 10 ? (int)(half >> 10) : 1;
        float value = ldexpf((float)((half & 0x3ff) + (half >> 10 ? 0x400 : 0)), exponent - 25);
        float above = half + 1 < 0x7c00 ? float_from_half((uint16_t)(half + 1)) : 65536.0f;
        float middle = value / 2 + above / 2;
        assert_true(float_from_half((uint16_t)half) == value);
        assert_true(float_from_half((uint16_t)(half | 0x8000)) == -value);
        assert_int_equal(half_from_float(value), half);
        assert_int_equal(half_from_float(-value), half | 0x8000);
        assert_int_equal(half_from_float(middle), half & 1 ? half + 1 : half);
        assert_int_equal(half_from_float(nextafterf(middle, 0)), half);
        assert_int_equal(half_from_float(nextafterf(-middle, -INFINITY)), (half + 1) | 0x8000);
    }
    assert_true(float_from_half(0x7c00) == INFINITY && float_from_half(0xfc00) == -INFINITY);
    assert_int_equal(half_from_float(INFINITY), 0x7c00);
    for (uint32_t half = 0x7c01; half < 0x8000; half++)
        assert_true(isnan(float_from_half((uint16_t)half)));
    assert_true(isnan(float_from_half(half_from_float(NAN))));
    assert_true(isnan(float_from_half(half_from_float(float_from_bits(0x7f800001)))));
}

static void test_bfloat16(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < 0x7f80; value++) {
        uint32_t bits = value << 16, up = value + 1;
        assert_int_equal(bits_from_float(float_from_bfloat16((uint16_t)value)), bits);
        assert_int_equal(bfloat16_from_float(float_from_bits(bits)), value);
        assert_int_equal(bfloat16_from_float(float_from_bits(bits + 0x8000)),
                         value & 1 ? up : value);
        assert_int_equal(bfloat16_from_float(float_from_bits(bits + 0x7fff)), value);
        assert_int_equal(bfloat16_from_float(-float_from_bits(bits + 0x8001)), up | 0x8000);
    }
    assert_int_equal(bfloat16_from_float(INFINITY), 0x7f80);
    assert_true(isnan(float_from_bfloat16(bfloat16_from_float(float_from_bits(0x7f800001)))));
}

static char folder[] = "/tmp/test_checkpoint_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void)
{
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static float rounded(float value, enum checkpoint_type type)
{
    return type == CHECKPOINT_F32   ? value
           : type == CHECKPOINT_F16 ? float_from_half(half_from_float(value))
                                    : float_from_bfloat16(bfloat16_from_float(value));
}

static void check_copy(const struct checkpoint *source, const struct checkpoint *copy,
                       enum checkpoint_type type)
{
    assert_int_equal(checkpoint_count(source), checkpoint_count(copy));
    for (int i = 0; i < checkpoint_count(source); i++) {
        const struct checkpoint_tensor *a = checkpoint_at(source, i), *b = checkpoint_at(copy, i);
        int64_t count, copied;
        float *expected = read_values(a, &count), *values = read_values(b, &copied);
        assert_string_equal(a->name, b->name);
        /* A number on its own, as scale_factor, is never rounded. */
        enum checkpoint_type expected_type = a->rank == 0 ? CHECKPOINT_F32 : type;
        assert_int_equal(b->type, expected_type);
        assert_int_equal(a->rank, b->rank);
        assert_memory_equal(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
        for (int64_t k = 0; k < count; k++)
            assert_true(same_value(values[k], rounded(expected[k], expected_type)));
        free(expected);
        free(values);
    }
}

static void check_round_trip(const char *source_path, enum checkpoint_type type)
{
    static const char *const metadata[] = {"config", "a: 1\nb: \"\xc3\xa9\"", "format", "pt", NULL};
    struct status status = {0};
    const char *path = in_folder("copy.safetensors");
    struct checkpoint *source = checkpoint_open(source_path, &status);
    assert_non_null(source);
    int count = checkpoint_count(source);
    struct checkpoint_tensor *tensors = calloc((size_t)count, sizeof *tensors);
    assert_non_null(tensors);
    for (int i = 0; i < count; i++)
        tensors[i] = *checkpoint_at(source, i);
    if (safetensors_write(path, tensors, count, type, metadata, &status) != STATUS_OK)
        fail_msg("%s", status.message);
    assert_int_equal(files_in_folder(), 1);
    struct checkpoint *copy = checkpoint_open(path, &status);
    if (!copy)
        fail_msg("%s", status.message);
    assert_int_equal((copy->bytes[0] | copy->bytes[1] << 8) % 8, 0);
    assert_string_equal(checkpoint_metadata(copy, "config"), metadata[1]);
    assert_string_equal(checkpoint_metadata(copy, "format"), "pt");
    check_copy(source, copy, type);
    free(tensors);
    checkpoint_close(source);
    checkpoint_close(copy);
    unlink(path);
}

static void test_round_trip(void **state)
{
    (void)state;
    check_round_trip(DATA "views.pt", CHECKPOINT_F32);
    check_round_trip(DATA "views.pt", CHECKPOINT_F16);
    check_round_trip(DATA "views.pt", CHECKPOINT_BF16);
    check_round_trip(DATA "lightning.ckpt", CHECKPOINT_F32);
}

/* A write that fails says why, and leaves the folder as it was. */
static void refuse_to_write(const char *path, enum checkpoint_type source, const void *data,
                            enum checkpoint_type type, const char *message)
{
    struct checkpoint_tensor tensor = {"weight", source, 1, {1}, {1}, data};
    struct status status = {0};
    int before = files_in_folder();
    assert_int_equal(safetensors_write(path, &tensor, 1, type, NULL, &status), STATUS_BAD_INPUT);
    if (!strstr(status.message, message))
        fail_msg("\"%s\" does not say \"%s\"", status.message, message);
    assert_int_equal(files_in_folder(), before);
}

static void test_refused_writes(void **state)
{
    (void)state;
    float large = 65520, largest = 3.4e38f;
    const char *path = in_folder("kept.safetensors");
    struct status status = {0};
    struct checkpoint_tensor tensor = {"weight", CHECKPOINT_F32, 1, {1}, {1}, (void *)&large};
    assert_int_equal(safetensors_write(path, &tensor, 1, CHECKPOINT_F32, NULL, &status), STATUS_OK);
    refuse_to_write(path, CHECKPOINT_F32, &large, CHECKPOINT_F16,
                    "65520, which is beyond the range");
    refuse_to_write(path, CHECKPOINT_F32, &largest, CHECKPOINT_BF16, "beyond the range of bf16");
    refuse_to_write(path, CHECKPOINT_OTHER, &large, CHECKPOINT_F16, "cannot be written as F16");
    struct checkpoint *kept = checkpoint_open(path, &status);
    assert_non_null(kept);
    checkpoint_close(kept);
    unlink(path);
    refuse_to_write("/no/such/folder/x", CHECKPOINT_F32, &large, CHECKPOINT_F32, "/no/such/folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),    cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_half),       cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused_writes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
