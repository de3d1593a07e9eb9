/* DICOM through build/libresample-dicom.so: files of our own making, one of every kind that matters
 * and every kind of damage; in tests/data/dicom the same picture compressed by gdcmconv. */
#include "tests/support/cli.h"
#include "tests/support/images.h"
#include "tests/support/mutate.h"
#include "training/dicom.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { ROWS = 8, COLUMNS = 10, PIXELS = ROWS * COLUMNS, FILE_BYTES = 1 << 14 };

/* ---- a writer: explicit little endian ---- */

struct file {
    unsigned char bytes[FILE_BYTES];
    size_t length;
};

static void put(struct file *file, const void *bytes, size_t length)
{
    assert_true(file->length + length <= sizeof file->bytes);
    memcpy(file->bytes + file->length, bytes, length);
    file->length += length;
}

static void put_number(struct file *file, uint32_t number, size_t bytes)
{
    unsigned char little[4] = {(unsigned char)number, (unsigned char)(number >> 8),
                               (unsigned char)(number >> 16), (unsigned char)(number >> 24)};
    put(file, little, bytes);
}

static void put_element(struct file *file, uint32_t group, uint32_t element, const char *type,
                        const void *value, size_t length)
{
    bool wide = !strcmp(type, "OW") || !strcmp(type, "OB");
    put_number(file, group, 2);
    put_number(file, element, 2);
    put(file, type, 2);
    if (wide)
        put_number(file, 0, 2);
    put_number(file, (uint32_t)(length + length % 2), wide ? 4 : 2);
    put(file, value, length);
    if (length % 2)
        put(file, type[0] == 'U' || wide ? "\0" : " ", 1);
}

static void put_text(struct file *file, uint32_t group, uint32_t element, const char *type,
                     const char *text)
{
    put_element(file, group, element, type, text, strlen(text));
}

static void put_short(struct file *file, uint32_t group, uint32_t element, uint32_t number)
{
    unsigned char little[2] = {(unsigned char)number, (unsigned char)(number >> 8)};
    put_element(file, group, element, "US", little, 2);
}

struct kind {
    const char *modality, *patient, *colours, *slope, *intercept;
    int bits, frames, rows, columns;
    bool is_signed;
};
static const struct kind ct = {"CT", "patient 7", "MONOCHROME2", "2",     "-1000",
                               16,   1,           ROWS,          COLUMNS, true};

static void put_header(struct file *file, const struct kind *kind)
{
    const char *storage =
        strcmp(kind->modality, "NM") ? "1.2.840.10008.5.1.4.1.1.2" : "1.2.840.10008.5.1.4.1.1.20";
    struct file meta = {.length = 0};
    char frames[16];
    file->length = 0;
    put_element(&meta, 2, 1, "OB", "\0\1", 2);
    put_text(&meta, 2, 2, "UI", storage);
    put_text(&meta, 2, 3, "UI", "1.2.3.4");
    put_text(&meta, 2, 0x10, "UI", "1.2.840.10008.1.2.1");
    const unsigned char length[4] = {(unsigned char)meta.length, (unsigned char)(meta.length >> 8)};
    memset(file->bytes, 0, 128);
    file->length = 128;
    put(file, "DICM", 4);
    put_element(file, 2, 0, "UL", length, 4);
    put(file, meta.bytes, meta.length);
    put_text(file, 8, 0x16, "UI", storage);
    put_text(file, 8, 0x18, "UI", "1.2.3.4");
    put_text(file, 8, 0x60, "CS", kind->modality);
    put_text(file, 0x10, 0x20, "LO", kind->patient);
    put_short(file, 0x28, 2, strcmp(kind->colours, "RGB") ? 1 : 3);
    put_text(file, 0x28, 4, "CS", kind->colours);
    if (!strcmp(kind->colours, "RGB"))
        put_short(file, 0x28, 6, 0);
    if (kind->frames > 1) {
        snprintf(frames, sizeof frames, "%d", kind->frames);
        put_text(file, 0x28, 8, "IS", frames);
    }
    put_short(file, 0x28, 0x10, (uint32_t)kind->rows);
    put_short(file, 0x28, 0x11, (uint32_t)kind->columns);
    put_short(file, 0x28, 0x100, (uint32_t)kind->bits);
    put_short(file, 0x28, 0x101, (uint32_t)kind->bits);
    put_short(file, 0x28, 0x102, (uint32_t)kind->bits - 1);
    put_short(file, 0x28, 0x103, kind->is_signed);
    if (kind->slope) {
        put_text(file, 0x28, 0x1052, "DS", kind->intercept);
        put_text(file, 0x28, 0x1053, "DS", kind->slope);
    }
}

