/* Global memory: buffers with gaps between them, in one large mapping. */
#include "tests/simt/order.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

namespace simt
{

enum : size_t {
    ARENA_BYTES = size_t(4) << 30,
    PAGE = 4096,
    GAP_BYTES = 256 << 10, /* so that no small overrun ends in another buffer */
};

struct buffer {
    uintptr_t address;
    size_t bytes;
};
static struct {
    uintptr_t start; /* 0: not mapped yet */
    size_t used;
    unsigned live;
    cell *cells;
    std::vector<buffer> buffers;
    uint16_t page_buffer[ARENA_BYTES / PAGE]; /* number of a buffer + 1 */
} arena;

/* At least one, so that each buffer has an address of its own. */
static size_t pages_of(size_t bytes)
{
    return bytes / PAGE + 1;
}

static void *reserve(size_t bytes)
{
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

static bool open_arena(void)
{
    if (arena.start)
        return true;
    void *memory = reserve(ARENA_BYTES);
    arena.cells = static_cast<cell *>(reserve(ARENA_BYTES / WORD * sizeof(cell)));
    if (!memory || !arena.cells)
        return false;
    arena.start = reinterpret_cast<uintptr_t>(memory);
    return true;
}

bool is_global(uintptr_t address)
{
    return arena.start && address - arena.start < ARENA_BYTES;
}

static const buffer *buffer_at(uintptr_t address)
{
    unsigned number = arena.page_buffer[(address - arena.start) / PAGE];
    return number ? &arena.buffers[number - 1] : nullptr;
}

void describe_global(char *text, size_t size, uintptr_t address)
{
    const buffer *nearest = nullptr;
    uintptr_t least = UINTPTR_MAX;
    for (const buffer &buffer : arena.buffers) {
        uintptr_t end = buffer.address + buffer.bytes;
        uintptr_t distance = address < buffer.address ? buffer.address - address
                             : address >= end         ? address - end
                                                      : 0;
        if (buffer.bytes && distance < least) {
            least = distance;
            nearest = &buffer;
        }
    }
    if (nearest)
        snprintf(text, size, "byte %td of a buffer of %zu",
                 static_cast<ptrdiff_t>(address - nearest->address), nearest->bytes);
    else
        snprintf(text, size, "%#zx, where no buffer is", address);
}

void watch_global(thread &thread, const access &access)
{
    const buffer *buffer = buffer_at(access.address);
    if (!buffer || access.address < buffer->address ||
        access.address + access.bytes > buffer->address + buffer->bytes) {
        char where[96];
        describe_global(where, sizeof where, access.address);
        report(SIMT_GLOBAL_BOUNDS, &thread, access.where, 0, "%s of %u bytes at %s",
               name_of(access.kind), access.bytes, where);
        return;
    }
    pass_cells(thread, arena.cells, access.address - arena.start, access, SIMT_GLOBAL_RACE);
}

void forget_clocks(void)
{
    if (arena.start)
        madvise(arena.cells, ARENA_BYTES / WORD * sizeof(cell), MADV_DONTNEED);
    M.clock = 0;
}

void *allocate_global(size_t bytes)
{
    size_t pages = pages_of(bytes);
    if (!open_arena() || arena.buffers.size() >= UINT16_MAX - 1 ||
        arena.used + pages * PAGE + 2 * GAP_BYTES > ARENA_BYTES)
        return nullptr;
    uintptr_t address = arena.start + arena.used + GAP_BYTES;
    arena.used += GAP_BYTES + pages * PAGE;
    arena.buffers.push_back({address, bytes});
    for (size_t i = 0; i < pages; i++)
        arena.page_buffer[(address - arena.start) / PAGE + i] = arena.buffers.size();
    arena.live++;
    memset(reinterpret_cast<void *>(address), 0xff, bytes);
    return reinterpret_cast<void *>(address);
}

bool free_global(void *pointer)
{
    uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    if (!is_global(address))
        return false;
    unsigned page = (address - arena.start) / PAGE, number = arena.page_buffer[page];
    if (!number || arena.buffers[number - 1].address != address)
        return false;
    size_t pages = pages_of(arena.buffers[number - 1].bytes);
    memset(&arena.page_buffer[page], 0, pages * sizeof arena.page_buffer[0]);
    arena.buffers[number - 1].bytes = 0;
    madvise(pointer, pages * PAGE, MADV_DONTNEED);
    madvise(&arena.cells[(address - arena.start) / WORD], pages * PAGE / WORD * sizeof(cell),
            MADV_DONTNEED);
    if (--arena.live == 0) {
        arena.buffers.clear();
        arena.used = 0;
    }
    return true;
}

} // namespace simt
