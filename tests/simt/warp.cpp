/* Where threads meet: __syncthreads of a block, the _sync operations and the tensor instructions of
 * a warp. A lane waits until all lanes of its mask that have not exited have come to the same
 * operation; the last one does the work for all. */
#include "tests/simt/simt.h"
#include "tests/simt/internal.h"
#include "tests/simt/ptx.h"

#include <string.h>

namespace simt
{

enum class operation { sync, vote, shuffle, mma, load_matrices };

struct collective {
    operation kind;
    int variant;
    uint32_t mask;
    simt_site site;
    void *operands; /* of the lane, by kind */
    bool poisoned;  /* the result is not to be used */
};

struct vote_operands {
    int predicate;
    uint32_t result;
};

struct shuffle_operands {
    uint32_t value, operand;
    int width;
    uint32_t result;
};

enum : uint32_t { POISON = 0xffffffff, ALL_LANES = 0xffffffff };

/* ---- the block's barrier ---- */
static void check_barrier_sites(void)
{
    const thread *first = nullptr, *exited = nullptr;
    for (unsigned i = 0; i < M.threads; i++) {
        const thread &thread = M.thread_[i];
        if (thread.now == state::exited) {
            exited = &thread;
            continue;
        }
        if (!first)
            first = &thread;
        const simt_site &site = thread.barrier.site, &other = first->barrier.site;
        if (site.file == other.file && site.line == other.line)
            continue;
        report(SIMT_BARRIER_DIVERGENCE, &thread, place_of(site), place_of(other),
               "thread %u waits at another barrier, the one", first->number);
        break;
    }
    if (first && exited && !M.options.allow_exit_before_barrier)
        report(SIMT_BARRIER_EXIT, first, place_of(first->barrier.site), 0,
               "%u of %u threads have exited, among them thread (%u,%u,%u)", M.threads - M.alive,
               M.threads, exited->index.x, exited->index.y, exited->index.z);
}

void release_barrier_if_complete(void)
{
    if (!M.alive || M.at_barrier != M.alive)
        return;
    check_barrier_sites();
    int count = 0;
    for (unsigned i = 0; i < M.threads; i++)
        if (M.thread_[i].now == state::at_barrier)
            count += M.thread_[i].barrier.predicate != 0;
    M.block_base = ++M.clock;
    for (unsigned i = 0; i < M.warps; i++)
        count_logged(M.warp_[i]);
    for (unsigned i = 0; i < M.threads; i++) {
        thread &thread = M.thread_[i];
        if (thread.now != state::at_barrier)
            continue;
        int kind = thread.barrier.kind;
        thread.barrier.result = kind == SIMT_BARRIER_COUNT ? count
                                : kind == SIMT_BARRIER_AND ? count == (int)M.alive
                                                           : count > 0;
        thread.clock = M.block_base;
        thread.now = state::ready;
    }
    M.at_barrier = 0;
}

/* ---- operations of a warp ---- */
static bool needs_all(const collective &collective)
{
    return collective.kind == operation::mma || collective.kind == operation::load_matrices;
}

static bool matches(const collective &a, const collective &b)
{
    if (a.kind != b.kind || a.variant != b.variant || a.mask != b.mask)
        return false;
    return !needs_all(a) || (a.site.file == b.site.file && a.site.line == b.site.line);
}

static uint32_t arrived_lanes(thread &any, const collective &collective)
{
    uint32_t arrived = 0;
    for (unsigned i = 0; i < WARP; i++) {
        thread &other = lane(any, i);
        if (warp_of(any).alive & collective.mask & 1u << i && other.now == state::at_warp &&
            matches(*other.waiting, collective))
            arrived |= 1u << i;
    }
    return arrived;
}

/* The lanes' earlier accesses are ordered before their later ones. */
static void order_lanes(thread &any, uint32_t lanes)
{
    uint32_t now = ++M.clock;
    if (lanes == warp_of(any).alive) {
        warp_of(any).base = now;
    } else {
        uint32_t joined[WARP] = {};
        for (unsigned i = 0; i < WARP; i++) {
            if (!(lanes & 1u << i))
                continue;
            for (unsigned j = 0; j < WARP; j++)
                joined[j] = max(joined[j], lane(any, i).seen[j]);
            joined[i] = max(joined[i], lane(any, i).clock);
        }
        for (unsigned i = 0; i < WARP; i++)
            if (lanes & 1u << i)
                memcpy(lane(any, i).seen, joined, sizeof joined);
    }
    for (unsigned i = 0; i < WARP; i++)
        if (lanes & 1u << i)
            lane(any, i).clock = now;
}

static void vote(thread &any, uint32_t lanes, int kind)
{
    uint32_t ballot = 0;
    for (unsigned i = 0; i < WARP; i++)
        if (lanes & 1u << i &&
            static_cast<vote_operands *>(lane(any, i).waiting->operands)->predicate)
            ballot |= 1u << i;
    uint32_t result = kind == SIMT_VOTE_BALLOT ? ballot
                      : kind == SIMT_VOTE_ANY  ? ballot != 0
                                               : ballot == lanes;
    for (unsigned i = 0; i < WARP; i++)
        if (lanes & 1u << i)
            static_cast<vote_operands *>(lane(any, i).waiting->operands)->result = result;
}

/* The lane that `number` reads, or itself where its segment has no such lane. */
static unsigned shuffle_source(int kind, unsigned number, const shuffle_operands &operands)
{
    unsigned segment = (WARP - operands.width) & (WARP - 1), delta = operands.operand % WARP;
    unsigned low = number & segment, high = low | (~segment & (WARP - 1));
    switch (kind) {
    case SIMT_SHUFFLE_UP:
        return number >= low + delta ? number - delta : number;
    case SIMT_SHUFFLE_DOWN:
        return number + delta <= high ? number + delta : number;
    case SIMT_SHUFFLE_XOR:
        return (number ^ delta) <= high ? number ^ delta : number;
    default:
        return low | (delta & ~segment);
    }
}

static void shuffle_values(thread &any, uint32_t lanes, int kind)
{
    for (unsigned i = 0; i < WARP; i++) {
        if (!(lanes & 1u << i))
            continue;
        const collective &collective = *lane(any, i).waiting;
        auto *operands = static_cast<shuffle_operands *>(collective.operands);
        unsigned source = shuffle_source(kind, i, *operands);
        if (lanes & 1u << source) {
            operands->result =
                static_cast<shuffle_operands *>(lane(any, source).waiting->operands)->value;
            continue;
        }
        operands->result = POISON;
        /* a lane that should have come has been reported already */
        if (!(collective.mask & warp_of(any).alive & 1u << source))
            report(SIMT_SHUFFLE_SOURCE, &lane(any, i), place_of(collective.site), 0,
                   "lane %u reads lane %u, mask %#x", i, source, collective.mask);
    }
}

template <typename Operands>
static void run_together(thread &any, void (*run)(thread &, Operands *const[WARP]))
{
    Operands *operands[WARP];
    for (unsigned i = 0; i < WARP; i++)
        operands[i] = static_cast<Operands *>(lane(any, i).waiting->operands);
    run(any, operands);
}

/* `lanes` are all there will be. */
static void complete(thread &any, const collective &model, uint32_t lanes)
{
    collective copy = model;
    bool whole = lanes == ALL_LANES;
    if (needs_all(copy) && !whole) {
        report(SIMT_TENSOR_DIVERGENCE, &any, place_of(copy.site), 0, "lanes %#x alone", lanes);
        for (unsigned i = 0; i < WARP; i++)
            if (lanes & 1u << i)
                lane(any, i).waiting->poisoned = true;
    }
    if (lanes == warp_of(any).alive)
        count_logged(warp_of(any));
    if (copy.kind == operation::sync)
        order_lanes(any, lanes);
    else if (copy.kind == operation::vote)
        vote(any, lanes, copy.variant);
    else if (copy.kind == operation::shuffle)
        shuffle_values(any, lanes, copy.variant);
    else if (copy.kind == operation::mma && whole)
        run_together(any, run_mma);
    else if (copy.kind == operation::load_matrices && whole)
        run_together(any, run_load_matrices);
    for (unsigned i = 0; i < WARP; i++)
        if (lanes & 1u << i) {
            lane(any, i).waiting = nullptr;
            lane(any, i).now = state::ready;
        }
    warp_of(any).waiting &= ~lanes;
}

static void meet(collective &collective)
{
    settle_store();
    thread &thread = *M.current;
    if (!(collective.mask & 1u << lane_of(thread))) {
        report(SIMT_MASK_CALLER, &thread, place_of(collective.site), 0, "lane %u, mask %#x",
               lane_of(thread), collective.mask);
        collective.poisoned = true;
        return;
    }
    thread.waiting = &collective;
    thread.now = state::at_warp;
    warp &warp = warp_of(thread);
    warp.waiting |= 1u << lane_of(thread);
    uint32_t wanted = collective.mask & warp.alive;
    if ((wanted & ~warp.waiting) == 0 && arrived_lanes(thread, collective) == wanted)
        complete(thread, collective, wanted);
    else
        yield_fibre();
}

void complete_collectives_after_exit(thread &exited)
{
    for (unsigned i = 0; i < WARP; i++) {
        thread &waiting = lane(exited, i);
        if (!(warp_of(exited).alive & 1u << i) || waiting.now != state::at_warp)
            continue;
        uint32_t arrived = arrived_lanes(waiting, *waiting.waiting);
        if (arrived == (waiting.waiting->mask & warp_of(exited).alive))
            complete(waiting, *waiting.waiting, arrived);
    }
}

static void report_missing(thread &waiting, uint32_t arrived)
{
    const collective &collective = *waiting.waiting;
    if (needs_all(collective))
        return; /* complete() reports it */
    uint32_t missing = collective.mask & warp_of(waiting).alive & ~arrived;
    const thread &absent = lane(waiting, __builtin_ctz(missing));
    simt_site site = absent.now == state::at_barrier ? absent.barrier.site : absent.waiting->site;
    report(SIMT_MASK_LANE, &waiting, place_of(collective.site), place_of(site),
           "mask %#x, lanes %#x did not come; one of them waits", collective.mask, missing);
}

bool force_collectives(void)
{
    for (unsigned i = 0; i < M.threads; i++) {
        thread &waiting = M.thread_[i];
        if (waiting.now != state::at_warp)
            continue;
        uint32_t arrived = arrived_lanes(waiting, *waiting.waiting);
        report_missing(waiting, arrived);
        complete(waiting, *waiting.waiting, arrived);
        return true;
    }
    return false;
}

} // namespace simt

