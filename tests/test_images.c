/* The pictures of a training: which files are found, how each format is read, which are left out,
 * how they are split, and what is shown of them in which order. */
#include "tests/support/cli.h"
#include "tests/support/images.h"

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

enum { SIZE = 8, MOST = 64 };

static const char *in(const char *folder, const char *name)
{
    static char path[4][PATH_MAX];
    static int turn;
    char *result = path[turn = (turn + 1) % 4];
    snprintf(result, PATH_MAX, "%s/%s", folder, name);
    return result;
}

static void make_folder(const char *folder, const char *name)
{
    assert_int_equal(mkdir(in(folder, name), 0777), 0);
}

static void write_npy(const char *path, const float *values, int rank, const int64_t *shape)
{
    struct status status = {0};
    if (npy_write(path, values, rank, shape, &status))
        fail_msg("%s", status.message);
}

/* A grey picture of one value. */
static void write_flat(const char *folder, const char *name, int side, float value)
{
    float values[MOST * MOST];
    for (int i = 0; i < side * side; i++)
        values[i] = value;
    write_npy(in(folder, name), values, 2, (int64_t[]){side, side});
}

static struct image_set_options plain_options(const char *folder)
{
    return (struct image_set_options){
        .folder = folder, .channels = 1, .size = SIZE, .held_out_fraction = 0.25, .zoom = 1};
}

static void refuse_set(const struct image_set_options *options, const char *culprit)
{
    struct image_set *set;
    struct status status = {0};
    assert_int_equal(image_set_open(&set, options, &status), STATUS_BAD_INPUT);
    assert_null(set);
    if (!strstr(status.message, culprit) || strchr(status.message, '\n'))
        fail_msg("expected a line with '%s': %s", culprit, status.message);
}

/* Number of the pictures (of both sides) whose name ends so. */
static int count_named(const struct image_set *set, const char *ending)
{
    int count = 0;
    for (int split = IMAGES_TRAINING; split <= IMAGES_HELD_OUT; split++)
        for (int i = 0; i < image_set_count(set, (enum image_split)split); i++) {
            const char *name = image_set_name(set, (enum image_split)split, i);
            size_t length = strlen(name), least = strlen(ending);
            count += length >= least && strcmp(name + length - least, ending) == 0;
        }
    return count;
}

static void assert_skipped(const struct image_set *set, const char *name, const char *reason)
{
    for (int i = 0; i < image_set_skipped(set); i++) {
        const char *line = image_set_skipped_line(set, i);
        if (strstr(line, name)) {
            if (!strstr(line, reason) || strstr(strstr(line, name) + 1, name))
                fail_msg("expected '%s' after the name once: %s", reason, line);
            return;
        }
    }
    fail_msg("%s is not among the skipped", name);
}

/* ---- formats ---- */

/* The held-out picture's mean of the one file of "x"; "other" is to learn from. */
static double mean_read(const char *folder, int channels, double low, double high, int channel)
{
    float picture[3 * SIZE * SIZE];
    double sum = 0;
    struct image_set_options options = plain_options(in(folder, "other"));
    options.held_out_folder = in(folder, "x");
    options.channels = channels;
    options.low = low;
    options.high = high;
    struct image_set *set = open_images(&options);
    assert_int_equal(image_set_count(set, IMAGES_HELD_OUT), 1);
    image_set_held_out(set, 0, picture);
    for (int i = 0; i < SIZE * SIZE; i++)
        sum += picture[channel * SIZE * SIZE + i];
    image_set_free(set);
    return sum / (SIZE * SIZE);
}

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%g, expected %g", value, expected);
}

