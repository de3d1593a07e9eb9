/* NPY files and pictures: values against numpy and PIL (tests/reference/make_files.py), the bytes
 * that are written, one clear line for what is wrong, mutations. */
#include "runtime/array.h"
#include "tests/support/mutate.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <jpeglib.h>

#include <cmocka.h>

static char folder[] = "/tmp/resample-array-XXXXXX";

static const char *fixture(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "tests/data/files/%s", name);
    return path[turn];
}

static const char *scratch(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static unsigned char *load(const char *path, size_t *length)
{
    unsigned char *bytes = mutate_load(path, length);
    if (!bytes)
        fail_msg("%s cannot be read", path);
    return bytes;
}

static void save(const char *path, const void *bytes, size_t length)
{
    struct status status = {0};
    if (file_write(path, bytes, length, &status))
        fail_msg("%s", status.message);
}

static void read_npy(struct array *array, const char *path)
{
    struct status status = {0};
    if (npy_read(array, path, &status))
        fail_msg("%s", status.message);
}

static void assert_same(const char *name, const struct array *read, const struct array *expected)
{
    assert_int_equal(read->rank, expected->rank);
    for (int d = 0; d < read->rank; d++)
        if (read->shape[d] != expected->shape[d])
            fail_msg("%s: extent %d is %lld, expected %lld", name, d, (long long)read->shape[d],
                     (long long)expected->shape[d]);
    for (int64_t i = 0; i < array_elements(read); i++)
        if (read->values[i] != expected->values[i])
            fail_msg("%s: element %lld is %.9g, expected %.9g", name, (long long)i,
                     (double)read->values[i], (double)expected->values[i]);
}

/* Reads a picture and compares it with NAME.npy, or NAME.luma.npy when it becomes one channel. */
static void check_picture(const char *file, int channels, const char *suffix)
{
    struct status status = {0};
    struct array picture, expected;
    char name[64];
    snprintf(name, sizeof name, "%.*s%s", (int)strcspn(file, "."), file, suffix);
    read_npy(&expected, fixture(name));
    if (array_read_image(&picture, fixture(file), channels, &status))
        fail_msg("%s", status.message);
    assert_same(file, &picture, &expected);
    array_free(&picture);
    array_free(&expected);
}

static void colour_pictures(void **state)
{
    (void)state;
    static const char *const files[] = {"rgb8.png",
                                        "rgb_alpha.png",
                                        "rgb16.png",
                                        "palette.png",
                                        "palette_transparent.png",
                                        "interlaced.png",
                                        "color_420.jpg",
                                        "color_444_progressive.jpg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_picture(files[i], 0, ".npy");
        check_picture(files[i], 3, ".npy");
        check_picture(files[i], 1, ".luma.npy");
    }
}

static void grey_pictures(void **state)
{
    (void)state;
    static const char *const files[] = {"grey1.png", "grey8.png", "grey16.png", "grey_alpha.png",
                                        "grey.jpg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_picture(files[i], 0, ".npy");
        check_picture(files[i], 1, ".npy");
    }
}

static void a_grey_picture_fills_three_channels(void **state)
{
    (void)state;
    struct status status = {0};
    struct array one, three;
    assert_int_equal(image_read(&one, fixture("grey8.png"), 1, &status), STATUS_OK);
    assert_int_equal(image_read(&three, fixture("grey8.png"), 3, &status), STATUS_OK);
    assert_int_equal(three.shape[1], 3);
    for (int64_t i = 0; i < array_elements(&three); i++)
        assert_true(three.values[i] == one.values[i % array_elements(&one)]);
    array_free(&one);
    array_free(&three);
}

static void names_do_not_matter_but_contents(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"grey8.png", "picture.jpg"}, {"grey.jpg", "picture"}, {"version_2.npy", "picture.png"}};
    for (size_t i = 0; i < 3; i++) {
        struct status status = {0};
        struct array renamed, original;
        size_t length;
        unsigned char *bytes = load(fixture(files[i][0]), &length);
        save(scratch(files[i][1]), bytes, length);
        free(bytes);
        assert_int_equal(array_read_image(&renamed, scratch(files[i][1]), 0, &status), 0);
        assert_int_equal(array_read_image(&original, fixture(files[i][0]), 0, &status), 0);
        assert_same(files[i][1], &renamed, &original);
        array_free(&renamed);
        array_free(&original);
    }
    assert_true(path_is_image("a.b/c.PNG") && path_is_image("x.jpg") && path_is_image("x.JPEG"));
    assert_false(path_is_image("png") || path_is_image("x.npy") || path_is_image("x.png.npy"));
}

