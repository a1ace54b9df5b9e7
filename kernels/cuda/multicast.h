// multicast: device memory of which every card of a host has its own copy, and which all of them
// reach at one further address that stands for all copies: what is read there arrives summed over
// the cards, what is written goes to all, and the NVSwitch between the cards does it (NVLink
// SHARP). Cards from H100 on, on boards with such switches; a driver of CUDA 12.1 or later, found
// at run time.
//
// The ranks are processes with a card each. Every step is taken by all, and the next one begins
// only when all have told that theirs went well (worker/reduce_multicast.c), since the driver may
// wait for ever for cards that do not come:
// - multicast_open asks the card and the driver, and makes this rank's copy; rank 0 the team's
//   object.
// - multicast_share: rank 0 hands the object to the others, as a file descriptor through sockets of
//   this host; this rank's card joins the team.
// - multicast_bind: this rank's copy becomes part of the object; both get their addresses.
// Where a step fails, all close what they have, and other ways are taken. A process that dies in
// the middle leaves nothing behind: the driver and the kernel take back all of it.
//
// May be included by C and .cu files of kernels/cuda, by reduce_multicast.c, bench and tests.
#ifndef OCTANT_KERNELS_CUDA_MULTICAST_H
#define OCTANT_KERNELS_CUDA_MULTICAST_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MULTICAST_RANKS_MAX = 16 };

typedef struct multicast multicast;

// What a kernel gets (device_multimem.h). Both addresses are multiples of 256.
typedef struct multicast_view {
    unsigned char *own; // this card's copy
    unsigned char *all; // all copies
    size_t bytes;
} multicast_view;

typedef struct multicast_options {
    int rank, ranks; // 1 <= ranks <= MULTICAST_RANKS_MAX, all on this host
    size_t bytes;    // at least
} multicast_options;

// Plain bytes, of which every rank must know everybody's.
typedef struct multicast_seat {
    char card[32];         // PCI bus id: no two ranks may have the same
    char mailbox[24];      // where the object is to be sent: an abstract socket's name
    unsigned char key[16]; // and the word by which the receiver knows it
    uint64_t bytes;        // of a copy; the same for all
} multicast_seat;

// On the calling thread's present device. FAILED_PRECONDITION, with the reason: this card, driver
// or machine has no multicast.
status multicast_open(const multicast_options *options, multicast **out, multicast_seat *mine);

// all[ranks]. Waits some seconds at most.
status multicast_share(multicast *m, const multicast_seat *all);
status multicast_bind(multicast *m);

multicast_view multicast_view_of(const multicast *m); // after multicast_bind

// At any point. When all ranks' devices are done with the memory, if it was bound. NULL is allowed.
void multicast_close(multicast *m);

#ifdef __cplusplus
}
#endif

#endif
