#include "tests/device/shim/fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
static const size_t STACK_BYTES = 256 << 10; // redzones
#else
static const size_t STACK_BYTES = 128 << 10;
#endif

static char *stacks_low, *stacks_high;

void fiber_stacks(fiber *first, size_t stride, int count) {
    size_t guard = (size_t)sysconf(_SC_PAGESIZE), each = STACK_BYTES + guard;
    if (!stacks_low) {
        size_t bytes = each * FIBERS_MAX;
        void *map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) {
            fprintf(stderr, "emulated device: no memory for %d fiber stacks\n", FIBERS_MAX);
            abort();
        }
        stacks_low = (char *)map;
        stacks_high = stacks_low + bytes;
        for (int i = 0; i < FIBERS_MAX; i++) mprotect(stacks_low + i * each, guard, PROT_NONE);
    }
    for (int i = 0; i < count; i++) {
        fiber *f = (fiber *)((char *)first + i * stride);
        f->stack = stacks_low + i * each + guard;
        f->stack_bytes = STACK_BYTES;
    }
}

bool fiber_on_stack(const void *p) {
    return p >= stacks_low && p < stacks_high;
}

#ifdef __SANITIZE_ADDRESS__
static void leaving(fiber *from, const fiber *to, bool last) {
    __sanitizer_start_switch_fiber(last ? nullptr : &from->asan_stack, to->stack, to->stack_bytes);
}

static void arrived(fiber *now, fiber *from) {
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(now ? now->asan_stack : nullptr, &bottom, &bytes);
    if (from && !from->stack) { // the launching thread's own stack is learnt here
        from->stack = (char *)bottom;
        from->stack_bytes = bytes;
    }
}
#else
static void leaving(fiber *, const fiber *, bool) {}
static void arrived(fiber *, fiber *) {}
#endif

void fiber_entered(fiber *from) {
    arrived(nullptr, from);
}

#ifdef __x86_64__

// Saves what a call preserves, swaps stacks, restores.
extern "C" void octant_fiber_swap(void **save, void *to);
asm(".text\n"
    ".globl octant_fiber_swap\n"
    ".type octant_fiber_swap, @function\n"
    "octant_fiber_swap:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n"
    ".size octant_fiber_swap, .-octant_fiber_swap\n");

void fiber_prepare(fiber *f, void (*entry)()) {
    enum { SAVED_REGISTERS = 6 };
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->stack, f->stack_bytes);
#endif
    void **top =
        (void **)(f->stack + f->stack_bytes) - 2; // as after a call: 8 past a multiple of 16
    top[1] = nullptr;
    top[0] = (void *)entry;
    f->stack_pointer = top - SAVED_REGISTERS;
    f->asan_stack = nullptr;
}

void fiber_switch(fiber *from, fiber *to, bool last) {
    leaving(from, to, last);
    octant_fiber_swap(&from->stack_pointer, to->stack_pointer);
    arrived(from, nullptr);
}

#else

void fiber_prepare(fiber *f, void (*entry)()) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->stack, f->stack_bytes);
#endif
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, entry, 0);
    f->asan_stack = nullptr;
}

void fiber_switch(fiber *from, fiber *to, bool last) {
    leaving(from, to, last);
    swapcontext(&from->context, &to->context);
    arrived(from, nullptr);
}

#endif