static void arrays(void **state)
{
    (void)state;
    static const char *const files[] = {"fortran_order_f4.npy", "fortran_order_f8.npy",
                                        "version_2.npy", "version_3.npy"};
    struct array expected, read;
    read_npy(&expected, fixture("c_order_f4.npy"));
    assert_int_equal(expected.rank, 3);
    for (size_t i = 0; i < 4; i++) {
        read_npy(&read, fixture(files[i]));
        assert_same(files[i], &read, &expected);
        array_free(&read);
    }
    read_npy(&read, fixture("vector.npy"));
    assert_int_equal(read.rank, 1);
    assert_int_equal(read.shape[0], 24);
    assert_memory_equal(read.values, expected.values, 24 * sizeof(float));
    array_free(&read);
    read_npy(&read, fixture("scalar.npy"));
    assert_int_equal(read.rank, 0);
    assert_true(read.values[0] == 2.5f);
    array_free(&read);
    read_npy(&read, fixture("empty.npy"));
    assert_int_equal(array_elements(&read), 0);
    assert_int_equal(read.shape[1], 3);
    array_free(&read);
    array_free(&expected);
}

/* Numpy's own bytes, for ranks 0, 1 and 3. */
static void arrays_are_written_as_numpy_does(void **state)
{
    (void)state;
    static const char *const files[] = {"c_order_f4.npy", "vector.npy", "scalar.npy", "empty.npy"};
    for (size_t i = 0; i < 4; i++) {
        struct status status = {0};
        struct array array;
        read_npy(&array, fixture(files[i]));
        const char *path = scratch("written.npy");
        assert_int_equal(npy_write(path, array.values, array.rank, array.shape, &status), 0);
        size_t length, expected_length;
        unsigned char *bytes = load(path, &length);
        unsigned char *expected = load(fixture(files[i]), &expected_length);
        assert_int_equal(length, expected_length);
        assert_memory_equal(bytes, expected, length);
        free(bytes);
        free(expected);
        array_free(&array);
    }
}

static void images_have_four_extents(void **state)
{
    (void)state;
    struct status status = {0};
    struct array array;
    assert_int_equal(array_read_image(&array, fixture("c_order_f4.npy"), 0, &status), STATUS_OK);
    assert_int_equal(array.rank, 4);
    const int64_t expected[] = {1, 2, 3, 4};
    assert_memory_equal(array.shape, expected, sizeof expected);
    array_free(&array);
    assert_int_equal(array_read_image(&array, fixture("vector.npy"), 0, &status), STATUS_BAD_INPUT);
    assert_non_null(strstr(status.message, "rank 1"));
    assert_null(array.values);
}

static void pictures_are_clipped_and_rounded(void **state)
{
    (void)state;
    /* bytes b come from 2 b / 255 - 1; the third and fourth lie just below and above 100.5 */
    const float values[] = {
        -7, -1, 201 / 255.0f - 1 - 1e-4f, 201 / 255.0f - 1 + 1e-4f, 1, INFINITY, NAN, -INFINITY};
    const int expected[] = {0, 0, 100, 101, 255, 255, 0, 0};
    struct status status = {0};
    struct array read;
    const char *path = scratch("clipped.png");
    assert_int_equal(png_write(path, values, 1, 2, 4, NULL, &status), STATUS_OK);
    assert_int_equal(image_read(&read, path, 0, &status), STATUS_OK);
    assert_int_equal(read.shape[1], 1);
    for (int i = 0; i < 8; i++)
        assert_int_equal(lrintf((read.values[i] + 1) / 2 * 255), expected[i]);
    array_free(&read);
}