static void every_format_is_read(void **state)
{
    const char *folder = *state;
    struct status status = {0};
    float values[3 * SIZE * SIZE];
    const double color[3] = {0.5, -0.25, 0.75};
    make_folder(folder, "x");
    make_folder(folder, "other");
    write_flat(folder, "other/0.npy", SIZE, 0);
    for (int i = 0; i < 3 * SIZE * SIZE; i++)
        values[i] = (float)color[i / (SIZE * SIZE)];
    const double luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];

    png_write(in(folder, "x/a.png"), values, 3, SIZE, SIZE, NULL, &status);
    assert_near(mean_read(folder, 3, 0, 0, 2), 0.75, 0.005);
    assert_near(mean_read(folder, 1, 0, 0, 0), luma, 0.01);
    /* a window is for numbers, not for pictures */
    assert_near(mean_read(folder, 3, -5, 5, 2), 0.75, 0.005);
    unlink(in(folder, "x/a.png"));

    write_npy(in(folder, "x/a.npy"), values, 4, (int64_t[]){1, 3, SIZE, SIZE});
    assert_near(mean_read(folder, 3, 0, 0, 1), -0.25, 1e-6);
    assert_near(mean_read(folder, 1, 0, 0, 0), luma, 1e-6);
    assert_near(mean_read(folder, 3, -1.5, 1.5, 2), 0.5, 1e-6);
    write_npy(in(folder, "x/a.npy"), values, 2, (int64_t[]){SIZE, SIZE});
    assert_near(mean_read(folder, 3, 0, 0, 2), 0.5, 1e-6);
    /* beyond the window is its border */
    assert_near(mean_read(folder, 1, -0.5, 0.25, 0), 1, 0);

    uint8_t jpeg[4096];
    FILE *file = fopen("tests/data/files/grey.jpg", "rb");
    assert_non_null(file);
    size_t length = fread(jpeg, 1, sizeof jpeg, file);
    fclose(file);
    unlink(in(folder, "x/a.npy"));
    cli_write(folder, "x/b.JPG", jpeg, length);
    assert_true(isfinite(mean_read(folder, 1, 0, 0, 0)));
    assert_true(status_ok(&status));
}

/* Three axes are a stack of grey pictures, for any model. */
static void a_stack_is_many_pictures(void **state)
{
    const char *folder = *state;
    float values[5 * SIZE * SIZE] = {0};
    make_folder(folder, "stack");
    make_folder(folder, "stack/a");
    make_folder(folder, "stack/b");
    write_npy(in(folder, "stack/a/3.npy"), values, 3, (int64_t[]){3, SIZE, SIZE});
    write_npy(in(folder, "stack/a/5.npy"), values, 3, (int64_t[]){5, SIZE, SIZE});
    write_npy(in(folder, "stack/b/4.npy"), values, 4, (int64_t[]){1, 5, SIZE, SIZE});
    write_flat(folder, "stack/b/one.npy", SIZE, 0);
    for (int channels = 1; channels <= 3; channels += 2) {
        struct image_set_options options = plain_options(in(folder, "stack"));
        options.channels = channels;
        struct image_set *set = open_images(&options);
        assert_int_equal(count_named(set, "3.npy[2]"), 1);
        assert_int_equal(count_named(set, "5.npy[4]"), 1);
        assert_int_equal(count_named(set, "one.npy"), 1);
        assert_int_equal(
            image_set_count(set, IMAGES_TRAINING) + image_set_count(set, IMAGES_HELD_OUT), 9);
        assert_skipped(set, "4.npy", "5 channels, expected 1 or 3");
        image_set_free(set);
    }
}

static void what_cannot_be_used_is_listed(void **state)
{
    const char *folder = *state;
    float bad[SIZE * SIZE] = {[3] = NAN};
    make_folder(folder, "bad");
    write_flat(folder, "bad/fine.npy", SIZE, 0);
    write_flat(folder, "bad/good.npy", SIZE, 0);
    write_flat(folder, "bad/small.npy", SIZE - 1, 0);
    write_npy(in(folder, "bad/nan.npy"), bad, 2, (int64_t[]){SIZE, SIZE});
    write_npy(in(folder, "bad/line.npy"), bad, 1, (int64_t[]){SIZE});
    cli_write(folder, "bad/broken.png", "\x89PNG\r\n\x1a\n....", 12);
    cli_write(folder, "bad/broken.jpeg", "\xff\xd8\xff....", 7);
    cli_write(folder, "bad/text.npy", "hello", 5);
    cli_write(folder, "bad/readme.txt", "hello", 5);
    cli_write(folder, "bad/.hidden.npy", "hello", 5);
    const struct image_set_options options = plain_options(in(folder, "bad"));
    struct image_set *set = open_images(&options);
    assert_int_equal(image_set_count(set, IMAGES_TRAINING), 1);
    assert_int_equal(image_set_count(set, IMAGES_HELD_OUT), 1);
    assert_int_equal(image_set_skipped(set), 6);
    assert_skipped(set, "small.npy", "7 x 7 pixels, expected 8 at least");
    assert_skipped(set, "nan.npy", "not finite");
    assert_skipped(set, "line.npy", "expected an array");
    assert_skipped(set, "broken.png", "");
    assert_skipped(set, "broken.jpeg", "");
    assert_skipped(set, "text.npy", "");
    image_set_free(set);
}

