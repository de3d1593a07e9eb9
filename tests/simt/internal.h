/* What the emulator's sources share. One launch runs at a time, on one OS thread; blocks one after
 * another; the threads of a block are fibres. */
#ifndef TESTS_SIMT_INTERNAL_H
#define TESTS_SIMT_INTERNAL_H

#include "tests/simt/report.h"
#include "tests/simt/types.h"

#include <string>
#include <vector>

namespace simt
{

enum : unsigned { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP };
/* ASan and the watching of accesses exclude each other: both instrument every access. Whole solves
 * go without. */
#ifdef __SANITIZE_ADDRESS__
static constexpr bool WATCHED = false;
static constexpr size_t STACK_BYTES = 256 << 10;
#elif defined(SIMT_WITHOUT_WATCH)
static constexpr bool WATCHED = false;
static constexpr size_t STACK_BYTES = 64 << 10;
#else
static constexpr bool WATCHED = true;
static constexpr size_t STACK_BYTES = 64 << 10;
#endif

/* Whether mma cuts its sums as the cards do. */
#ifdef SIMT_WITHOUT_WATCH
static constexpr bool ROUNDS_AS_CARDS = false;
#else
static constexpr bool ROUNDS_AS_CARDS = true;
#endif

/* A place in a kernel: the offset of an instruction in the program, or a number for a site. */
typedef uint32_t place;
place place_of(simt_site site);
/* "file:line", each; slow: asks addr2line once for all. */
std::vector<std::string> describe(const std::vector<place> &places);

enum class space : uint8_t { global, shared };
enum class effect : uint8_t { load, store, atomic };

struct access {
    uintptr_t address;
    unsigned bytes;
    effect kind;
    place where;
};

struct logged_access {
    uintptr_t address;
    place where;
    uint8_t bytes;
    effect kind;
    space memory;
};
enum : unsigned { LOG_CAPACITY = 512 };

struct async_copy {
    char *target;
    const char *source;
    unsigned bytes, source_bytes;
    bool committed;
    unsigned group;
    unsigned char snapshot[16]; /* of the source at issue */
    place where;
};

enum class state : uint8_t { ready, at_barrier, at_warp, log_full, exited };

struct collective; /* a _sync operation in which a lane waits, warp.cpp */

struct thread {
    void *stack_pointer;
    char *stack;
    uint3 index;
    unsigned number; /* in the block */
    state now;
    uint32_t clock;
    collective *waiting;
    struct {
        int kind, predicate;
        simt_site site;
        int result;
    } barrier;
    bool fenced; /* since its last atomic */
    unsigned groups;
    std::vector<async_copy> copies;
    unsigned logged;
    logged_access *log;
    uint32_t seen[WARP]; /* clocks of the warp's lanes that a partial __syncwarp ordered before */
};

struct warp {
    uint32_t alive, waiting; /* lanes; waiting: for a collective operation */
    uint32_t base;           /* the clock of the last __syncwarp of all */
};

struct machine {
    /* what every access looks at */
    bool running;
    thread *current;
    uintptr_t stack;   /* of the current thread */
    uintptr_t program; /* where it is loaded */

    simt_options options = {1, 80, false};
    const char *kernel;
    unsigned threads, warps, alive, at_barrier;
    bool abandoned;
    thread thread_[MAX_THREADS];
    warp warp_[MAX_WARPS];
    void (*body)(const void *);
    const void *closure;
    void *scheduler; /* its stack pointer */

    uint32_t clock; /* counts the events that order accesses */
    uint32_t launch_base, block_base;
    uint32_t block;                 /* its number in the grid */
    std::vector<uint32_t> released; /* by a fence and an atomic: clock, per block */
    bool acquired;                  /* an atomic of this block came after */

    simt_counters counters;
    uint64_t random;
};
extern machine simt_machine;
#define M simt::simt_machine

static inline place place_of(const void *pc)
{
    return static_cast<place>(reinterpret_cast<uintptr_t>(pc) - M.program);
}

static inline unsigned lane_of(const thread &thread)
{
    return thread.number % WARP;
}

static inline warp &warp_of(const thread &thread)
{
    return M.warp_[thread.number / WARP];
}

static inline thread &lane(const thread &thread, unsigned number)
{
    return M.thread_[thread.number / WARP * WARP + number];
}

/* ---- report.cpp ---- */
void report(simt_kind kind, const thread *thread, place where, place other, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void finish_texts(void);
void clear_report(void);

/* ---- symbols.cpp: the program's own symbol table ---- */
struct shared_variable {
    uintptr_t offset; /* in the thread-local segment */
    size_t bytes;
    std::string name;
};
struct thread_local_segment {
    uintptr_t start;
    size_t bytes;
};
thread_local_segment find_shared_segment(void);
struct kernel_symbol {
    std::string name; /* gemm<32, true> */
    std::vector<shared_variable> variables;
};
const kernel_symbol &symbol_of(const void *kernel);
uintptr_t program_base(void);

/* ---- launch.cpp ---- */
void yield_fibre(void);                 /* lets the scheduler choose another fibre */
[[noreturn]] void abandon_launch(void); /* as a card does after a fatal fault */
void release_barrier_if_complete(void);

/* ---- warp.cpp ---- */
void complete_collectives_after_exit(thread &exited);
bool force_collectives(void); /* nobody can go on: report, and let the lanes go */

/* ---- access.cpp ---- */
void watch(thread &thread, const access &access);

/* ---- order.cpp ---- */
/* Decides about a store that overwrote an unordered store: harmless if the bytes are the same. */
void settle_store(void);

/* ---- shared.cpp ---- */
void start_launch_memory(const std::vector<shared_variable> &variables, size_t dynamic_bytes);
void start_block_memory(void);
bool is_shared(const void *address);
void mark_pending(const async_copy &copy);
void mark_copied(thread &thread, const async_copy &copy);

/* ---- global.cpp ---- */
void *allocate_global(size_t bytes); /* NULL: no room */
bool free_global(void *pointer);     /* false: no such buffer */
void forget_clocks(void);            /* before they run over */

/* ---- runtime.cpp ---- */
bool is_pinned(const void *pointer, size_t bytes);

/* ---- streams.cpp ---- */
void count_allocation(void);
void wait_for_streams(void);

/* ---- async.cpp ---- */
void check_copies_at_exit(thread &thread);
/* The uncommitted or pending copy into this address by that thread, or NULL. */
const async_copy *find_copy(const thread &thread, uintptr_t address);

/* ---- traffic.cpp ---- */
void log_access(thread &thread, const logged_access &access);
void count_logged(warp &warp);

/* ---- tensor.cpp ---- */
struct mma_operands {
    int shape;
    float *accumulator;
    const uint32_t *a, *b;
    place where;
};
struct matrix_rows {
    unsigned count;
    bool transposed;
    uint32_t *registers;
    const void *row;
    place where;
};
void run_mma(thread &any, mma_operands *const lanes[WARP]);
void run_load_matrices(thread &any, matrix_rows *const lanes[WARP]);

} // namespace simt

/* Dynamic shared memory, fibre.S. */
extern __thread char dynamic_shared[];

#endif
