// mail: what goes up to a step, and what comes back from it, by kernels that read and write pinned
// slots of the host's. A recorded copy has one address and one length for good; here the slots of a
// ring take turns, counted in device memory, and a slot says itself how much it holds. So a step is
// one recorded graph, and the host may fill a slot while the device still works on another.
//
// Private to kernels/cuda: plan.c and sampler.c own the rings.
#ifndef OCTANT_KERNELS_CUDA_MAIL_H
#define OCTANT_KERNELS_CUDA_MAIL_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MAIL_UNIT = 16, // bytes that are moved at once: all places and lengths are multiples
    MAIL_ARRAYS_MAX = 8,
};

typedef struct mail_ring {
    unsigned char *slots; // (turns, slot_bytes) pinned, by the device's name for it
    size_t slot_bytes;
    uint32_t
        *place; // (2) device memory, zeroed at first: whose turn it is, and blocks that are done
    uint32_t turns;
} mail_ring;

// How a slot that goes up begins.
typedef struct mail_head {
    uint32_t units[MAIL_ARRAYS_MAX]; // that each array holds
} mail_head;

// Where the arrays lie, in units from the start of the slot; and of the device's memory.
typedef struct mail_layout {
    uint32_t first[MAIL_ARRAYS_MAX];
    uint32_t arrays;
} mail_layout;

// Queues: the arrays of the slot whose turn it is to their places at `device`; then it is the next
// slot's turn. `bytes` is about what they may hold, for the choice of a grid.
cudaError_t mail_up(cudaStream_t stream, const mail_ring *ring, const mail_layout *layout,
                    void *device, size_t bytes);

// Queues: `bytes` of device memory, rounded up to a unit, into the slot whose turn it is; then it
// is the next slot's turn.
cudaError_t mail_down(cudaStream_t stream, const mail_ring *ring, const void *device, size_t bytes);

// The same, but ring->place (1) is somebody else's, and stays.
cudaError_t mail_down_in_turn(cudaStream_t stream, const mail_ring *ring, const void *device,
                              size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
