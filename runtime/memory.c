#include "runtime/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *memory_allocate(size_t bytes, int threads)
{
    const size_t huge_bytes = (size_t)2 << 20, page_bytes = 4096;
    size_t alignment = bytes >= 2 * huge_bytes ? huge_bytes : 64;
    void *memory = NULL;
    if (posix_memalign(&memory, alignment, bytes ? bytes : 1) != 0)
        return NULL;
    if (alignment == huge_bytes)
        madvise(memory, bytes / huge_bytes * huge_bytes, MADV_HUGEPAGE);
    unsigned char *pages = memory;
    long count = (long)((bytes + page_bytes - 1) / page_bytes);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long page = 0; page < count; page++) {
        size_t begin = (size_t)page * page_bytes;
        size_t end = begin + page_bytes < bytes ? begin + page_bytes : bytes;
        memset(pages + begin, 0, end - begin);
    }
    return memory;
}
