/* Shared memory: the program's thread-local segment, of which a launch may use its kernel's static
 * variables and its share of dynamic_shared. */
#include "tests/simt/order.h"

#include <stdio.h>
#include <string.h>

namespace simt
{

enum : uint16_t { WRITTEN = 0x00f, VALID = 0x0f0, PENDING = 0x100 }; /* bits per byte, per word */
static struct {
    thread_local_segment segment;
    std::vector<shared_variable> variables; /* of the launch; dynamic shared memory is the last */
    std::vector<uint16_t> state;
    std::vector<cell> cells;
} shared;

bool is_shared(const void *address)
{
    return reinterpret_cast<uintptr_t>(address) - shared.segment.start < shared.segment.bytes;
}

void describe_shared(char *text, size_t size, uintptr_t address)
{
    uintptr_t offset = address - shared.segment.start;
    for (const shared_variable &variable : shared.variables)
        if (offset - variable.offset < variable.bytes) {
            snprintf(text, size, "%s + %zu", variable.name.c_str(),
                     static_cast<size_t>(offset - variable.offset));
            return;
        }
    /* nearest variable that ends before */
    const shared_variable *before = nullptr;
    for (const shared_variable &variable : shared.variables)
        if (variable.offset < offset && (!before || variable.offset > before->offset))
            before = &variable;
    if (before)
        snprintf(text, size, "%s + %zu, which has %zu bytes", before->name.c_str(),
                 static_cast<size_t>(offset - before->offset), before->bytes);
    else
        snprintf(text, size, "no variable of this kernel");
}

static uint16_t bits_of(uintptr_t word, uintptr_t offset, unsigned bytes)
{
    uint16_t bits = 0;
    for (unsigned i = 0; i < WORD; i++)
        if (word * WORD + i - offset < bytes)
            bits |= 1 << i;
    return bits;
}

static void report_pending(const thread &thread, const access &access, const char *where,
                           uintptr_t address)
{
    unsigned owner = 0;
    while (owner < M.threads && !find_copy(M.thread_[owner], address))
        owner++;
    if (owner == M.threads)
        return;
    const async_copy *copy = find_copy(M.thread_[owner], address);
    report(copy->committed ? SIMT_ASYNC_WAIT : SIMT_ASYNC_COMMIT, &thread, access.where,
           copy->where, "%s of %u bytes at %s, copied asynchronously by thread %u",
           name_of(access.kind), access.bytes, where, owner);
}

/* Whether the access may go on to the check of order. */
static bool check_shared_state(const thread &thread, uintptr_t offset, const access &access)
{
    char where[96];
    for (uintptr_t word = offset / WORD; word * WORD < offset + access.bytes; word++) {
        uint16_t bits = bits_of(word, offset, access.bytes), now = shared.state[word];
        bool is_store = access.kind == effect::store;
        if ((now & bits << 4) == bits << 4 && !(now & PENDING) &&
            (is_store || (now & bits) == bits)) {
            shared.state[word] |= bits;
            continue;
        }
        describe_shared(where, sizeof where, access.address);
        if ((now & bits << 4) != bits << 4) {
            report(SIMT_SHARED_BOUNDS, &thread, access.where, 0, "%s of %u bytes at %s",
                   name_of(access.kind), access.bytes, where);
            return false;
        }
        if (now & PENDING) {
            report_pending(thread, access, where, shared.segment.start + word * WORD);
            return false;
        }
        report(SIMT_SHARED_UNWRITTEN, &thread, access.where, 0, "%s of %u bytes at %s",
               name_of(access.kind), access.bytes, where);
        shared.state[word] |= bits;
    }
    return true;
}

void watch_shared(thread &thread, const access &access)
{
    uintptr_t offset = access.address - shared.segment.start;
    if (check_shared_state(thread, offset, access))
        pass_cells(thread, shared.cells.data(), offset, access, SIMT_SHARED_RACE);
}

void start_launch_memory(const std::vector<shared_variable> &variables, size_t dynamic_bytes)
{
    shared.segment = find_shared_segment();
    shared.variables = variables;
    uintptr_t dynamic = reinterpret_cast<uintptr_t>(dynamic_shared) - shared.segment.start;
    shared.variables.push_back({dynamic, dynamic_bytes, "dynamic_shared"});
    shared.state.assign(shared.segment.bytes / WORD + 1, 0);
    shared.cells.resize(shared.segment.bytes / WORD + 1);
}

void start_block_memory(void)
{
    for (const shared_variable &variable : shared.variables) {
        /* a NaN, whatever type the kernel reads */
        memset(reinterpret_cast<void *>(shared.segment.start + variable.offset), 0xff,
               variable.bytes);
        uintptr_t end = variable.offset + variable.bytes;
        for (uintptr_t word = variable.offset / WORD; word * WORD < end; word++) {
            shared.state[word] = bits_of(word, variable.offset, variable.bytes) << 4;
            shared.cells[word] = {};
        }
    }
}

static void set_state(const async_copy &copy, uint16_t set, uint16_t clear)
{
    uintptr_t offset = reinterpret_cast<uintptr_t>(copy.target) - shared.segment.start;
    for (uintptr_t word = offset / WORD; word * WORD < offset + copy.bytes; word++)
        shared.state[word] = (shared.state[word] & ~clear) | set;
}

void mark_pending(const async_copy &copy)
{
    set_state(copy, PENDING, WRITTEN);
}

void mark_copied(thread &thread, const async_copy &copy)
{
    set_state(copy, WRITTEN, PENDING);
    note_store(thread, shared.cells.data(),
               reinterpret_cast<uintptr_t>(copy.target) - shared.segment.start, copy.bytes,
               copy.where);
}

} // namespace simt