static void bad_folders_are_refused(void **state)
{
    const char *folder = *state;
    struct image_set_options options = plain_options(in(folder, "nowhere"));
    refuse_set(&options, "nowhere");
    make_folder(folder, "empty");
    options.folder = in(folder, "empty");
    refuse_set(&options, "no picture to learn from");
    make_folder(folder, "alone");
    write_flat(folder, "alone/0.npy", SIZE, 0);
    options.folder = in(folder, "alone");
    refuse_set(&options, "no picture to hold out (all are of one group: give --held_out)");
    make_folder(folder, "split");
    make_folder(folder, "split/train");
    make_folder(folder, "split/held_out");
    write_flat(folder, "split/train/0.npy", SIZE, 0);
    write_flat(folder, "split/held_out/0.npy", SIZE, 0);
    options.folder = in(folder, "split");
    refuse_set(&options, "--held_out");
    options.folder = in(folder, "split/train");
    options.held_out_folder = in(folder, "split/held_out");
    image_set_free(open_images(&options));
    options.memory_limit_bytes = 3 * SIZE * SIZE;
    refuse_set(&options, "--shrink");
    options.memory_limit_bytes = 0;
    options.shrink = SIZE - 1;
    refuse_set(&options, "--shrink 7: expected 8 at least");
    options.shrink = SIZE;
    options.held_out_folder = in(folder, "split/./train/");
    refuse_set(&options, "lies in --data");
    options.folder = in(folder, "split");
    refuse_set(&options, "lies in --data");
    options.held_out_folder = in(folder, "split_elsewhere");
    refuse_set(&options, "split_elsewhere: cannot read");
}

static void links_to_folders_are_not_followed(void **state)
{
    const char *folder = *state;
    make_folder(folder, "links");
    make_folder(folder, "links/a");
    write_flat(folder, "links/a/0.npy", SIZE, 0);
    write_flat(folder, "links/1.npy", SIZE, 0);
    assert_int_equal(symlink("..", in(folder, "links/a/up")), 0);
    assert_int_equal(symlink("a", in(folder, "links/b")), 0);
    assert_int_equal(symlink("1.npy", in(folder, "links/2.npy")), 0);
    assert_int_equal(symlink("nothing.npy", in(folder, "links/3.npy")), 0);
    const struct image_set_options options = plain_options(in(folder, "links"));
    struct image_set *set = open_images(&options);
    assert_int_equal(image_set_count(set, IMAGES_TRAINING) + image_set_count(set, IMAGES_HELD_OUT),
                     3);
    assert_int_equal(image_set_skipped(set), 2);
    assert_skipped(set, "links/a/up", "a linked folder is not searched");
    assert_skipped(set, "links/b", "a linked folder is not searched");
    image_set_free(set);
}

/* ---- the split ---- */

static bool holds_out(const struct image_set *set, const char *part)
{
    for (int i = 0; i < image_set_count(set, IMAGES_HELD_OUT); i++)
        if (strstr(image_set_name(set, IMAGES_HELD_OUT, i), part))
            return true;
    return false;
}

static bool learns(const struct image_set *set, const char *part)
{
    for (int i = 0; i < image_set_count(set, IMAGES_TRAINING); i++)
        if (strstr(image_set_name(set, IMAGES_TRAINING, i), part))
            return true;
    return false;
}

