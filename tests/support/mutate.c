#include "tests/support/mutate.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct buffer {
    unsigned char *bytes;
    size_t length, capacity;
    uint64_t state;
};

/* splitmix64 */
static uint64_t next(struct buffer *buffer)
{
    uint64_t z = buffer->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(struct buffer *buffer, size_t limit)
{
    return limit ? (size_t)(next(buffer) % limit) : 0;
}

/* Headers sit at the ends of files: half of all places are near one. */
static size_t place(struct buffer *buffer)
{
    size_t near = buffer->length < 512 ? buffer->length : 512;
    switch (below(buffer, 4)) {
    case 0:
        return below(buffer, near);
    case 1:
        return buffer->length - near + below(buffer, near);
    default:
        return below(buffer, buffer->length);
    }
}

static void flip_bit(struct buffer *buffer)
{
    buffer->bytes[place(buffer)] ^= (unsigned char)(1u << below(buffer, 8));
}

static void set_byte(struct buffer *buffer)
{
    static const unsigned char telling[] = {0, 1, 0x7f, 0x80, 0xff, '0', '9', '-', '"', '{', '['};
    size_t choice = below(buffer, sizeof telling * 2);
    buffer->bytes[place(buffer)] =
        choice < sizeof telling ? telling[choice] : (unsigned char)next(buffer);
}

/* An integer of 1 to 8 bytes, little or big endian: an extreme, the file's length, or one off. */
static void set_integer(struct buffer *buffer)
{
    size_t width = (size_t)1 << below(buffer, 4), at = place(buffer);
    if (at + width > buffer->length)
        return;
    int big_endian = (int)below(buffer, 2);
    uint64_t old = 0;
    for (size_t i = 0; i < width; i++)
        old |= (uint64_t)buffer->bytes[at + (big_endian ? width - 1 - i : i)] << (8 * i);
    const uint64_t values[] = {0,
                               1,
                               old - 1,
                               old + 1,
                               old * 2,
                               ~(uint64_t)0,
                               ~(uint64_t)0 >> 1,
                               (uint64_t)1 << (8 * width - 1),
                               buffer->length,
                               buffer->length - at,
                               (uint64_t)1 << below(buffer, 64),
                               next(buffer)};
    uint64_t value = values[below(buffer, sizeof values / sizeof *values)];
    for (size_t i = 0; i < width; i++)
        buffer->bytes[at + (big_endian ? width - 1 - i : i)] = (unsigned char)(value >> (8 * i));
}

/* Numbers of text formats: the first run of digits after a place becomes other digits. */
static void set_digits(struct buffer *buffer)
{
    size_t at = place(buffer);
    while (at < buffer->length && (buffer->bytes[at] < '0' || buffer->bytes[at] > '9'))
        at++;
    int all_nines = (int)below(buffer, 2);
    for (; at < buffer->length && buffer->bytes[at] >= '0' && buffer->bytes[at] <= '9'; at++)
        buffer->bytes[at] = all_nines ? '9' : (unsigned char)('0' + below(buffer, 10));
}

static void cut_end(struct buffer *buffer)
{
    buffer->length = below(buffer, buffer->length + 1);
}

static void remove_range(struct buffer *buffer)
{
    size_t at = place(buffer), count = 1 + below(buffer, 64);
    if (count > buffer->length - at)
        count = buffer->length - at;
    memmove(buffer->bytes + at, buffer->bytes + at + count, buffer->length - at - count);
    buffer->length -= count;
}

static void insert_copy(struct buffer *buffer)
{
    size_t from = place(buffer), to = place(buffer), count = 1 + below(buffer, 64);
    unsigned char copy[64];
    if (count > buffer->length - from)
        count = buffer->length - from;
    if (count > buffer->capacity - buffer->length)
        return;
    memcpy(copy, buffer->bytes + from, count);
    memmove(buffer->bytes + to + count, buffer->bytes + to, buffer->length - to);
    memcpy(buffer->bytes + to, copy, count);
    buffer->length += count;
}

static void overwrite_copy(struct buffer *buffer)
{
    size_t from = place(buffer), to = place(buffer), count = 1 + below(buffer, 64);
    size_t room = buffer->length - (from > to ? from : to);
    memmove(buffer->bytes + to, buffer->bytes + from, count < room ? count : room);
}

unsigned char *mutate(uint64_t seed, const unsigned char *original, size_t length,
                      size_t *mutated_length)
{
    static void (*const mutations[])(struct buffer *) = {
        flip_bit,    flip_bit, set_byte,     set_byte,    set_integer,    set_integer,
        set_integer, cut_end,  remove_range, insert_copy, overwrite_copy, set_digits};
    struct buffer buffer = {malloc(length + 1024), length, length + 1024, seed};
    if (!buffer.bytes)
        abort();
    memcpy(buffer.bytes, original, length);
    size_t steps = 1 + below(&buffer, 4);
    for (size_t i = 0; i < steps && buffer.length > 0; i++)
        mutations[below(&buffer, sizeof mutations / sizeof *mutations)](&buffer);
    unsigned char *exact = malloc(buffer.length ? buffer.length : 1);
    if (!exact)
        abort();
    memcpy(exact, buffer.bytes, buffer.length);
    free(buffer.bytes);
    *mutated_length = buffer.length;
    return exact;
}

/* What a crash handler may print: it is told before each mutation. */
static char running[256];

static void print_running(void)
{
    if (running[0] && write(STDERR_FILENO, running, strlen(running)) < 0)
        return;
}

static void print_and_crash(int signal_number)
{
    print_running();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* The sanitizers' own hook, present in their builds only. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Signals too under a sanitizer: cmocka's own handlers stand before the sanitizer's. */
static void watch_for_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(print_running);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], print_and_crash);
}