static bool contains(const unsigned char *bytes, size_t length, const char *part,
                     size_t part_length)
{
    return memmem(bytes, length, part, part_length) != NULL;
}

static void pictures_are_written_with_text_and_without_time(void **state)
{
    (void)state;
    struct status status = {0};
    struct array picture, again;
    const char *const text[] = {"Title", "reconstruction", "Software", "resample", NULL};
    assert_int_equal(image_read(&picture, fixture("rgb8.png"), 0, &status), STATUS_OK);
    int height = (int)picture.shape[2], width = (int)picture.shape[3];
    size_t length[2];
    unsigned char *bytes[2];
    for (int i = 0; i < 2; i++) {
        const char *path = scratch("text.png");
        assert_int_equal(png_write(path, picture.values, 3, height, width, text, &status), 0);
        bytes[i] = load(path, &length[i]);
    }
    assert_int_equal(length[0], length[1]);
    assert_memory_equal(bytes[0], bytes[1], length[0]);
    assert_true(contains(bytes[0], length[0], "tEXtTitle\0reconstruction", 24));
    assert_true(contains(bytes[0], length[0], "tEXtSoftware\0resample", 21));
    assert_false(contains(bytes[0], length[0], "tIME", 4));
    assert_int_equal(image_read(&again, scratch("text.png"), 0, &status), STATUS_OK);
    assert_same("text.png", &again, &picture);
    free(bytes[0]);
    free(bytes[1]);
    array_free(&picture);
    array_free(&again);
}

static void interleaved_rgb_is_written_as_it_is(void **state)
{
    (void)state;
    const unsigned char rgb[] = {255, 0, 0, 0, 128, 255};
    struct status status = {0};
    struct array read;
    const char *path = scratch("rgb.png");
    assert_int_equal(png_write_rgb(path, rgb, 2, 1, NULL, &status), STATUS_OK);
    assert_int_equal(image_read(&read, path, 0, &status), STATUS_OK);
    assert_int_equal(read.shape[2], 2);
    for (int i = 0; i < 6; i++)
        assert_int_equal(lrintf((read.values[i] + 1) / 2 * 255), rgb[i % 2 * 3 + i / 2]);
    array_free(&read);
}

/* The message starts with the path, is one line and says what is expected of it. */
static void assert_refused(const char *path, const struct array *array, const struct status *status,
                           const char *part)
{
    if (status->code != STATUS_BAD_INPUT)
        fail_msg("%s: code %d, message \"%s\"", path, status->code, status->message);
    if (strncmp(status->message, path, strlen(path)) != 0 || !strstr(status->message, part) ||
        strchr(status->message, '\n'))
        fail_msg("\"%s\", expected \"%s\"", status->message, part);
    assert_null(array->values);
}

static void refuse_bytes(const void *bytes, size_t length, const char *part)
{
    struct status status = {0};
    struct array array;
    const char *path = scratch("refused");
    unlink(path); /* replacing a file waits for the disk */
    save(path, bytes, length);
    array_read_image(&array, path, 0, &status);
    assert_refused(path, &array, &status, part);
}

static void refuse_header(const char *dictionary, size_t data_bytes, const char *part)
{
    unsigned char bytes[512] = "\x93NUMPY\x01";
    size_t length = strlen(dictionary);
    bytes[8] = (unsigned char)length;
    memcpy(bytes + 10, dictionary, length);
    refuse_bytes(bytes, 10 + length + data_bytes, part);
}

