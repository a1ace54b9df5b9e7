// warm_shard: a rank's weights, packed for its device, kept in shared memory, so that a process
// that died on a healthy node is back as soon as they were copied: neither disk nor repacking is in
// the way.
//
// One file for each rank in a folder (of tmpfs: /dev/shm), which outlives the process. It is used
// only if everything is as it was when it was written: the model's fingerprint, its files' sizes
// and times, the shard, the backend and its layout; and if the file is this user's, and the sums of
// its pieces fit. Else it is removed, the weights come from the model's files, and it is written
// anew. It appears under its name when it is whole: a process that dies while writing leaves
// nothing.
//
// A backend that multiplies from the mapped files needs none: the page cache keeps those.
#ifndef OCTANT_WORKER_WARM_SHARD_H
#define OCTANT_WORKER_WARM_SHARD_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/model/shard_plan.h"
#include "kernels/kernels.h"
#include "worker/loader.h"

typedef struct warm_shard {
    const char *folder;
    int64_t limit; // bytes that this rank may keep
    const model *model;
    const shard *shard;
    int rank, ranks;
    kernels *kernels;
    const load_item *items; // (item_count), all with device memory
    int item_count;
} warm_shard;

// Loads the items' device memory from the shard. NOT_FOUND: there is none; FAILED_PRECONDITION: it
// is of something else; DATA_LOSS: it is damaged; after these two it was removed. Other codes as
// loader_run.
status warm_shard_load(const warm_shard *w, progress *p, int64_t deadline_ns, load_report *out);

// Writes the shard from the items' device memory. RESOURCE_EXHAUSTED: larger than the limit, or the
// folder is full; nothing is left then.
status warm_shard_save(const warm_shard *w, int64_t deadline_ns);

// Where it is or would be: FOLDER/octant-MODEL-RANKofRANKS-BACKEND.shard, RANK from 0.
status warm_shard_path(const warm_shard *w, char *path, size_t size);

#endif
