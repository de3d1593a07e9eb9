/* A launch: its limits, its blocks, and the scheduler of a block's fibres. */
#include "tests/simt/internal.h"
#include "tests/support/random.h"

#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* The kernels' headers call these constant; they are so for each fibre. */
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

extern "C" void simt_switch(void **save, void *load);

namespace simt
{

machine simt_machine;
static std::map<const void *, int> opted_in; /* dynamic shared bytes by kernel */
static cudaError_t last_error;

/* ---- fibres ---- */
#ifdef __SANITIZE_ADDRESS__
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
static void *scheduler_fake_stack;
#endif

static void switch_to(thread &thread)
{
    M.current = &thread;
    M.stack = reinterpret_cast<uintptr_t>(thread.stack);
    threadIdx = thread.index;
    M.running = true;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, thread.stack, STACK_BYTES);
#endif
    simt_switch(&M.scheduler, thread.stack_pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
    M.running = false;
}

void yield_fibre(void)
{
    thread &thread = *M.current;
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack;
    __sanitizer_start_switch_fiber(thread.now == state::exited ? nullptr : &fake_stack,
                                   scheduler_stack, scheduler_stack_bytes);
#endif
    simt_switch(&thread.stack_pointer, M.scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void abandon_launch(void)
{
    M.abandoned = true;
    yield_fibre();
    abort(); /* an abandoned fibre never runs again */
}

static void run_thread(void)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    M.body(M.closure);
    settle_store();
    thread &thread = *M.current;
    check_copies_at_exit(thread);
    thread.now = state::exited;
    warp_of(thread).alive &= ~(1u << lane_of(thread));
    M.alive--;
    complete_collectives_after_exit(thread);
    release_barrier_if_complete();
    yield_fibre();
    abort();
}

/* A stack on which simt_switch returns into run_thread, aligned as after a call. */
static void prepare_stack(thread &thread)
{
    enum { SAVED_REGISTERS = 6 };
    if (!thread.stack) {
        size_t guard = 4096;
        void *memory = mmap(nullptr, STACK_BYTES + guard, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
            perror("simt: no memory for a thread's stack");
            exit(1);
        }
        thread.stack = static_cast<char *>(memory) + guard;
        thread.log = static_cast<logged_access *>(malloc(LOG_CAPACITY * sizeof *thread.log));
    }
#ifdef __SANITIZE_ADDRESS__
    /* the last fibre here never returned from its frames */
    __asan_unpoison_memory_region(thread.stack, STACK_BYTES);
#endif
    void **top = reinterpret_cast<void **>(thread.stack + STACK_BYTES) - 2;
    *top = reinterpret_cast<void *>(run_thread);
    thread.stack_pointer = top - SAVED_REGISTERS;
}

/* ---- a block ---- */
static void start_block(void)
{
    M.alive = M.threads;
    M.at_barrier = 0;
    M.acquired = false;
    M.block_base = ++M.clock;
    for (unsigned i = 0; i < M.threads; i++) {
        thread &thread = M.thread_[i];
        prepare_stack(thread);
        thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        thread.number = i;
        thread.now = state::ready;
        thread.clock = M.block_base;
        thread.waiting = nullptr;
        thread.fenced = false;
        thread.groups = 0;
        thread.copies.clear();
        thread.logged = 0;
        memset(thread.seen, 0, sizeof thread.seen);
    }
    for (unsigned i = 0; i < M.warps; i++) {
        unsigned lanes = M.threads - i * WARP;
        M.warp_[i] = {lanes < WARP ? (1u << lanes) - 1 : 0xffffffff, 0, 0};
    }
    start_block_memory();
}

/* Seed 0 runs the last thread first; the others shuffle anew at each round. */
static void shuffle(std::vector<unsigned> &order)
{
    for (size_t i = 0; i < order.size(); i++)
        order[i] = order.size() - 1 - i;
    for (size_t i = order.size(); M.options.seed && i > 1; i--)
        std::swap(order[i - 1], order[random_below(&M.random, static_cast<int>(i))]);
}

static bool resume_full_logs(void)
{
    bool resumed = false;
    for (unsigned i = 0; i < M.threads; i++)
        if (M.thread_[i].now == state::log_full) {
            count_logged(warp_of(M.thread_[i]));
            M.thread_[i].now = state::ready;
            resumed = true;
        }
    return resumed;
}

static void run_block(void)
{
    start_block();
    static std::vector<unsigned> order;
    order.resize(M.threads);
    while (M.alive && !M.abandoned) {
        bool progress = false;
        shuffle(order);
        for (unsigned number : order) {
            if (M.thread_[number].now != state::ready)
                continue;
            progress = true;
            switch_to(M.thread_[number]);
            if (M.abandoned)
                return;
        }
        if (!progress && !resume_full_logs() && !force_collectives()) {
            fprintf(stderr, "simt: %s: no thread can go on\n", M.kernel);
            abort();
        }
    }
    for (unsigned i = 0; i < M.warps; i++)
        count_logged(M.warp_[i]);
}

/* ---- limits ---- */
enum : size_t { STATIC_SHARED_LIMIT = 48 << 10 };

static size_t shared_limit(int architecture)
{
    static const struct {
        int architecture;
        size_t kilobytes;
    } limits[] = {{75, 64},   {80, 163},  {86, 99},  {89, 99}, {90, 227},
                  {100, 227}, {103, 227}, {120, 99}, {121, 99}};
    for (const auto &limit : limits)
        if (limit.architecture == architecture)
            return limit.kilobytes << 10;
    fprintf(stderr, "simt: no limits known for architecture %d\n", architecture);
    abort();
}

static bool check_shared_bytes(const void *kernel, size_t static_bytes, size_t dynamic_bytes)
{
    size_t limit = STATIC_SHARED_LIMIT;
    auto found = opted_in.find(kernel);
    if (found != opted_in.end() && static_bytes + found->second > limit)
        limit = static_bytes + found->second;
    if (limit > shared_limit(M.options.architecture))
        limit = shared_limit(M.options.architecture);
    if (static_bytes <= STATIC_SHARED_LIMIT && static_bytes + dynamic_bytes <= limit)
        return true;
    report(SIMT_LAUNCH_SHARED, nullptr, 0, 0, "%zu bytes static and %zu dynamic, of %zu",
           static_bytes, dynamic_bytes, limit);
    return false;
}

static bool check_limits(const void *kernel, dim3 grid, dim3 block, size_t static_bytes,
                         size_t dynamic_bytes)
{
    bool fine = true;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
        report(SIMT_LAUNCH_GRID, nullptr, 0, 0, "grid (%u,%u,%u)", grid.x, grid.y, grid.z);
        fine = false;
    }
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (!threads || threads > MAX_THREADS || block.z > 64 || block.x > 1024 || block.y > 1024) {
        report(SIMT_LAUNCH_THREADS, nullptr, 0, 0, "block (%u,%u,%u)", block.x, block.y, block.z);
        fine = false;
    }
    return check_shared_bytes(kernel, static_bytes, dynamic_bytes) && fine;
}

static void start_launch(dim3 grid, dim3 block)
{
    if (M.clock > UINT32_MAX / 2)
        forget_clocks();
    M.launch_base = ++M.clock;
    M.threads = block.x * block.y * block.z;
    M.warps = (M.threads + WARP - 1) / WARP;
    M.abandoned = false;
    M.random = M.options.seed;
    M.released.assign(size_t(grid.x) * grid.y * grid.z, 0);
    gridDim = grid;
    blockDim = block;
}

static std::vector<simt_launch> launches;

static void run_grid(dim3 grid)
{
    M.block = 0;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x && !M.abandoned; x++, M.block++) {
                blockIdx = {x, y, z};
                run_block();
            }
}

} // namespace simt