using namespace simt;

int simt_barrier(simt_barrier_kind kind, int predicate, simt_site site)
{
    settle_store();
    thread &thread = *M.current;
    thread.barrier = {kind, predicate, site, 0};
    thread.now = state::at_barrier;
    M.at_barrier++;
    release_barrier_if_complete();
    if (thread.now == state::at_barrier)
        yield_fibre();
    return thread.barrier.result;
}

void simt_syncwarp(unsigned mask, simt_site site)
{
    collective collective = {operation::sync, 0, mask, site, nullptr, false};
    meet(collective);
}

unsigned simt_vote(simt_vote_kind kind, unsigned mask, int predicate, simt_site site)
{
    vote_operands operands = {predicate, POISON};
    collective collective = {operation::vote, kind, mask, site, &operands, false};
    meet(collective);
    return operands.result;
}

uint32_t simt_shuffle(simt_shuffle_kind kind, unsigned mask, uint32_t value, unsigned operand,
                      int width, simt_site site)
{
    shuffle_operands operands = {value, operand, width, POISON};
    collective collective = {operation::shuffle, kind, mask, site, &operands, false};
    meet(collective);
    return operands.result;
}

/* One of the answers that CUDA allows: a lane may always find itself alone. */
unsigned simt_activemask(void)
{
    return 1u << lane_of(*M.current);
}

void simt_mma(simt_tensor_shape shape, float *accumulator, const uint32_t *a, const uint32_t *b,
              simt_site site)
{
    mma_operands operands = {shape, accumulator, a, b, place_of(site)};
    collective collective = {operation::mma, shape, ALL_LANES, site, &operands, false};
    meet(collective);
    if (collective.poisoned)
        memset(accumulator, 0xff, 4 * sizeof *accumulator);
}

void simt_load_matrices(unsigned count, bool transposed, uint32_t *registers, const void *row,
                        simt_site site)
{
    matrix_rows rows = {count, transposed, registers, row, place_of(site)};
    collective collective = {operation::load_matrices,
                             static_cast<int>(2 * count + transposed),
                             ALL_LANES,
                             site,
                             &rows,
                             false};
    meet(collective);
    if (collective.poisoned)
        memset(registers, 0xff, count * sizeof *registers);
}