/* Stored value of a pixel of a frame (and channel). */
static int stored(const struct kind *kind, int frame, int channel, int pixel)
{
    int value = 3 * pixel + 100 * frame + 20 * channel - (kind->is_signed ? 50 : 0);
    return kind->bits == 8 ? value & 255 : value;
}

static void put_pixels(struct file *file, const struct kind *kind)
{
    static struct file pixels;
    int channels = strcmp(kind->colours, "RGB") ? 1 : 3;
    pixels.length = 0;
    for (int frame = 0; frame < kind->frames; frame++)
        for (int i = 0; i < PIXELS * channels; i++)
            put_number(&pixels, (uint32_t)stored(kind, frame, i % channels, i / channels),
                       (size_t)kind->bits / 8);
    put_element(file, 0x7fe0, 0x10, kind->bits == 8 ? "OB" : "OW", pixels.bytes, pixels.length);
}

static struct file made;

static const char *write_dicom(const char *folder, const char *name, const struct kind *kind)
{
    static char path[PATH_MAX];
    put_header(&made, kind);
    put_pixels(&made, kind);
    cli_write(folder, name, made.bytes, made.length);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- reading ---- */

static struct dicom_library *library;

static int open_library(void **state)
{
    char path[PATH_MAX];
    struct status status = {0};
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    assert_true(length > 0);
    path[length] = 0;
    strcpy(strstr(path, "/tests/test_dicom"), "/libresample-dicom.so");
    setenv("RESAMPLE_DICOM_LIBRARY", path, 1);
    if (dicom_library_open(&library, &status))
        fail_msg("%s", status.message);
    return cli_setup(state);
}

static int close_library(void **state)
{
    dicom_library_close(library);
    return cli_teardown(state);
}

static struct dicom_picture read_ok(const char *path)
{
    struct dicom_picture picture;
    struct status status = {0};
    if (dicom_read(library, path, &picture, &status))
        fail_msg("%s", status.message);
    return picture;
}

static void refuse(const char *path, const char *culprit)
{
    struct dicom_picture picture;
    struct status status = {0};
    if (dicom_read(library, path, &picture, &status) == STATUS_OK)
        fail_msg("%s is read, expected '%s'", path, culprit);
    assert_null(picture.values);
    if (!strstr(status.message, path) || !strstr(status.message, culprit))
        fail_msg("expected '%s': %s", culprit, status.message);
}

static void check(const char *path, const struct kind *kind)
{
    struct dicom_picture picture = read_ok(path);
    bool rgb = strcmp(kind->colours, "RGB") == 0;
    double slope = rgb ? 2 / 255.0 : kind->slope ? atof(kind->slope) : 1;
    double intercept = rgb ? -1 : kind->slope ? atof(kind->intercept) : 0;
    assert_int_equal(picture.frames, kind->frames);
    assert_int_equal(picture.channels, rgb ? 3 : 1);
    assert_int_equal(picture.height, ROWS);
    assert_int_equal(picture.width, COLUMNS);
    assert_string_equal(picture.patient, kind->patient);
    assert_string_equal(picture.modality, kind->modality);
    assert_int_equal(picture.inverted, strcmp(kind->colours, "MONOCHROME1") == 0);
    for (int frame = 0, i = 0; frame < kind->frames; frame++)
        for (int channel = 0; channel < picture.channels; channel++)
            for (int pixel = 0; pixel < PIXELS; pixel++, i++) {
                double expected = stored(kind, frame, channel, pixel) * slope + intercept;
                if (!(fabs(picture.values[i] - expected) < 1e-4))
                    fail_msg("frame %d, channel %d, pixel %d: %g, expected %g", frame, channel,
                             pixel, (double)picture.values[i], expected);
            }
    dicom_picture_free(&picture);
}

static void every_kind_is_read(void **state)
{
    static const struct kind kinds[] = {
        {"MR", "p", "MONOCHROME2", NULL, NULL, 16, 1, ROWS, COLUMNS, false},
        {"NM", "p", "MONOCHROME2", "0.25", "10", 16, 1, ROWS, COLUMNS, true},
        {"CR", "q", "MONOCHROME1", NULL, NULL, 8, 1, ROWS, COLUMNS, false},
        {"CT", "", "MONOCHROME2", "0.5", "-24.25", 16, 3, ROWS, COLUMNS, true},
        {"XC", "r s", "RGB", NULL, NULL, 8, 1, ROWS, COLUMNS, false},
        {"US", "r", "RGB", NULL, NULL, 8, 2, ROWS, COLUMNS, false},
    };
    check(write_dicom(*state, "a.dcm", &ct), &ct);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check(write_dicom(*state, "a.dcm", &kinds[i]), &kinds[i]);
}

static void compressed_files_are_read(void **state)
{
    (void)state;
    check("tests/data/dicom/jpeg_2000.dcm", &ct);
    check("tests/data/dicom/jpeg_ls.dcm", &ct);
    check("tests/data/dicom/rle.dcm", &ct);
}

/* Each is refused with a line that names it, and none with a crash or a large allocation. */
static void damage_is_refused(void **state)
{
    const char *folder = *state;
    char path[PATH_MAX];
    struct kind kind = ct;
    cli_write_text(folder, "a.dcm", "this is no DICOM file, and a little longer than its preamble");
    snprintf(path, sizeof path, "%s/a.dcm", folder);
    refuse(path, "");
    refuse("/nonexistent.dcm", "");
    kind.rows = kind.columns = 65535;
    refuse(write_dicom(folder, "a.dcm", &kind), "64 million pixels");
    kind.rows = 200;
    kind.columns = 200;
    refuse(write_dicom(folder, "a.dcm", &kind), " ");
    kind = ct;
    kind.rows = 0;
    refuse(write_dicom(folder, "a.dcm", &kind), "no picture");
    kind = ct;
    kind.colours = "PALETTE COLOR";
    refuse(write_dicom(folder, "a.dcm", &kind), "");
    write_dicom(folder, "a.dcm", &ct);
    cli_write(folder, "a.dcm", made.bytes, made.length - 40);
    refuse(path, ": ");
    cli_write(folder, "a.dcm", made.bytes, 200);
    refuse(path, "");
}

/* Any byte of a file changed, or the file cut there: read or refused. */
static void mutations_do_no_harm(void **state)
{
    const char *folder = *state;
    char path[PATH_MAX];
    write_dicom(folder, "b.dcm", &ct);
    struct file original = made;
    snprintf(path, sizeof path, "%s/a.dcm", folder);
    int read = 0, refused = 0;
    for (size_t i = 128; i < original.length; i += 5) {
        struct dicom_picture picture;
        struct status status = {0};
        unsigned char kept = original.bytes[i];
        original.bytes[i] = i % 3 == 0 ? 0xff : i % 3 == 1 ? 0 : (unsigned char)(kept ^ 0x55);
        cli_write(folder, "a.dcm", original.bytes, i % 4 == 0 ? i : original.length);
        original.bytes[i] = kept;
        if (dicom_read(library, path, &picture, &status) == STATUS_OK) {
            assert_true((int64_t)picture.frames * picture.height * picture.width <=
                        DICOM_MOST_PIXELS);
            dicom_picture_free(&picture);
            read++;
        } else
            refused++;
    }
    assert_true(read > 10 && refused > 10);
}

/* ---- in a set of pictures ---- */

static struct image_set_options options_of(const char *folder)
{
    return (struct image_set_options){
        .folder = folder, .channels = 1, .size = ROWS, .held_out_fraction = 0.3, .zoom = 1};
}

static void patients_are_held_out_whole(void **state)
{
    const char *folder = *state;
    char name[64], patient[32], path[PATH_MAX];
    struct kind kind = ct;
    snprintf(path, sizeof path, "%s/scans", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    for (int i = 0; i < 12; i++) {
        snprintf(patient, sizeof patient, "patient %d", i / 4);
        snprintf(name, sizeof name, "scans/1.2.3.%d", i); /* no ending, as archives name them */
        kind.patient = patient;
        write_dicom(folder, name, &kind);
    }
    kind.modality = "MR";
    write_dicom(folder, "scans/mr.dcm", &kind);
    cli_write_text(folder, "scans/notes", "no picture");
    struct image_set_options options = options_of(path);
    struct image_set *set = open_images(&options);
    assert_int_equal(image_set_skipped(set), 1);
    assert_non_null(strstr(image_set_skipped_line(set, 0), "--low and --high"));
    int held_out = image_set_count(set, IMAGES_HELD_OUT);
    assert_int_equal(held_out + image_set_count(set, IMAGES_TRAINING), 12);
    assert_true(held_out % 4 == 0 && held_out > 0);
    /* -1000 and 1500 Hounsfield units are -1 and 1 */
    float picture[ROWS * ROWS];
    image_set_held_out(set, 0, picture);
    for (int y = 0; y < ROWS; y++)
        for (int x = 0; x < ROWS; x++) {
            double unit = stored(&ct, 0, 0, y * COLUMNS + x + 1) * 2 - 1000;
            assert_true(fabs(picture[y * ROWS + x] - fmax((unit + 1000) / 1250 - 1, -1)) < 1e-5);
        }
    image_set_free(set);
}

static void small_values_can_be_white(void **state)
{
    const char *folder = *state;
    char path[PATH_MAX];
    struct kind kind = {"CR", "a", "MONOCHROME1", NULL, NULL, 16, 2, ROWS, COLUMNS, false};
    float picture[ROWS * ROWS];
    snprintf(path, sizeof path, "%s/white", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    write_dicom(folder, "white/a.DCM", &kind);
    kind.patient = "b";
    write_dicom(folder, "white/b.dcm", &kind);
    struct image_set_options options = options_of(path);
    options.low = 0;
    options.high = 500;
    struct image_set *set = open_images(&options);
    image_set_held_out(set, 0, picture);
    for (int i = 0; i < ROWS * ROWS; i++) {
        int value = stored(&kind, 0, 0, i / ROWS * COLUMNS + i % ROWS + 1);
        assert_true(fabs(picture[i] - (1 - value / 250.0)) < 1e-5);
    }
    image_set_free(set);
}

static void without_the_library_one_line_says_so(void **state)
{
    const char *folder = *state;
    char path[PATH_MAX];
    struct image_set *set;
    struct status status = {0};
    snprintf(path, sizeof path, "%s/white", folder);
    const struct image_set_options options = options_of(path);
    setenv("RESAMPLE_DICOM_LIBRARY", "/nonexistent/libresample-dicom.so", 1);
    assert_int_equal(image_set_open(&set, &options, &status), STATUS_BAD_INPUT);
    assert_null(set);
    assert_non_null(strstr(status.message, "make dicom"));
    assert_non_null(strstr(status.message, "a.DCM"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read),
        cmocka_unit_test(compressed_files_are_read),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(patients_are_held_out_whole),
        cmocka_unit_test(small_values_can_be_white),
        cmocka_unit_test(without_the_library_one_line_says_so),
    };
    return cmocka_run_group_tests(tests, open_library, close_library);
}
