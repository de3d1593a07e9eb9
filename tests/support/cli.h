/* Runs the `resample` binary beside this test (build/resample, build/asan/resample, or $RESAMPLE)
 * in a temporary folder, and looks at what it leaves. Any failure fails the test that calls. */
#ifndef TESTS_SUPPORT_CLI_H
#define TESTS_SUPPORT_CLI_H

#include "runtime/array.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* cmocka's setup and teardown: *state is the path of a folder of the test's own. */
int cli_setup(void **state);
int cli_teardown(void **state);

/* Runs `resample ARGUMENTS` (printf-style, "@" standing for the folder) and returns its exit
 * status; what it printed lies in the folder's stdout and stderr. */
int cli_run(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, in the background: the process id. */
int cli_start(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fails unless the run ends with status 0, printing what it said. */
void cli_ok(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails unless the run ends with status 2 and one line "resample: error: ..." on stderr that names
 * the culprit. */
void cli_bad(const char *folder, const char *culprit, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Files of the folder; names printf-style where it helps. The caller frees. */
char *cli_text(const char *folder, const char *name);
struct array cli_array(const char *folder, const char *name);
cJSON *cli_json(const char *folder, const char *name);
bool cli_exists(const char *folder, const char *name);
void cli_write(const char *folder, const char *name, const void *bytes, size_t length);
void cli_write_text(const char *folder, const char *name, const char *text);
void cli_write_array(const char *folder, const char *name, const float *values, int n, int c, int h,
                     int w);
/* A picture of smooth random waves in [-1,1], [1,C,H,W]. The caller frees. */
float *cli_picture(int channels, int height, int width, unsigned seed);
bool cli_same_bytes(const char *folder, const char *a, const char *b);

#endif
