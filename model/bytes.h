/* Little-endian numbers at any alignment, and the one question a reader asks of every range. */
#ifndef MODEL_BYTES_H
#define MODEL_BYTES_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t load_little_endian(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static inline uint16_t load_u16(const unsigned char *bytes)
{
    return (uint16_t)load_little_endian(bytes, 2);
}

static inline uint32_t load_u32(const unsigned char *bytes)
{
    return (uint32_t)load_little_endian(bytes, 4);
}

static inline uint64_t load_u64(const unsigned char *bytes)
{
    return load_little_endian(bytes, 8);
}

/* Whether `length` bytes from `offset` lie within `size` bytes. */
static inline bool range_is_inside(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

#endif