static void groups_stay_whole_and_where_they_are(void **state)
{
    enum { GROUPS = 24 };
    const char *folder = *state;
    char name[64];
    bool before[GROUPS];
    make_folder(folder, "groups");
    for (int group = 0; group < GROUPS; group++) {
        snprintf(name, sizeof name, "groups/patient%02d", group);
        make_folder(folder, name);
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "groups/patient%02d/%d.npy", group, i);
            write_flat(folder, name, SIZE, 0);
        }
    }
    const struct image_set_options options = plain_options(in(folder, "groups"));
    struct image_set *set = open_images(&options);
    int held_out = 0;
    for (int group = 0; group < GROUPS; group++) {
        snprintf(name, sizeof name, "patient%02d/", group);
        before[group] = holds_out(set, name);
        held_out += before[group];
        assert_true(before[group] != learns(set, name));
    }
    assert_true(held_out >= 2 && held_out <= GROUPS / 2);
    assert_int_equal(image_set_count(set, IMAGES_HELD_OUT), 3 * held_out);
    image_set_free(set);
    make_folder(folder, "groups/another");
    write_flat(folder, "groups/another/0.npy", SIZE, 0);
    set = open_images(&options);
    for (int group = 0; group < GROUPS; group++) {
        snprintf(name, sizeof name, "patient%02d/", group);
        assert_int_equal(holds_out(set, name), before[group]);
    }
    image_set_free(set);
}

/* ---- what is shown ---- */

static void every_epoch_shows_each_picture_once(void **state)
{
    enum { PICTURES = 7 };
    const char *folder = *state;
    char name[64];
    float picture[SIZE * SIZE];
    int order[3][PICTURES];
    make_folder(folder, "shown");
    make_folder(folder, "judged");
    for (int i = 0; i < PICTURES; i++) {
        snprintf(name, sizeof name, "shown/%d.npy", i);
        write_flat(folder, name, SIZE + i, (float)i / 10);
    }
    write_flat(folder, "judged/0.npy", SIZE, 0);
    struct image_set_options options = plain_options(in(folder, "shown"));
    options.held_out_folder = in(folder, "judged");
    struct image_set *set = open_images(&options);
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[PICTURES] = {false};
        for (int i = 0; i < PICTURES; i++) {
            image_set_draw(set, 5, (uint64_t)(epoch * PICTURES + i), picture);
            int which = (int)lround(10 * (double)picture[0]);
            assert_in_range(which, 0, PICTURES - 1);
            assert_false(seen[which]);
            seen[which] = true;
            order[epoch][i] = which;
        }
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    assert_memory_not_equal(order[1], order[2], sizeof order[0]);
    image_set_free(set);
}

/* A ramp to the right, and its square downwards: what is shown tells where from. */
static void write_ramp(const char *folder, const char *name, int height, int width)
{
    float values[MOST * MOST];
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            values[y * width + x] = (float)(x - 10) / 20 + (float)(y * y) / 1000;
    write_npy(in(folder, name), values, 2, (int64_t[]){height, width});
}

static void changes_are_functions_of_seed_and_index(void **state)
{
    const char *folder = *state;
    float a[SIZE * SIZE], b[SIZE * SIZE];
    make_folder(folder, "ramp");
    make_folder(folder, "ramp_judged");
    write_ramp(folder, "ramp/0.npy", 20, 16);
    write_ramp(folder, "ramp_judged/0.npy", 20, 16);
    struct image_set_options options = plain_options(in(folder, "ramp"));
    options.held_out_folder = in(folder, "ramp_judged");
    options.flip = true;
    options.rotate_degrees = 20;
    options.zoom = 1.3;
    options.shift = 0.1;
    struct image_set *set = open_images(&options), *again = open_images(&options);
    int flipped = 0;
    for (uint64_t index = 0; index < 64; index++) {
        image_set_draw(set, 9, index, a);
        image_set_draw(again, 9, index, b);
        assert_memory_equal(a, b, sizeof a);
        image_set_draw(again, 10, index, b);
        assert_memory_not_equal(a, b, sizeof a);
        for (int i = 0; i < SIZE * SIZE; i++)
            assert_true(fabsf(a[i]) <= 1);
        flipped += a[SIZE / 2 * SIZE] > a[SIZE / 2 * SIZE + SIZE - 1];
    }
    assert_in_range(flipped, 16, 48);
    image_set_free(again);
    /* the held-out one is the middle as it is */
    image_set_held_out(set, 0, a);
    for (int y = 0; y < SIZE; y++)
        for (int x = 0; x < SIZE; x++)
            assert_near(a[y * SIZE + x], (x + 4 - 10) / 20.0 + pow(y + 6, 2) / 1000, 1e-6);
    image_set_free(set);
}

