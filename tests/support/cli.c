#include "tests/support/cli.h"

#include "tests/support/mutate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { COMMAND_BYTES = 8192, PATH_BYTES = 1024 };

int cli_setup(void **state)
{
    char *folder = strdup("/tmp/resample_cli_XXXXXX");
    *state = folder;
    return folder && mkdtemp(folder) ? 0 : -1;
}

int cli_teardown(void **state)
{
    char command[PATH_BYTES];
    snprintf(command, sizeof command, "rm -rf %s", (char *)*state);
    int code = system(command);
    free(*state);
    return code;
}

static const char *binary(void)
{
    static char path[PATH_BYTES];
    const char *given = getenv("RESAMPLE");
    if (given)
        return given;
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    assert_true(length > 0);
    path[length] = '\0';
    for (int up = 0; up < 2; up++) /* BUILD/tests/test_x -> BUILD */
        *strrchr(path, '/') = '\0';
    return strcat(path, "/resample");
}

static void build_command(char command[COMMAND_BYTES], const char *folder, const char *format,
                          va_list list)
{
    char arguments[COMMAND_BYTES / 2];
    vsnprintf(arguments, sizeof arguments, format, list);
    size_t used = (size_t)snprintf(command, COMMAND_BYTES, "exec %s ", binary());
    for (const char *c = arguments; *c && used + PATH_BYTES < COMMAND_BYTES; c++)
        if (*c == '@')
            used += (size_t)snprintf(command + used, PATH_BYTES, "%s", folder);
        else
            command[used++] = *c;
    snprintf(command + used, COMMAND_BYTES - used, " >%s/stdout 2>%s/stderr", folder, folder);
}

static int start(const char *folder, const char *format, va_list list)
{
    char command[COMMAND_BYTES];
    build_command(command, folder, format, list);
    int process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return process;
}

static int run(const char *folder, const char *format, va_list list)
{
    int process = start(folder, format, list), status;
    assert_int_equal(waitpid(process, &status, 0), process);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

int cli_run(const char *folder, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int code = run(folder, format, list);
    va_end(list);
    return code;
}

int cli_start(const char *folder, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int process = start(folder, format, list);
    va_end(list);
    return process;
}

void cli_ok(const char *folder, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int code = run(folder, format, list);
    va_end(list);
    if (code != 0) {
        char *message = cli_text(folder, "stderr");
        fail_msg("resample %s: exit status %d: %s", format, code, message);
    }
}

void cli_bad(const char *folder, const char *culprit, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int code = run(folder, format, list);
    va_end(list);
    char *message = cli_text(folder, "stderr");
    const char *end = strchr(message, '\n');
    if (code != 2 || strncmp(message, "resample: error: ", 17) != 0 || !end || end[1] != '\0' ||
        !strstr(message, culprit))
        fail_msg("resample %s: expected status 2 and one error line with '%s', got %d: %s", format,
                 culprit, code, message);
    free(message);
}

static const char *in_folder(char path[PATH_BYTES], const char *folder, const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", folder, name);
    return path;
}

char *cli_text(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    struct status status = {0};
    size_t length;
    char *text = file_read_text(in_folder(path, folder, name), 1 << 24, &length, &status);
    if (!text)
        fail_msg("%s", status.message);
    return text;
}

struct array cli_array(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    struct status status = {0};
    struct array array = {0};
    if (npy_read(&array, in_folder(path, folder, name), &status))
        fail_msg("%s", status.message);
    return array;
}

cJSON *cli_json(const char *folder, const char *name)
{
    char *text = cli_text(folder, name);
    cJSON *json = cJSON_Parse(text);
    if (!json)
        fail_msg("%s is not JSON: %s", name, text);
    free(text);
    return json;
}

bool cli_exists(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    return access(in_folder(path, folder, name), F_OK) == 0;
}

void cli_write(const char *folder, const char *name, const void *bytes, size_t length)
{
    char path[PATH_BYTES];
    FILE *file = fopen(in_folder(path, folder, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

void cli_write_text(const char *folder, const char *name, const char *text)
{
    cli_write(folder, name, text, strlen(text));
}

void cli_write_array(const char *folder, const char *name, const float *values, int n, int c, int h,
                     int w)
{
    char path[PATH_BYTES];
    struct status status = {0};
    const int64_t shape[4] = {n, c, h, w};
    if (npy_write(in_folder(path, folder, name), values, 4, shape, &status))
        fail_msg("%s", status.message);
}

float *cli_picture(int channels, int height, int width, unsigned seed)
{
    float *values = malloc((size_t)channels * (size_t)height * (size_t)width * sizeof *values);
    assert_non_null(values);
    float *out = values;
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                *out++ = 0.7f * sinf(0.13f * (float)(x * (c + 1)) + (float)seed) *
                         cosf(0.21f * (float)y + 0.5f * (float)c);
    return values;
}

bool cli_same_bytes(const char *folder, const char *a, const char *b)
{
    char path[PATH_BYTES];
    size_t a_length, b_length;
    unsigned char *a_bytes = mutate_load(in_folder(path, folder, a), &a_length);
    unsigned char *b_bytes = mutate_load(in_folder(path, folder, b), &b_length);
    assert_non_null(a_bytes);
    assert_non_null(b_bytes);
    bool same = a_length == b_length && memcmp(a_bytes, b_bytes, a_length) == 0;
    free(a_bytes);
    free(b_bytes);
    return same;
}
