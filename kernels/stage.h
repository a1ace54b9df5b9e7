// stage: the way of weights to a device while they are still being read. Host memory in slots, from
// which the device copies by itself (pinned, on cuda), so that reading the next piece, copying this
// one and repacking the last go on at the same time.
//
// One thread owns a stage and calls everything here; others may fill a slot's memory between its
// being free (kernels_stage_poll) and its being handed in. May be included by worker, bench, tests.
#ifndef OCTANT_KERNELS_STAGE_H
#define OCTANT_KERNELS_STAGE_H

#include "kernels/kernels.h"

typedef struct kernels_stage kernels_stage;

enum { KERNELS_STAGE_SLOTS_MAX = 64 };

// Raised when the layout of any type's weights on any device changes: device memory that was saved
// before is no longer what operators read.
enum { KERNELS_LAYOUT = 2 };

// `slots` pieces of `bytes` each, aligned to 4096 as direct I/O wants it (bytes is a multiple of
// that). RESOURCE_EXHAUSTED when memory, or what may be pinned of it, is short.
status kernels_stage_open(kernels *k, int slots, size_t bytes, kernels_stage **out);

// Waits for what is under way. NULL is allowed. The kernels must still be there.
void kernels_stage_close(kernels_stage *s);

void *kernels_stage_memory(kernels_stage *s, int slot);

// Queues: rows [first_row, first_row + count) of the matrix that `shape` describes (its data and
// row_stride are of no matter, its scales are all rows') lie `offset` bytes into the slot, one
// after another without gaps, and kernels_stage_room(shape, count) bytes from there on are the
// stage's to use; they are brought to the matrix's place at `device`, kernels_weight_bytes of
// device memory, in the device's layout. first_row is a multiple of KERNELS_STAGE_ROWS; so is
// count, unless these are the matrix's last. Pieces may come in any order. On a backend that
// multiplies from plain memory (kernels_weight_bytes is 0) the rows are copied to `device` as they
// are.
enum { KERNELS_STAGE_ROWS = 16 };
size_t kernels_stage_room(const kernels_weight *shape, int count);
status kernels_stage_rows(kernels_stage *s, int slot, size_t offset, const kernels_weight *shape,
                          int first_row, int count, void *device);

// Queues: `bytes` from `offset` in the slot to device memory, as they are.
status kernels_stage_copy(kernels_stage *s, int slot, size_t offset, void *device, size_t bytes);

// *done: what was last queued from the slot was copied out of it; its memory is free.
status kernels_stage_poll(kernels_stage *s, int slot, bool *done);

// Waits until all that was queued lies in its place. DEADLINE_EXCEEDED; INTERNAL with the device's
// error.
status kernels_stage_sync(kernels_stage *s, int64_t deadline_ns);

// How long copies were under way so far, of slots that were polled to be done; 0 where copies are
// made by the calling thread.
double kernels_stage_copy_seconds(const kernels_stage *s);

// *out = the matrix as operators take it, once its rows are in place. For matrices whose
// kernels_weight_bytes is not 0.
status kernels_stage_weight(kernels *k, const kernels_weight *shape, void *device,
                            kernels_weight *out);

#endif