static void refused_arrays(void **state)
{
    (void)state;
    static const char *const files[][2] = {{"big_endian.npy", "'>f4', expected '<f4' or '<f8'"},
                                           {"integers.npy", "'<i4', expected '<f4' or '<f8'"}};
    for (size_t i = 0; i < 2; i++) {
        struct status status = {0};
        struct array array;
        npy_read(&array, fixture(files[i][0]), &status);
        assert_refused(fixture(files[i][0]), &array, &status, files[i][1]);
    }
    refuse_bytes("", 0, "expected an NPY file, a PNG or a JPEG");
    refuse_bytes("\x93NUMPY", 6, "not an NPY file");
    refuse_bytes("\x93NUMPY\x04\0\0\0", 10, "version 4.0, expected 1.0 to 3.0");
    refuse_bytes("\x93NUMPY\x01\0\xff\0{", 11, "truncated NPY header");
    refuse_bytes("\x93NUMPY\x02\0\xff\xff\xff\xff{", 13, "truncated NPY header");
    refuse_header("{'fortran_order': False, 'shape': (2, 2)}", 16, "damaged NPY header");
    refuse_header("{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 2)}", 16, "damaged");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, -2)}", 16, "damaged");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2", 16, "damaged");
    refuse_header("{'descr': '<f4', 'fortran_order': True, 'shape': (1,1,1,1,1,1,1,1,1)}", 4,
                  "damaged");
    refuse_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)}", 47,
                  "promises 6 elements of 8 bytes");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (500000000,1000000000)}", 99,
                  "truncated: its header promises 500000000000000000 elements");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (65536,65536,65536,65536)}", 9,
                  "damaged");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
                  9, "damaged");
    refuse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", 0,
                  "rank 2 with 0 elements");
}

static void refused_pictures(void **state)
{
    (void)state;
    struct status status = {0};
    struct array array;
    image_read(&array, fixture("cmyk.jpg"), 0, &status);
    assert_refused(fixture("cmyk.jpg"), &array, &status, "4 components");
    status = (struct status){0};
    image_read(&array, fixture("vector.npy"), 0, &status);
    assert_refused(fixture("vector.npy"), &array, &status, "expected PNG or JPEG");
    status = (struct status){0};
    image_read(&array, "/no/such/picture", 0, &status);
    assert_refused("/no/such/picture", &array, &status, "No such file");
    status = (struct status){0};
    array_read_image(&array, "tests", 0, &status);
    assert_refused("tests", &array, &status, "not a regular file");
}

static void put_big_endian(unsigned char *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(value >> (24 - 8 * i));
}

static uint32_t get_big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

enum { PNG_SIGNATURE_BYTES = 8, CHUNK_EXTRA_BYTES = 12 };

/* Makes the checksums of all whole chunks right, so that damage reaches what lies behind them. */
static void repair_checksums(unsigned char *bytes, size_t length)
{
    size_t at = PNG_SIGNATURE_BYTES;
    while (at + CHUNK_EXTRA_BYTES <= length) {
        size_t body = get_big_endian(bytes + at);
        if (body > length - at - CHUNK_EXTRA_BYTES)
            return;
        put_big_endian(bytes + at + 8 + body,
                       (uint32_t)crc32(0, bytes + at + 4, (unsigned)(body + 4)));
        at += body + CHUNK_EXTRA_BYTES;
    }
}

