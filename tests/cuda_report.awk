# A table (Markdown) of what `sh tests/check_cuda_code.sh -v` prints: a row for each kernel with its registers,
# static shared memory and tensor-core instructions for sm_80, and the range over the other architectures.
#   sh tests/check_cuda_code.sh -v | awk -f tests/cuda_report.awk

function name_of(text)
{
    sub(/^void /, "", text)
    sub(/\([^()]*\)$/, "", text)
    sub(/\(operand\)0/, "3xTF32", text)
    sub(/\(operand\)1/, "TF32", text)
    sub(/\(operand\)2/, "BF16", text)
    sub(/\(operand\)3/, "F16", text)
    gsub(/\(order\)/, "", text)
    return text
}

function note(what, kernel, architecture, number)
{
    if (architecture == "sm_80") {
        first[what, kernel] = number
        return
    }
    if (!((what, kernel) in least) || number < least[what, kernel])
        least[what, kernel] = number
    if (number > most[what, kernel])
        most[what, kernel] = number
}

function cell(what, kernel,    others)
{
    others = least[what, kernel]
    if (most[what, kernel] != others)
        others = others " to " most[what, kernel]
    return first[what, kernel] " | " others
}

function bytes_of(text)
{
    return match(text, /[0-9]+ bytes smem/) ? substr(text, RSTART) + 0 : 0
}

/SPILLS/ { spills++ }
/^FAILED/ { print; failed = 1 }
/^sm_[0-9]+ tensor instructions: / {
    architecture = $1
    sub(/^sm_[0-9]+ tensor instructions: /, "")
    match($0, /: [0-9]+$/)
    note("tensor", name_of(substr($0, 1, RSTART - 1)), architecture, substr($0, RSTART + 2) + 0)
    next
}
/^sm_[0-9]+ .*: [0-9]+ registers/ {
    architecture = $1
    sub(/^sm_[0-9]+ /, "")
    match($0, /: [0-9]+ registers/)
    kernel = name_of(substr($0, 1, RSTART - 1))
    if (!(kernel in known)) {
        known[kernel] = 1
        names[++count] = kernel
    }
    note("registers", kernel, architecture, substr($0, RSTART + 2) + 0)
    note("shared", kernel, architecture, bytes_of($0))
    seen[architecture] = 1
}
END {
    print "| kernel | registers, sm_80 | others | static shared bytes, sm_80 | others | tensor instructions, sm_80 | others |"
    print "|---|---|---|---|---|---|---|"
    for (i = 1; i <= count; i++) {
        kernel = names[i]
        print "| `" kernel "` | " cell("registers", kernel) " | " cell("shared", kernel) " | " cell("tensor", kernel) " |"
    }
    for (architecture in seen)
        architectures++
    print "\n" count " kernels for " architectures " architectures, " spills + 0 " with spills"
    exit failed
}
