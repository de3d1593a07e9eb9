/* Races. Every four bytes have a cell with the last two writers and two readers. An access is
 * ordered before the current one if it was made by the same thread; or before the block's last
 * barrier, the warp's last __syncwarp or an earlier launch (by clocks); or by a block that passed a
 * __threadfence and an atomic before an atomic of the current block. Two unordered accesses of
 * which one is a store race; two atomics never do, nor do two stores of the same bytes. */
#include "tests/simt/order.h"

#include <stdio.h>
#include <string.h>

namespace simt
{

/* A store that conflicts with an earlier one: whether it changes anything shows after it. */
static struct {
    bool waits;
    const thread *who;
    simt::access access;
    place other;
    simt_kind kind;
    char detail[160];
    unsigned char before[16];
} doubtful;

void settle_store(void)
{
    if (!doubtful.waits)
        return;
    doubtful.waits = false;
    const access &access = doubtful.access;
    if (memcmp(reinterpret_cast<void *>(access.address), doubtful.before, access.bytes))
        report(doubtful.kind, doubtful.who, access.where, doubtful.other, "%s", doubtful.detail);
}

static bool ordered(const thread &thread, const record &record)
{
    if (record.clock < M.launch_base)
        return true;
    if (record.block != M.block)
        return M.acquired && record.clock <= M.released[record.block];
    if (record.clock < M.block_base || record.thread == thread.number)
        return true;
    if (record.thread / WARP != thread.number / WARP)
        return false;
    return record.clock < warp_of(thread).base || record.clock <= thread.seen[record.thread % WARP];
}

/* `now` in place of an older record; the halves of a word that one thread accesses add up. */
static void replace(record &slot, record now)
{
    if (slot.thread == now.thread && slot.clock == now.clock && slot.atomic == now.atomic)
        now.bytes |= slot.bytes;
    slot = now;
}

static void remember_load(const thread &thread, cell &cell, const record &now)
{
    for (record &slot : cell.load)
        if (ordered(thread, slot)) {
            replace(slot, now);
            return;
        }
    /* one reader of each of two warps or blocks: any later writer is unordered with one of them */
    bool same_warp = cell.load[0].block == cell.load[1].block &&
                     cell.load[0].thread / WARP == cell.load[1].thread / WARP;
    if (same_warp)
        cell.load[1] = now;
}

static void remember_store(const thread &thread, cell &cell, const record &now)
{
    record &first = cell.store[0], &second = cell.store[1];
    if (now.bytes == ALL_BYTES)
        second.clock = 0;
    if (!(first.bytes & ~now.bytes) || ordered(thread, first))
        replace(first, now);
    else
        replace(second, now);
}

static void report_race(const thread &thread, const access &access, const record &other,
                        const char *other_kind, simt_kind kind)
{
    char where[96];
    describe_address(where, sizeof where, access.address);
    char detail[sizeof doubtful.detail];
    snprintf(detail, sizeof detail, "%s of %u bytes at %s and the %s of thread %u, block %u",
             name_of(access.kind), access.bytes, where, other_kind, other.thread, other.block);
    bool both_store = access.kind == effect::store && !strcmp(other_kind, "store");
    if (!both_store || access.bytes > sizeof doubtful.before) {
        report(kind, &thread, access.where, other.where, "%s", detail);
        return;
    }
    doubtful.waits = true;
    doubtful.who = &thread;
    doubtful.access = access;
    doubtful.other = other.where;
    doubtful.kind = kind;
    memcpy(doubtful.detail, detail, sizeof detail);
    memcpy(doubtful.before, reinterpret_cast<void *>(access.address), access.bytes);
}

/* Returns whether a race was found: one per access is enough. */
static bool check_order(thread &thread, cell &cell, const access &access, uint8_t bytes,
                        simt_kind kind)
{
    bool atomic = access.kind == effect::atomic;
    for (const record &store : cell.store)
        if (store.bytes & bytes && !(atomic && store.atomic) && !ordered(thread, store)) {
            report_race(thread, access, store, store.atomic ? "atomic" : "store", kind);
            return true;
        }
    if (access.kind == effect::load)
        return false;
    for (const record &load : cell.load)
        if (load.bytes & bytes && !ordered(thread, load)) {
            report_race(thread, access, load, "load", kind);
            return true;
        }
    return false;
}

void pass_cells(thread &thread, cell *cells, uintptr_t offset, const access &access, simt_kind kind)
{
    bool found = false;
    for (uintptr_t end = offset + access.bytes, word = offset / WORD; word * WORD < end; word++) {
        unsigned first = offset > word * WORD ? offset - word * WORD : 0;
        unsigned last = end - word * WORD < WORD ? end - word * WORD : WORD;
        uint8_t bytes = ((1u << last) - 1) & ~((1u << first) - 1);
        cell &cell = cells[word];
        found = found || check_order(thread, cell, access, bytes, kind);
        record now = {thread.clock, M.block,
                      access.where, static_cast<uint16_t>(thread.number),
                      bytes,        access.kind == effect::atomic};
        if (access.kind == effect::load)
            remember_load(thread, cell, now);
        else
            remember_store(thread, cell, now);
    }
}

void note_store(thread &thread, cell *cells, uintptr_t offset, unsigned bytes, place where)
{
    record now = {thread.clock, M.block, where, static_cast<uint16_t>(thread.number), ALL_BYTES, 0};
    for (uintptr_t word = offset / WORD; word * WORD < offset + bytes; word++)
        remember_store(thread, cells[word], now);
}

} // namespace simt
