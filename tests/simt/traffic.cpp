/* Memory traffic: accesses of the lanes of a warp are gathered into requests when the warp
 * converges, and each request's sectors or bank conflicts counted. */
#include "tests/simt/internal.h"

#include <algorithm>

namespace simt
{

/* The accesses of one request, at most one a lane, in the order of the lanes. */
struct request {
    unsigned count;
    const logged_access *access[WARP];
    unsigned lane[WARP];
};

/* A set of at most 128 numbers with a mask each. */
struct number_set {
    enum : unsigned { SLOTS = 128 };
    uintptr_t number[SLOTS];
    uint32_t mask[SLOTS]; /* 0: an empty slot */
    unsigned used, bits;  /* numbers, and bits of all masks */

    number_set() : mask(), used(0), bits(0)
    {
    }

    /* Returns whether the number is new. */
    bool add(uintptr_t value, uint32_t added)
    {
        unsigned slot = value % SLOTS;
        while (mask[slot] && number[slot] != value)
            slot = (slot + 1) % SLOTS;
        bool fresh = !mask[slot];
        used += fresh;
        bits += __builtin_popcount(added & ~mask[slot]);
        number[slot] = value;
        mask[slot] |= added;
        return fresh;
    }
};

static void count_sectors(const request &request)
{
    enum : unsigned { SECTOR = 32 };
    number_set sectors;
    for (unsigned i = 0; i < request.count; i++) {
        const logged_access &access = *request.access[i];
        unsigned offset = access.address % SECTOR;
        sectors.add(access.address / SECTOR, ((1u << access.bytes) - 1) << offset);
    }
    simt_traffic &traffic =
        request.access[0]->kind == effect::load ? M.counters.global_load : M.counters.global_store;
    traffic.requests++;
    traffic.sectors += sectors.used;
    traffic.ideal_sectors += (sectors.bits + SECTOR - 1) / SECTOR;
}

/* Wavefronts beyond the first: different words of one bank take turns. */
static unsigned conflicts_of(const uintptr_t *addresses, unsigned count, unsigned bytes)
{
    enum : unsigned { BANKS = 32, WORD = 4 };
    number_set words;
    unsigned turns[BANKS] = {}, most = 1;
    for (unsigned i = 0; i < count; i++)
        for (unsigned offset = 0; offset < bytes; offset += WORD) {
            uintptr_t word = (addresses[i] + offset) / WORD;
            if (words.add(word, 1))
                most = std::max(most, ++turns[word % BANKS]);
        }
    return most - 1;
}

/* 16-byte accesses (and ldmatrix, whose rows are such) go by 8 lanes, 8-byte ones by 16. */
static void count_banks(const request &request)
{
    unsigned bytes = request.access[0]->bytes;
    unsigned group = bytes == 16 ? 8 : bytes == 8 ? 16 : +WARP;
    simt_banks &banks =
        request.access[0]->kind == effect::load ? M.counters.shared_load : M.counters.shared_store;
    banks.requests++;
    for (unsigned next = 0; next < request.count;) {
        uintptr_t addresses[WARP];
        unsigned count = 0, number = request.lane[next] / group;
        for (; next < request.count && request.lane[next] / group == number; next++)
            addresses[count++] = request.access[next]->address;
        banks.conflicts += conflicts_of(addresses, count, bytes);
    }
}

static void count_request(const request &request)
{
    M.counters.accesses += request.count;
    if (request.access[0]->memory == space::global)
        count_sectors(request);
    else
        count_banks(request);
}

/* ---- from logs to requests ---- */
static thread *first_thread(warp &warp)
{
    return &M.thread_[(&warp - M.warp_) * WARP];
}

/* The usual case: all lanes that logged anything made the same accesses in the same order. */
static bool count_in_step(thread *lanes, unsigned count)
{
    unsigned steps = 0;
    for (unsigned i = 0; i < count; i++)
        if (lanes[i].logged) {
            if (steps && lanes[i].logged != steps)
                return false;
            steps = lanes[i].logged;
        }
    unsigned leader = 0;
    while (leader < count && !lanes[leader].logged)
        leader++;
    for (unsigned i = leader + 1; i < count; i++)
        for (unsigned step = 0; step < lanes[i].logged; step++)
            if (lanes[i].log[step].where != lanes[leader].log[step].where ||
                lanes[i].log[step].memory != lanes[leader].log[step].memory)
                return false;
    for (unsigned step = 0; step < steps; step++) {
        request request;
        request.count = 0;
        for (unsigned i = leader; i < count; i++)
            if (lanes[i].logged) {
                request.lane[request.count] = i;
                request.access[request.count++] = &lanes[i].log[step];
            }
        count_request(request);
    }
    return true;
}

struct item {
    uint64_t place; /* and memory: cp.async accesses both at one place */
    unsigned occurrence, lane;
    const logged_access *access;
};

static void count_apart(thread *lanes, unsigned count)
{
    static std::vector<item> items;
    items.clear();
    for (unsigned i = 0; i < count; i++)
        for (unsigned step = 0; step < lanes[i].logged; step++) {
            const logged_access &access = lanes[i].log[step];
            items.push_back(
                {uint64_t(access.where) << 1 | (access.memory == space::global), 0, i, &access});
        }
    std::sort(items.begin(), items.end(), [](const item &a, const item &b) {
        return a.place != b.place ? a.place < b.place
               : a.lane != b.lane ? a.lane < b.lane
                                  : a.access < b.access;
    });
    for (size_t i = 1; i < items.size(); i++)
        if (items[i].place == items[i - 1].place && items[i].lane == items[i - 1].lane)
            items[i].occurrence = items[i - 1].occurrence + 1;
    std::sort(items.begin(), items.end(), [](const item &a, const item &b) {
        return a.place != b.place             ? a.place < b.place
               : a.occurrence != b.occurrence ? a.occurrence < b.occurrence
                                              : a.lane < b.lane;
    });
    for (size_t i = 0; i < items.size();) {
        request request;
        request.count = 0;
        const item &first = items[i];
        for (; i < items.size() && items[i].place == first.place &&
               items[i].occurrence == first.occurrence;
             i++) {
            request.lane[request.count] = items[i].lane;
            request.access[request.count++] = items[i].access;
        }
        count_request(request);
    }
}

void count_logged(warp &warp)
{
    thread *lanes = first_thread(warp);
    unsigned count = std::min<unsigned>(WARP, M.threads - (lanes - M.thread_));
    if (!count_in_step(lanes, count))
        count_apart(lanes, count);
    for (unsigned i = 0; i < count; i++)
        lanes[i].logged = 0;
}

void log_access(thread &thread, const logged_access &access)
{
    if (thread.logged == LOG_CAPACITY) {
        thread.now = state::log_full;
        yield_fibre();
    }
    thread.log[thread.logged++] = access;
}

} // namespace simt