using namespace simt;

void simt_run(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
              void (*body)(const void *closure), const void *closure)
{
    const kernel_symbol &symbol = symbol_of(kernel);
    M.kernel = symbol.name.c_str();
    M.program = program_base();
    memset(&M.counters, 0, sizeof M.counters);
    size_t static_bytes = 0;
    for (const shared_variable &variable : symbol.variables)
        static_bytes += variable.bytes;
    if (!check_limits(kernel, grid, block, static_bytes, shared_bytes)) {
        last_error = cudaErrorInvalidConfiguration;
        finish_texts();
        return;
    }
    M.body = body;
    M.closure = closure;
    start_launch(grid, block);
    start_launch_memory(symbol.variables, shared_bytes);
    run_grid(grid);
    launches.push_back({M.kernel, M.counters});
    if (M.abandoned)
        last_error = cudaErrorLaunchFailure;
    finish_texts();
}

cudaError_t simt_allow_shared(const void *kernel, int bytes)
{
    if (bytes < 0 || static_cast<size_t>(bytes) > shared_limit(M.options.architecture))
        return last_error = cudaErrorInvalidValue;
    opted_in[kernel] = bytes;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return std::exchange(last_error, cudaSuccess);
}

struct simt_options simt_default_options(void)
{
    return {1, 80, false};
}

void simt_reset(const struct simt_options *options)
{
    M.options = *options;
    opted_in.clear();
    launches.clear();
    last_error = cudaSuccess;
    clear_report();
}

const struct simt_counters *simt_last_counters(void)
{
    return &M.counters;
}

int simt_launches(void)
{
    return static_cast<int>(launches.size());
}

const struct simt_launch *simt_launch_number(int launch)
{
    return &launches[launch];
}

bool simt_watches_accesses(void)
{
    return WATCHED;
}
