/* bench/card/convolutions on the emulator: its list, its rows and their sums, PyTorch's times from
 * a file. cuDNN's column needs a card. */
#include "tests/support/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHAPE_END = 48, NAME_WIDTH = 16, TOTAL_END = 67 };

#ifdef __SANITIZE_ADDRESS__
enum { EMULATED = 0 };
#else
enum { EMULATED = 1 };
#endif

/* Skips where there is no emulator, or only a slow one. */
static int run(const char *folder, const char *arguments)
{
    char program[512], command[2048];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 32);
    assert_true(length > 0);
    program[length] = '\0';
    strcpy(strrchr(program, '/'), "/convolutions-emulated");
    if (EMULATED == 0 || access(program, X_OK) != 0)
        skip();
    snprintf(command, sizeof command, "%s tests/data/tiny/tiny.yaml 16 %s >%s/stdout 2>%s/stderr",
             program, arguments, folder, folder);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int list_shapes(const char *folder, char **text)
{
    int count = 0;
    assert_int_equal(run(folder, "list"), 0);
    *text = cli_text(folder, "stdout");
    for (const char *c = *text; *c; c++)
        count += *c == '\n';
    return count;
}

/* Every shape's times differ. */
static void write_pytorch(const char *folder, int shapes)
{
    char text[8192] = "";
    for (int i = 0; i < shapes; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d.1 %d.2 %d.3 %d.4\n", i, i, i,
                 i);
    cli_write_text(folder, "pytorch", text);
}

static void list_has_the_networks_convolutions(void **state)
{
    char *text;
    assert_true(list_shapes(*state, &text) > 20);
    /* the decoder's first and last 3x3, and an upsampled one: n h w i o kh kw stride pads upsample
     */
    assert_non_null(strstr(text, "\n1 4 4 3 64 3 3 1 1 1 1 1 1\n"));
    assert_non_null(strstr(text, "\n1 16 16 32 3 3 3 1 1 1 1 1 1\n"));
    assert_non_null(strstr(text, "\n1 8 8 64 64 3 3 1 1 1 1 1 2\n"));
    free(text);
}

static void rows_add_up(void **state)
{
    const char *folder = *state;
    char *list, arguments[512];
    int shapes = list_shapes(folder, &list), forward = -1, backward = 0, totals = 0;
    double sums[2][5] = {{0}};
    free(list);
    write_pytorch(folder, shapes);
    snprintf(arguments, sizeof arguments, "1 %s/pytorch", folder);
    assert_int_equal(run(folder, arguments), 0);
    char *text = cli_text(folder, "stdout");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        bool is_forward = strncmp(line, "forward ", 8) == 0;
        bool is_backward = strncmp(line, "backward ", 9) == 0;
        int calls[2], used = 0;
        double ms[5], tflops;
        forward += is_forward;
        backward += is_backward;
        if (is_forward || is_backward) {
            assert_int_equal(sscanf(line + SHAPE_END, "%d+%d %lf %lf %lf %n", &calls[0], &calls[1],
                                    &ms[0], &tflops, &ms[1], &used),
                             5);
            assert_int_equal(sscanf(line + SHAPE_END + used + NAME_WIDTH, "%lf - - %lf %lf", &ms[2],
                                    &ms[3], &ms[4]),
                             3);
            assert_true(ms[0] > 0 && ms[1] > 0 && ms[2] > 0);
            double fraction = is_backward ? 0.2 : 0.1;
            assert_true(fabs(ms[3] - (forward + fraction)) < 1e-6);
            assert_true(fabs(ms[4] - (forward + fraction + 0.2)) < 1e-6);
            for (int i = 0; i < 5; i++) {
                sums[0][i] += calls[0] * ms[i];
                sums[1][i] += calls[1] * ms[i];
            }
        } else if (strncmp(line, "convolutions of ", 16) == 0) {
            assert_int_equal(sscanf(line + TOTAL_END, "%lf %lf %lf - - %lf %lf", &ms[0], &ms[1],
                                    &ms[2], &ms[3], &ms[4]),
                             5);
            for (int i = 0; i < 5; i++)
                if (fabs(ms[i] - sums[totals][i]) > 0.005)
                    fail_msg("%s: column %d: expected %g", line, i, sums[totals][i]);
            totals++;
        }
    }
    free(text);
    assert_int_equal(forward + 1, shapes);
    assert_true(backward > 5 && totals == 2);
}

static void bad_input_is_named(void **state)
{
    const char *folder = *state;
    char arguments[512];
    cli_write_text(folder, "short", "1 2 3\n");
    snprintf(arguments, sizeof arguments, "1 %s/short", folder);
    assert_int_equal(run(folder, arguments), 2);
    char *said = cli_text(folder, "stderr");
    assert_string_equal(said,
                        "convolutions: PyTorch's times are not four numbers for each shape\n");
    free(said);
    assert_int_equal(run(folder, "0"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(list_has_the_networks_convolutions, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(rows_add_up, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(bad_input_is_named, cli_setup, cli_teardown),
    };
    return cmocka_run_group_tests_name("card_convolutions", tests, NULL, NULL);
}
