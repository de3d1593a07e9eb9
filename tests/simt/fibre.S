/* Fibres on x86-64: the switch, and the memory behind `extern __shared__ T dynamic_shared[]`. */

/* simt_switch(void **save, void *load): pushes what a call must preserve, leaves the stack pointer
 * in *save, and returns on the stack `load` to where that one was left. */
    .text
    .globl simt_switch
    .type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_switch, . - simt_switch

/* 227 KB, the most that a block can have, and 4 KB that no block has. */
    .section .tbss, "awT", @nobits
    .globl dynamic_shared
    .type dynamic_shared, @tls_object
    .balign 1024
dynamic_shared:
    .zero 231 << 10
    .size dynamic_shared, . - dynamic_shared

    .section .note.GNU-stack, "", @progbits
