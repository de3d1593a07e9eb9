/* cp.async: the destination is poisoned at issue and filled at the wait that completes the copy's
 * group, so that a kernel which forgets the wait, or waits for too few groups, is seen. */
#include "tests/simt/internal.h"
#include "tests/simt/ptx.h"

#include <string.h>

namespace simt
{

const async_copy *find_copy(const thread &thread, uintptr_t address)
{
    for (const async_copy &copy : thread.copies)
        if (address - (reinterpret_cast<uintptr_t>(copy.target) & ~uintptr_t(3)) < copy.bytes)
            return &copy;
    return nullptr;
}

static void finish_copy(thread &thread, const async_copy &copy)
{
    memcpy(copy.target, copy.source, copy.source_bytes);
    memset(copy.target + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    if (!WATCHED)
        return;
    if (memcmp(copy.source, copy.snapshot, copy.source_bytes))
        report(SIMT_ASYNC_SOURCE, &thread, copy.where, 0, "%u bytes", copy.source_bytes);
    mark_copied(thread, copy);
}

/* Only source_bytes are read, but the address is aligned as for all of them. */
static void watch_source(thread &thread, const async_copy &copy)
{
    uintptr_t address = reinterpret_cast<uintptr_t>(copy.source);
    unsigned part = copy.bytes;
    for (unsigned done = 0; done < copy.source_bytes; done += part) {
        while (done + part > copy.source_bytes)
            part /= 2;
        watch(thread, {address + done, part, effect::load, copy.where});
    }
    if (WATCHED && address % copy.bytes) {
        report(SIMT_MISALIGNED, &thread, copy.where, 0, "cp.async of %u bytes", copy.bytes);
        abandon_launch();
    }
}

void check_copies_at_exit(thread &thread)
{
    if (thread.copies.empty())
        return;
    const async_copy &copy = thread.copies.front();
    if (copy.committed)
        report(SIMT_ASYNC_PENDING, &thread, copy.where, 0, "%zu copies", thread.copies.size());
    else
        report(SIMT_ASYNC_COMMIT, &thread, copy.where, 0, "thread exited with %zu copies pending",
               thread.copies.size());
}

} // namespace simt

using namespace simt;

void simt_copy_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes,
                     simt_site site)
{
    thread &thread = *M.current;
    place where = place_of(site);
    if (source_bytes > bytes) {
        report(SIMT_ASYNC_SIZE, &thread, where, 0, "%u bytes into %u", source_bytes, bytes);
        source_bytes = bytes;
    }
    async_copy copy = {static_cast<char *>(shared),
                       static_cast<const char *>(global),
                       bytes,
                       source_bytes,
                       false,
                       thread.groups,
                       {},
                       where};
    if (WATCHED && !is_shared(shared)) {
        report(SIMT_SHARED_BOUNDS, &thread, where, 0, "cp.async to %p", shared);
        return;
    }
    uint64_t errors = simt_errors()->kinds[SIMT_SHARED_BOUNDS];
    watch_source(thread, copy);
    watch(thread, {reinterpret_cast<uintptr_t>(shared), bytes, effect::store, where});
    if (simt_errors()->kinds[SIMT_SHARED_BOUNDS] != errors)
        return;
    memcpy(copy.snapshot, global, source_bytes);
    memset(shared, 0xff, bytes);
    if (WATCHED)
        mark_pending(copy);
    thread.copies.push_back(copy);
}

void simt_copy_async_commit(void)
{
    thread &thread = *M.current;
    for (async_copy &copy : thread.copies)
        copy.committed = true;
    thread.groups++;
}

void simt_copy_async_wait(unsigned pending_groups)
{
    thread &thread = *M.current;
    settle_store();
    size_t kept = 0;
    for (const async_copy &copy : thread.copies) {
        if (copy.committed && copy.group + pending_groups < thread.groups)
            finish_copy(thread, copy);
        else
            thread.copies[kept++] = copy;
    }
    thread.copies.resize(kept);
}