static void pictures_are_limited_in_size(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{16385, 1}, {1, 16385}, {16384, 16384}, {0x7fffffff, 9}};
    size_t length;
    unsigned char *png = load(fixture("rgb8.png"), &length);
    for (size_t i = 0; i < 4; i++) {
        put_big_endian(png + 16, sizes[i][0]);
        put_big_endian(png + 20, sizes[i][1]);
        repair_checksums(png, length);
        refuse_bytes(png, length, i < 3 ? "expected sides of at most 16384" : "damaged PNG");
    }
    put_big_endian(png + 16, 8000);
    put_big_endian(png + 20, 8000);
    repair_checksums(png, length);
    refuse_bytes(png, length, "damaged PNG");
    free(png);
    unsigned char *jpeg = load(fixture("grey.jpg"), &length);
    unsigned char *frame = memmem(jpeg, length, "\xff\xc0", 2);
    assert_non_null(frame);
    memcpy(frame + 5, "\xff\xdc\xff\xdc", 4);
    refuse_bytes(jpeg, length, "65500 x 65500 pixels");
    free(jpeg);
}

static void every_truncated_picture_is_refused(void **state)
{
    (void)state;
    static const char *const files[] = {"palette.png", "interlaced.png", "grey.jpg",
                                        "color_444_progressive.jpg"};
    for (size_t i = 0; i < 4; i++) {
        size_t length;
        unsigned char *bytes = load(fixture(files[i]), &length);
        for (size_t kept = 8; kept < length; kept++)
            refuse_bytes(bytes, kept, i < 2 ? "damaged PNG" : "damaged JPEG");
        free(bytes);
    }
}

/* A valid progressive JPEG that sends each coefficient of each component in two scans of its own.
 */
static unsigned char *many_scans(unsigned long *length)
{
    static jpeg_scan_info scans[1 + 3 * 63 * 2];
    int count = 0;
    scans[count++] = (jpeg_scan_info){3, {0, 1, 2}, 0, 0, 0, 0};
    for (int component = 0; component < 3; component++)
        for (int k = 1; k < 64; k++)
            for (int low = 1; low >= 0; low--)
                scans[count++] = (jpeg_scan_info){1, {component}, k, k, 1 - low, low};
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg = {.err = jpeg_std_error(&errors)};
    unsigned char *bytes = NULL, row[3 * 16] = {0};
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, length);
    jpeg.image_width = jpeg.image_height = 16;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg.scan_info = scans;
    jpeg.num_scans = count;
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height)
        jpeg_write_scanlines(&jpeg, (JSAMPROW[]){row}, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return bytes;
}

static void a_jpeg_of_very_many_scans_is_refused(void **state)
{
    (void)state;
    unsigned long length = 0;
    unsigned char *jpeg = many_scans(&length);
    refuse_bytes(jpeg, length, "more than 256 scans");
    free(jpeg);
}

static int files_in(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void unwritable_files(void **state)
{
    (void)state;
    const float value = 0;
    const int64_t shape[] = {1};
    char child[512];
    assert_int_equal(mkdir(scratch("directory"), 0700), 0);
    save(scratch("directory/file"), "x", 1);
    snprintf(child, sizeof child, "%s/file/below", scratch("directory"));
    const char *const paths[] = {"/no/such/folder/x", scratch("directory"), child, "/dev/null"};
    for (size_t i = 0; i < 4; i++) {
        struct status status[3] = {{0}};
        png_write(paths[i], &value, 1, 1, 1, NULL, &status[0]);
        npy_write(paths[i], &value, 1, shape, &status[1]);
        file_write(paths[i], "x", 1, &status[2]);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(status[k].code, STATUS_BAD_INPUT);
            assert_int_equal(strncmp(status[k].message, paths[i], strlen(paths[i])), 0);
            assert_non_null(strstr(status[k].message, "cannot be written: "));
        }
    }
    assert_int_equal(files_in(scratch("directory")), 1);
    struct stat info;
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
}

static void nothing_is_left_beside_a_written_file(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch("alone"), 0700), 0);
    save(scratch("alone/file"), "first", 5);
    save(scratch("alone/file"), "second", 6);
    assert_int_equal(files_in(scratch("alone")), 1);
    struct status status = {0};
    size_t length;
    char *text = file_read_text(scratch("alone/file"), 6, &length, &status);
    assert_int_equal(length, 6);
    assert_string_equal(text, "second");
    free(text);
    assert_null(file_read_text(scratch("alone/file"), 5, &length, &status));
    assert_non_null(strstr(status.message, "6 bytes, expected at most 5"));
}