/* All six orders, each about as often; the held-out picture keeps its own. */
static void colors_are_shuffled(void **state)
{
    enum { DRAWS = 600, PLANE = SIZE * SIZE };
    const char *folder = *state;
    float values[3 * PLANE], picture[3 * PLANE];
    int times[3][3] = {{0}};
    make_folder(folder, "colors");
    make_folder(folder, "colors_judged");
    for (int i = 0; i < 3 * PLANE; i++)
        values[i] = (float)(i / PLANE) / 4;
    write_npy(in(folder, "colors/0.npy"), values, 4, (int64_t[]){1, 3, SIZE, SIZE});
    write_npy(in(folder, "colors_judged/0.npy"), values, 4, (int64_t[]){1, 3, SIZE, SIZE});
    struct image_set_options options = plain_options(in(folder, "colors"));
    options.held_out_folder = in(folder, "colors_judged");
    options.channels = 3;
    options.shuffle_colors = true;
    struct image_set *set = open_images(&options);
    for (uint64_t index = 0; index < DRAWS; index++) {
        image_set_draw(set, 1, index, picture);
        int first = (int)(4 * picture[0]), second = (int)(4 * picture[PLANE]),
            third = (int)(4 * picture[2 * PLANE]);
        assert_int_equal((1 << first) + (1 << second) + (1 << third), 7);
        times[first][second]++;
    }
    for (int first = 0; first < 3; first++)
        for (int second = 0; second < 3; second++)
            if (first != second)
                assert_in_range(times[first][second], DRAWS / 10, DRAWS / 4);
    image_set_held_out(set, 0, picture);
    assert_memory_equal(picture, values, sizeof values);
    image_set_free(set);
}

static void shrinking_takes_means(void **state)
{
    const char *folder = *state;
    float values[2 * SIZE * 4 * SIZE], picture[SIZE * SIZE];
    make_folder(folder, "large");
    make_folder(folder, "large_judged");
    for (int i = 0; i < 2 * SIZE * 4 * SIZE; i++)
        values[i] = i % 2 ? 0.5f : 0.1f;
    write_npy(in(folder, "large_judged/0.npy"), values, 2, (int64_t[]){2 * SIZE, 4 * SIZE});
    write_flat(folder, "large/0.npy", SIZE, 0);
    struct image_set_options options = plain_options(in(folder, "large"));
    options.held_out_folder = in(folder, "large_judged");
    options.shrink = SIZE;
    struct image_set *set = open_images(&options);
    image_set_held_out(set, 0, picture);
    for (int i = 0; i < SIZE * SIZE; i++)
        assert_near(picture[i], 0.3, 1e-6);
    image_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_read),
        cmocka_unit_test(a_stack_is_many_pictures),
        cmocka_unit_test(what_cannot_be_used_is_listed),
        cmocka_unit_test(bad_folders_are_refused),
        cmocka_unit_test(links_to_folders_are_not_followed),
        cmocka_unit_test(groups_stay_whole_and_where_they_are),
        cmocka_unit_test(every_epoch_shows_each_picture_once),
        cmocka_unit_test(changes_are_functions_of_seed_and_index),
        cmocka_unit_test(colors_are_shuffled),
        cmocka_unit_test(shrinking_takes_means),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
