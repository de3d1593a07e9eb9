/* What the program's own ELF file says: which static __shared__ variables a kernel has, and which
 * source line an instruction comes from. */
#include "tests/simt/internal.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace simt
{

struct program {
    uintptr_t base;
    const char *file; /* mapped, never unmapped */
    const Elf64_Sym *symbols;
    size_t count;
    const char *names;
};

static int first_object(struct dl_phdr_info *info, size_t, void *found)
{
    *static_cast<dl_phdr_info *>(found) = *info;
    return 1; /* the program itself comes first */
}

static dl_phdr_info program_headers(void)
{
    dl_phdr_info info = {};
    dl_iterate_phdr(first_object, &info);
    return info;
}

static program open_program(void)
{
    program program = {};
    program.base = program_headers().dlpi_addr;
    int descriptor = open("/proc/self/exe", O_RDONLY);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0)
        return program;
    void *map = mmap(nullptr, status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    close(descriptor);
    if (map == MAP_FAILED)
        return program;
    program.file = static_cast<const char *>(map);
    auto header = reinterpret_cast<const Elf64_Ehdr *>(program.file);
    auto sections = reinterpret_cast<const Elf64_Shdr *>(program.file + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB)
            continue;
        program.symbols = reinterpret_cast<const Elf64_Sym *>(program.file + sections[i].sh_offset);
        program.count = sections[i].sh_size / sizeof(Elf64_Sym);
        program.names = program.file + sections[sections[i].sh_link].sh_offset;
    }
    return program;
}

static const program &this_program(void)
{
    static const program program = open_program();
    return program;
}

uintptr_t program_base(void)
{
    return this_program().base;
}

thread_local_segment find_shared_segment(void)
{
    dl_phdr_info info = program_headers();
    for (unsigned i = 0; i < info.dlpi_phnum; i++)
        if (info.dlpi_phdr[i].p_type == PT_TLS)
            return {reinterpret_cast<uintptr_t>(info.dlpi_tls_data), info.dlpi_phdr[i].p_memsz};
    return {};
}

/* The beginning of the mangled names of a function's local variables: kernel(float *) is
 * _Z6kernelPf, and its variable tile _ZZ6kernelPfE4tile. */
static std::string local_prefix(const char *function)
{
    if (!strncmp(function, "_Z", 2))
        return "_ZZ" + std::string(function + 2) + "E";
    return "_ZZ" + std::to_string(strlen(function)) + function + "E";
}

/* Without "void " and the parameters. */
static std::string readable(const char *mangled)
{
    char *text = abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr);
    std::string name = text ? text : mangled;
    free(text);
    if (!name.compare(0, 5, "void "))
        name.erase(0, 5);
    int depth = 0;
    for (size_t i = name.size(); i > 0; i--) {
        depth += (name[i - 1] == ')') - (name[i - 1] == '(');
        if (name[i - 1] == '(' && depth == 0)
            return name.substr(0, i - 1);
    }
    return name;
}

static kernel_symbol read_symbol(const void *kernel)
{
    const program &program = this_program();
    uintptr_t address = reinterpret_cast<uintptr_t>(kernel) - program.base;
    kernel_symbol found;
    std::string prefix;
    for (size_t i = 0; i < program.count && prefix.empty(); i++) {
        const Elf64_Sym &symbol = program.symbols[i];
        if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value != address)
            continue;
        found.name = readable(program.names + symbol.st_name);
        prefix = local_prefix(program.names + symbol.st_name);
    }
    if (prefix.empty()) {
        fprintf(stderr, "simt: the program has no symbols, without which nobody knows a kernel's "
                        "shared memory\n");
        abort();
    }
    for (size_t i = 0; i < program.count; i++) {
        const Elf64_Sym &symbol = program.symbols[i];
        const char *name = program.names + symbol.st_name;
        if (ELF64_ST_TYPE(symbol.st_info) != STT_TLS ||
            strncmp(name, prefix.c_str(), prefix.size()))
            continue;
        name += prefix.size();
        found.variables.push_back(
            {symbol.st_value, symbol.st_size, name + strspn(name, "0123456789")});
    }
    return found;
}

const kernel_symbol &symbol_of(const void *kernel)
{
    static std::map<const void *, kernel_symbol> known;
    auto found = known.find(kernel);
    if (found == known.end())
        found = known.emplace(kernel, read_symbol(kernel)).first;
    return found->second;
}

enum : place { SITE = 0x80000000 };

static std::vector<simt_site> sites(1);

place place_of(simt_site site)
{
    enum : unsigned { SLOTS = 4096 };
    static place table[SLOTS];
    uintptr_t hash = reinterpret_cast<uintptr_t>(site.file) * 31 + site.line;
    for (unsigned slot = hash * 0x9e3779b97f4a7c15 >> 52;; slot = (slot + 1) % SLOTS) {
        if (!table[slot]) {
            table[slot] = SITE | static_cast<place>(sites.size());
            sites.push_back(site);
        }
        const simt_site &known = sites[table[slot] & ~SITE];
        if (known.file == site.file && known.line == site.line)
            return table[slot];
    }
}

static std::string relative(std::string name)
{
    char folder[PATH_MAX];
    if (!getcwd(folder, sizeof folder))
        return name;
    std::string prefix = std::string(folder) + "/";
    return name.compare(0, prefix.size(), prefix) ? name : name.substr(prefix.size());
}

/* addr2line prints each address, then a line per inlined function, innermost first: the first one
 * outside the emulator's header is what the reader wants. */
static void ask_for_lines(const std::vector<place> &places, std::vector<std::string> &names)
{
    char executable[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (length < 0)
        return;
    executable[length] = 0;
    std::string command = "addr2line -a -i -e '" + std::string(executable) + "'";
    std::vector<size_t> asked;
    for (size_t i = 0; i < places.size(); i++) {
        if (!places[i] || places[i] & SITE)
            continue;
        char address[24];
        snprintf(address, sizeof address, " %x", places[i] - 1); /* inside the call */
        command += address;
        asked.push_back(i);
    }
    FILE *pipe = asked.empty() ? nullptr : popen((command + " 2>/dev/null").c_str(), "r");
    if (!pipe)
        return;
    char line[PATH_MAX + 64];
    size_t next = 0;
    bool searching = false;
    while (fgets(line, sizeof line, pipe)) {
        line[strcspn(line, " \n")] = 0;
        if (!strncmp(line, "0x", 2)) {
            searching = next < asked.size();
            next++;
        } else if (searching && !strstr(line, "tests/simt/simt.h")) {
            names[asked[next - 1]] = relative(line);
            searching = false;
        }
    }
    pclose(pipe);
}

std::vector<std::string> describe(const std::vector<place> &places)
{
    std::vector<std::string> names(places.size());
    for (size_t i = 0; i < places.size(); i++) {
        char text[32];
        snprintf(text, sizeof text, "%#x", places[i]);
        if (places[i] & SITE) {
            const simt_site &site = sites[places[i] & ~SITE];
            names[i] = relative(site.file) + ":" + std::to_string(site.line);
        } else if (places[i]) {
            names[i] = text;
        }
    }
    ask_for_lines(places, names);
    return names;
}

} // namespace simt
