// fiber: a function with a stack of its own, to and from which control is handed by hand. What a
// CUDA thread becomes on the emulated device.
//
// About 15 ns a switch on x86-64 (the registers that a call keeps are all that is saved); elsewhere
// swapcontext, ten times that. Stacks end in a page that may not be touched, so that a kernel with
// huge local arrays faults instead of writing into its neighbour. ASan is told of each switch.
#ifndef OCTANT_TESTS_DEVICE_FIBER_H
#define OCTANT_TESTS_DEVICE_FIBER_H

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

struct fiber {
    void *stack_pointer; // while it does not run
    char *stack;         // lowest usable byte; null for the thread that runs the fibers
    size_t stack_bytes;
    void *asan_stack; // ASan's note of a stack that is left
#ifndef __x86_64__
    ucontext_t context;
#endif
};

enum { FIBERS_MAX = 1024 };

// Stacks for `count` <= FIBERS_MAX fibers; mapped once for the process and never given back. Aborts
// without memory.
void fiber_stacks(fiber *first, size_t stride, int count);

// Where all those stacks lie.
bool fiber_on_stack(const void *p);

// Makes `f` start `entry` at the next switch to it. entry never returns: it ends by a switch with
// `last`.
void fiber_prepare(fiber *f, void (*entry)());

// Leaves `from` (which runs) for `to`. `last`: from will not be returned to.
void fiber_switch(fiber *from, fiber *to, bool last);

// To be called first in entry, with the fiber that was left (for ASan).
void fiber_entered(fiber *from);

#endif