static int run_one(uint64_t seed, const unsigned char *original, size_t length, int file,
                   const char *path, int (*reader)(const struct mutation *, void *), void *context)
{
    struct mutation mutation = {.path = path};
    unsigned char *bytes = mutate(seed, original, length, &mutation.length);
    int result = 1;
    mutation.bytes = bytes;
    if (ftruncate(file, (off_t)mutation.length) != 0 ||
        pwrite(file, bytes, mutation.length, 0) != (ssize_t)mutation.length)
        fprintf(stderr, "mutate: cannot write the file in memory\n");
    else
        result = reader(&mutation, context);
    free(bytes);
    return result;
}

int mutate_run(const char *name, const unsigned char *original, size_t length, uint64_t first_seed,
               int count, int (*reader)(const struct mutation *mutation, void *context),
               void *context)
{
    const char *only = getenv("RESAMPLE_MUTATE_SEED");
    if (only) {
        first_seed = strtoull(only, NULL, 0);
        count = 1;
    }
    int file = memfd_create("mutation", MFD_CLOEXEC);
    if (file < 0)
        return 1;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    watch_for_crashes();
    int result = 0;
    for (int i = 0; i < count && result == 0; i++) {
        uint64_t seed = first_seed + (uint64_t)i;
        snprintf(running, sizeof running,
                 "mutation of %s failed: run again with RESAMPLE_MUTATE_SEED=%llu\n", name,
                 (unsigned long long)seed);
        result = run_one(seed, original, length, file, path, reader, context);
    }
    if (result != 0)
        print_running();
    running[0] = 0;
    close(file);
    return result;
}

unsigned char *mutate_load(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    unsigned char *bytes = NULL;
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (size >= 0 && fseek(file, 0, SEEK_SET) == 0)
        bytes = malloc(size ? (size_t)size : 1);
    if (bytes && fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        free(bytes);
        bytes = NULL;
    }
    fclose(file);
    *length = bytes ? (size_t)size : 0;
    return bytes;
}
