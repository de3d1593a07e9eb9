/* Errors: every call that can fail returns a status code and writes one message, at the place that
 * knows what went wrong. The codes are the program's exit statuses. The message is one line without
 * a final newline: what is wrong, where, what was expected. The first message wins: a caller that
 * passes an error on leaves it as it is. */
#ifndef RUNTIME_STATUS_H
#define RUNTIME_STATUS_H

#include <stdbool.h>

enum status_code {
    STATUS_OK = 0,
    STATUS_FAILURE = 1,   /* something broke on the way: NaN, out of memory, a write that failed */
    STATUS_BAD_INPUT = 2, /* the user's file, flag or value is wrong */
    STATUS_INTERRUPTED = 130 /* Ctrl-C */
};

struct status {
    int code;
    char message[1024];
};

/* Sets code and message unless an error is set already; returns the code that stands. */
int status_set(struct status *status, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "PREFIX: " before the message of an error that is set (a file name, say). */
void status_prefix(struct status *status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline bool status_ok(const struct status *status)
{
    return status->code == STATUS_OK;
}

/* Memory that is zeroed; NULL and an error (STATUS_FAILURE, naming `what`) if count * size
 * overflows or there is none. */
void *status_calloc(struct status *status, unsigned long count, unsigned long size,
                    const char *what);

#endif
