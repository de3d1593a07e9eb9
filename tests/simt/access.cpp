/* Every access of a kernel arrives here: from the instrumented code (g++ -fsanitize=thread calls a
 * __tsan_ function before each, and these are ours, not libtsan's) and from the emulator's own
 * operations. */
#include "tests/simt/order.h"

#include <stdio.h>

namespace simt
{

extern "C" char __executable_start, _end;

const char *name_of(effect kind)
{
    return kind == effect::load ? "load" : kind == effect::store ? "store" : "atomic";
}

void describe_address(char *text, size_t size, uintptr_t address)
{
    if (is_shared(reinterpret_cast<void *>(address)))
        describe_shared(text, size, address);
    else
        describe_global(text, size, address);
}

static void watch_elsewhere(const thread &thread, const access &access)
{
    uintptr_t low = reinterpret_cast<uintptr_t>(&__executable_start);
    if (access.address - low < static_cast<uintptr_t>(&_end - &__executable_start))
        return; /* __constant__ and __device__ variables, tables */
    report(SIMT_WILD_ACCESS, &thread, access.where, 0, "%s of %u bytes at %#zx",
           name_of(access.kind), access.bytes, access.address);
    abandon_launch();
}

void watch(thread &thread, const access &access)
{
    if (!WATCHED)
        return;
    settle_store();
    bool global = is_global(access.address);
    if (!global && !is_shared(reinterpret_cast<void *>(access.address))) {
        watch_elsewhere(thread, access);
        return;
    }
    if (access.address % access.bytes) {
        char where[96];
        describe_address(where, sizeof where, access.address);
        report(SIMT_MISALIGNED, &thread, access.where, 0, "%s of %u bytes at %s",
               name_of(access.kind), access.bytes, where);
        abandon_launch();
    }
    /* first, for it may let other threads run, and the access must follow its check at once */
    log_access(thread, {access.address, access.where, static_cast<uint8_t>(access.bytes),
                        access.kind, global ? space::global : space::shared});
    if (global)
        watch_global(thread, access);
    else
        watch_shared(thread, access);
}

/* Called on every load and store of every thread, most of them to its own stack. */
static inline void arrive(const void *address, unsigned bytes, effect kind, const void *pc)
{
    uintptr_t number = reinterpret_cast<uintptr_t>(address);
    if (!M.running || number - M.stack < STACK_BYTES)
        return;
    watch(*M.current, {number, bytes, kind, place_of(pc)});
}

/* An access of a type that need not be aligned: the card's compiler makes small ones of it. */
static void arrive_in_parts(const void *address, size_t bytes, effect kind, const void *pc)
{
    uintptr_t number = reinterpret_cast<uintptr_t>(address);
    unsigned part = (number | bytes) % 4 == 0 ? 4 : (number | bytes) % 2 == 0 ? 2 : 1;
    for (size_t i = 0; i < bytes; i += part)
        arrive(static_cast<const char *>(address) + i, part, kind, pc);
}

} // namespace simt

using simt::effect;

void simt_atomic_access(const void *address, size_t bytes, simt_site site)
{
    if (!M.running)
        return;
    simt::watch(*M.current, {reinterpret_cast<uintptr_t>(address), static_cast<unsigned>(bytes),
                             effect::atomic, simt::place_of(site)});
    if (M.current->fenced)
        M.released[M.block] = M.clock;
    M.current->fenced = false;
    M.acquired = true;
}

void simt_threadfence(void)
{
    if (M.running)
        M.current->fenced = true;
}

/* ---- what the instrumented code calls ---- */
#define PC __builtin_return_address(0)
#define ACCESS(bytes)                                                                              \
    void __tsan_read##bytes(void *address)                                                         \
    {                                                                                              \
        simt::arrive(address, bytes, effect::load, PC);                                            \
    }                                                                                              \
    void __tsan_write##bytes(void *address)                                                        \
    {                                                                                              \
        simt::arrive(address, bytes, effect::store, PC);                                           \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *address)                                               \
    {                                                                                              \
        simt::arrive_in_parts(address, bytes, effect::load, PC);                                   \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *address)                                              \
    {                                                                                              \
        simt::arrive_in_parts(address, bytes, effect::store, PC);                                  \
    }

/* What code outside kernels may need: one thread runs at a time, so plain operations will do. */
#define ATOMIC(bits, type)                                                                         \
    type __tsan_atomic##bits##_load(const volatile type *address, int)                             \
    {                                                                                              \
        simt::arrive(const_cast<type *>(address), sizeof(type), effect::atomic, PC);               \
        return *address;                                                                           \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile type *address, type value, int)                      \
    {                                                                                              \
        simt::arrive(const_cast<type *>(address), sizeof(type), effect::atomic, PC);               \
        *address = value;                                                                          \
    }                                                                                              \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *address, type *expected,      \
                                                      type value, int, int)                        \
    {                                                                                              \
        simt::arrive(const_cast<type *>(address), sizeof(type), effect::atomic, PC);               \
        type old = *address;                                                                       \
        bool same = old == *expected;                                                              \
        *(same ? address : expected) = same ? value : old;                                         \
        return same;                                                                               \
    }
#define UPDATE(bits, type, name, expression)                                                       \
    type __tsan_atomic##bits##_##name(volatile type *address, type value, int)                     \
    {                                                                                              \
        simt::arrive(const_cast<type *>(address), sizeof(type), effect::atomic, PC);               \
        type old = *address;                                                                       \
        *address = expression;                                                                     \
        return old;                                                                                \
    }
#define UPDATES(bits, type)                                                                        \
    UPDATE(bits, type, exchange, value)                                                            \
    UPDATE(bits, type, fetch_add, old + value)                                                     \
    UPDATE(bits, type, fetch_sub, old - value)                                                     \
    UPDATE(bits, type, fetch_and, old &value)                                                      \
    UPDATE(bits, type, fetch_or, old | value)                                                      \
    UPDATE(bits, type, fetch_xor, old ^ value)

/* clang-format off */
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
UPDATES(8, uint8_t)
UPDATES(16, uint16_t)
UPDATES(32, uint32_t)
UPDATES(64, uint64_t)

void __tsan_read_range(void *address, unsigned long bytes)
{
    simt::arrive_in_parts(address, bytes, effect::load, PC);
}

void __tsan_write_range(void *address, unsigned long bytes)
{
    simt::arrive_in_parts(address, bytes, effect::store, PC);
}

void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_read(void **) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

/* -fsanitize=bounds: an index beyond an array of known size. The layout is GCC's. */
struct bounds_site {
    const char *file;
    uint32_t line, column;
};

void __ubsan_handle_out_of_bounds(bounds_site *site, uintptr_t index)
{
    if (!M.running)
        return;
    simt::report(SIMT_ARRAY_BOUNDS, M.current,
                 simt::place_of(simt_site{site->file, static_cast<int>(site->line)}), 0,
                 "index %td", static_cast<ptrdiff_t>(index));
}
}
/* clang-format on */