/* Whatever comes: values for the whole shape, or a message and no values. */
static int read_behaves(const struct mutation *mutation, void *context)
{
    (void)context;
    struct status status = {0};
    struct array array;
    int code = array_read_image(&array, mutation->path, 0, &status);
    int misbehaved = code == STATUS_OK ? array.rank != 4 || !array.values
                                       : !status.message[0] || array.values != NULL;
    volatile float sum = 0;
    for (int64_t i = 0; code == STATUS_OK && i < array_elements(&array); i++)
        sum = sum + array.values[i];
    array_free(&array);
    return misbehaved;
}

/* Every second one with checksums that fit. */
static int read_png_behaves(const struct mutation *mutation, void *context)
{
    int *count = context;
    if ((*count)++ % 2) {
        unsigned char *repaired = malloc(mutation->length + 1);
        FILE *file = fopen(mutation->path, "r+b");
        assert_true(repaired && file);
        memcpy(repaired, mutation->bytes, mutation->length);
        repair_checksums(repaired, mutation->length);
        assert_int_equal(fwrite(repaired, 1, mutation->length, file), mutation->length);
        fclose(file);
        free(repaired);
    }
    return read_behaves(mutation, NULL);
}

static void mutate_files(const char *const *files, int count,
                         int (*reader)(const struct mutation *, void *))
{
    for (int i = 0; i < count; i++) {
        size_t length;
        int turn = 0;
        unsigned char *bytes = load(fixture(files[i]), &length);
        assert_int_equal(mutate_run(files[i], bytes, length, 1000000 * (uint64_t)(i + 1),
                                    10000 / count, reader, &turn),
                         0);
        free(bytes);
    }
}

static void mutated_arrays(void **state)
{
    (void)state;
    static const char *const files[] = {"c_order_f4.npy", "fortran_order_f8.npy", "version_2.npy",
                                        "version_3.npy"};
    mutate_files(files, 4, read_behaves);
}

static void mutated_png(void **state)
{
    (void)state;
    static const char *const files[] = {"rgb8.png", "palette_transparent.png", "interlaced.png",
                                        "rgb16.png", "grey1.png"};
    mutate_files(files, 5, read_png_behaves);
}

static void mutated_jpeg(void **state)
{
    (void)state;
    static const char *const files[] = {"grey.jpg", "color_420.jpg", "color_444_progressive.jpg",
                                        "cmyk.jpg"};
    mutate_files(files, 4, read_behaves);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(colour_pictures),
        cmocka_unit_test(grey_pictures),
        cmocka_unit_test(a_grey_picture_fills_three_channels),
        cmocka_unit_test(names_do_not_matter_but_contents),
        cmocka_unit_test(arrays),
        cmocka_unit_test(arrays_are_written_as_numpy_does),
        cmocka_unit_test(images_have_four_extents),
        cmocka_unit_test(pictures_are_clipped_and_rounded),
        cmocka_unit_test(pictures_are_written_with_text_and_without_time),
        cmocka_unit_test(interleaved_rgb_is_written_as_it_is),
        cmocka_unit_test(refused_arrays),
        cmocka_unit_test(refused_pictures),
        cmocka_unit_test(pictures_are_limited_in_size),
        cmocka_unit_test(every_truncated_picture_is_refused),
        cmocka_unit_test(a_jpeg_of_very_many_scans_is_refused),
        cmocka_unit_test(unwritable_files),
        cmocka_unit_test(nothing_is_left_beside_a_written_file),
        cmocka_unit_test(mutated_arrays),
        cmocka_unit_test(mutated_png),
        cmocka_unit_test(mutated_jpeg),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
