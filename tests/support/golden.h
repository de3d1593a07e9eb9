/* Recorded arrays (tests/data) and how far a result is from them. */
#ifndef TESTS_SUPPORT_GOLDEN_H
#define TESTS_SUPPORT_GOLDEN_H

#include "runtime/array.h"

/* Reads an .npy file named printf-style; a failure fails the test. The caller frees it
 * (array_free). */
struct array golden_read(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* |a - b| / |b| in the Euclidean norm; NaN where a is not finite. */
double relative_difference(const float *a, const float *b, int64_t count);

#endif
