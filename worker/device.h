// device: what this rank computes on: a card, or the processor's cores. All ranks of a group
// compute on the same kind, or the group does not start.
#ifndef OCTANT_WORKER_DEVICE_H
#define OCTANT_WORKER_DEVICE_H

#include <stdbool.h>

#include "common/base/status.h"
#include "kernels/kernels.h"
#include "worker/comm.h"

typedef struct device_options {
    const char *device; // "auto" (cuda where there is a card, else cpu), "cpu", "cuda"
    const char *isa;    // cpu: NULL for the best
    int threads;        // cpu: >= 1, the calling one included
    bool pin;           // cpu: pin threads to cores where there are enough
    const char *sums;   // cuda: "exact" or "bf16", see kernels_sums
    bool fast;          // cuda: see kernels_cuda_options
    const char *graphs; // cuda: "all", "decode" or "off", see kernels_record; NULL: all
} device_options;

// Makes the backend. On a host with fewer cards than ranks, ranks share them.
status device_open(const device_options *o, comm *c, kernels **out);

int device_card(const comm *c); // the number of the card that device_open takes, if it takes one

// Collective, after device_open on all: FAILED_PRECONDITION, naming two ranks, where one computes
// on a card and another does not. Different cards are a warning: all wait for the slowest.
status device_agree(comm *c, const kernels *k, int64_t deadline_ns);

#endif
