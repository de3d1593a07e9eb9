/* Errors as text: kernel, place in the source, block, thread. */
#include "tests/simt/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

extern uint3 blockIdx;

namespace simt
{

/* A text whose places are still to be looked up. */
struct draft {
    simt_kind kind;
    place where, other;
    std::string kernel, position, detail;
};

static simt_report errors;
static std::vector<draft> drafts;
static std::vector<std::pair<simt_kind, place>> known;

static bool is_new(simt_kind kind, place where)
{
    for (const auto &pair : known)
        if (pair.first == kind && pair.second == where)
            return false;
    known.push_back({kind, where});
    return true;
}

void report(simt_kind kind, const thread *thread, place where, place other, const char *format, ...)
{
    errors.count++;
    errors.kinds[kind]++;
    if (known.size() >= SIMT_TEXTS || !is_new(kind, where))
        return;
    static char detail[SIMT_TEXT_LENGTH], position[96];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    position[0] = 0;
    if (thread)
        snprintf(position, sizeof position, ", block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x,
                 blockIdx.y, blockIdx.z, thread->index.x, thread->index.y, thread->index.z);
    drafts.push_back({kind, where, other, M.kernel, position, detail});
}

void finish_texts(void)
{
    if (drafts.empty())
        return;
    std::vector<place> places;
    for (const draft &draft : drafts) {
        places.push_back(draft.where);
        places.push_back(draft.other);
    }
    std::vector<std::string> names = describe(places);
    for (size_t i = 0; i < drafts.size(); i++) {
        const draft &draft = drafts[i];
        errors.text_kind[errors.texts] = draft.kind;
        snprintf(errors.text[errors.texts++], SIMT_TEXT_LENGTH, "%s%s%s%s: %s: %s%s%s",
                 draft.kernel.c_str(), draft.where ? ", " : "", names[2 * i].c_str(),
                 draft.position.c_str(), simt_kind_name(draft.kind), draft.detail.c_str(),
                 draft.other ? " at " : "", names[2 * i + 1].c_str());
    }
    drafts.clear();
}

void clear_report(void)
{
    memset(&errors, 0, sizeof errors);
    drafts.clear();
    known.clear();
}

} // namespace simt

const struct simt_report *simt_errors(void)
{
    return &simt::errors;
}

const char *simt_kind_name(enum simt_kind kind)
{
    static const char *const names[] = {
#define KIND(name, meaning) meaning,
        SIMT_KINDS(KIND)
#undef KIND
    };
    return names[kind];
}
