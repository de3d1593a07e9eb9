/* tools/card_memory.sh with an nvidia-smi of the test's own (tests/data/card_memory): which samples
 * count, whose memory they are, what the rows say, and what happens where nvidia-smi fails. At last
 * with the whole program on the emulator. */
#include "tests/support/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
enum { EMULATED = 0 };
#else
enum { EMULATED = 1 };
#endif

#define MODEL                                                                                      \
    "tests/data/tiny/tiny.yaml tests/data/tiny/tiny.ckpt tests/data/steps/gaussian_deblur.yaml "

/* Its exit status; what it printed lies in the folder's stdout and stderr. */
static int measure(const char *folder, const char *mode, const char *samples, int side,
                   int smallest)
{
    char command[1024];
    cli_write_text(folder, "samples", samples);
    cli_write_text(folder, "pid", "0\n");
    snprintf(command, sizeof command,
             "CARD_FOLDER=%s CARD_MODE=%s CARD_MEMORY_ITERATIONS=1 RESAMPLE_TUNING= "
             "PATH=tests/data/card_memory:$PATH "
             "sh tools/card_memory.sh tests/data/card_memory/program " MODEL
             "%d %d >%s/stdout 2>%s/stderr",
             folder, mode, side, smallest, folder, folder);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What stands in the row that begins so. */
static void expect_row(const char *text, const char *begin, const char *measured, const char *plan,
                       const char *paper)
{
    char found[3][32];
    const char *row = strstr(text, begin);
    if (!row || sscanf(row + strlen(begin), "%31s %31s %31s", found[0], found[1], found[2]) != 3)
        fail_msg("no row '%s' in:\n%s", begin, text);
    assert_string_equal(found[0], measured);
    assert_string_equal(found[1], plan);
    assert_string_equal(found[2], paper);
}

static void expect_rows(const char *folder, const char *measured_by)
{
    char *text = cli_text(folder, "stdout");
    expect_row(text, "model only (here: pictures of 32 x 32)", "2034", "1900", "3969");
    expect_row(text, "increment (64 x 64)", "+574", "+522", "+1040");
    expect_row(text, "\ntotal", "2608", "2422", "5009");
    assert_non_null(strstr(text, measured_by));
    free(text);
}

/* One line on stderr that says `what`, and no table. */
static void expect_complaint(const char *folder, const char *what)
{
    char *said = cli_text(folder, "stderr"), *table = cli_text(folder, "stdout");
    if (strncmp(said, "card_memory: ", 13) || !strstr(said, what) ||
        strchr(said, '\n') != said + strlen(said) - 1)
        fail_msg("expected one line with '%s', got: %s", what, said);
    assert_string_equal(table, "");
    free(table);
    free(said);
}

static void most_of_the_process_counts(void **state)
{
    assert_int_equal(measure(*state, "process", "0\n", 64, 32), 0);
    expect_rows(*state, "the most of the process's memory");
}

static void the_card_stands_for_a_process_that_is_not_shown(void **state)
{
    assert_int_equal(measure(*state, "container", "0\n", 64, 32), 0);
    expect_rows(*state, "less what was in use before");
}

static void failures_are_said_in_one_line(void **state)
{
    assert_int_equal(measure(*state, "broken", "0\n", 64, 32), 2);
    expect_complaint(*state, "couldn't communicate with the NVIDIA driver");
    assert_int_equal(measure(*state, "silent", "0\n", 64, 32), 2);
    expect_complaint(*state, "does not say how much memory is in use: [N/A]");
    assert_int_equal(measure(*state, "unsolved", "0\n", 64, 32), 1);
    expect_complaint(*state,
                     "32 x 32 pixels ended with status 2: resample: error: no CUDA backend");
}

static double planned_mib(const char *folder, int side)
{
    cli_ok(folder,
           "memory --model tests/data/tiny --task_config tests/data/steps/gaussian_deblur.yaml "
           "--device cuda --preset official --size %d --json",
           side);
    cJSON *json = cli_json(folder, "stdout");
    double bytes = cJSON_GetObjectItem(json, "total_bytes")->valuedouble +
                   cJSON_GetObjectItem(json, "assumed_context_bytes")->valuedouble;
    cJSON_Delete(json);
    return bytes / (1 << 20);
}

static void the_program_itself_is_measured(void **state)
{
    char emulated[512], plans[2][32];
    const char *folder = *state;
    ssize_t length = readlink("/proc/self/exe", emulated, sizeof emulated - 32);
    assert_true(length > 0);
    emulated[length] = '\0';
    strcpy(strrchr(emulated, '/'), "/resample-emulated");
    if (EMULATED == 0 || access(emulated, X_OK) != 0)
        skip(); /* the emulator is for x86_64, and slow under the sanitizers */
    setenv("RESAMPLE", emulated, 1);
    double smaller = planned_mib(folder, 16), larger = planned_mib(folder, 32);
    unsetenv("RESAMPLE");
    snprintf(plans[0], sizeof plans[0], "%.0f", smaller);
    snprintf(plans[1], sizeof plans[1], "%.0f", larger);
    setenv("CARD_PROGRAM", emulated, 1);
    int status = measure(folder, "process", "500\n", 32, 16);
    unsetenv("CARD_PROGRAM");
    if (status != 0)
        fail_msg("%s", cli_text(folder, "stderr"));
    char *text = cli_text(folder, "stdout");
    print_message("%s", text);
    expect_row(text, "model only (here: pictures of 16 x 16)", "500", plans[0], "3969");
    expect_row(text, "\ntotal", "500", plans[1], "5009");
    assert_true(larger > smaller);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(most_of_the_process_counts, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(the_card_stands_for_a_process_that_is_not_shown, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(failures_are_said_in_one_line, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(the_program_itself_is_measured, cli_setup, cli_teardown),
    };
    return cmocka_run_group_tests_name("card_memory", tests, NULL, NULL);
}
