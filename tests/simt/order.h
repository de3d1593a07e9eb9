/* Who last accessed each four bytes of memory, and whether accesses race (order.cpp). */
#ifndef TESTS_SIMT_ORDER_H
#define TESTS_SIMT_ORDER_H

#include "tests/simt/internal.h"

namespace simt
{

struct record {
    uint32_t clock, block;
    place where;
    uint16_t thread;
    uint8_t bytes; /* a bit each */
    uint8_t atomic;
};

struct cell {
    record store[2], load[2];
};

enum : size_t { WORD = 4 };
enum : uint8_t { ALL_BYTES = 0xf };

/* Notes an access in the cells of a memory, at an offset in it, and reports races as `kind`. */
void pass_cells(thread &thread, cell *cells, uintptr_t offset, const access &access,
                simt_kind kind);
/* A store made in the thread's name, known to be in order. */
void note_store(thread &thread, cell *cells, uintptr_t offset, unsigned bytes, place where);

/* What messages call an access and an address. */
const char *name_of(effect kind);
void describe_address(char *text, size_t size, uintptr_t address);
void describe_shared(char *text, size_t size, uintptr_t address);
void describe_global(char *text, size_t size, uintptr_t address);

bool is_global(uintptr_t address);
void watch_shared(thread &thread, const access &access);
void watch_global(thread &thread, const access &access);

} // namespace simt

#endif
