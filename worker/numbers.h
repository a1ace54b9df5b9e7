// numbers: whether what the ranks computed may be believed. Each rank reports a few numbers of a
// step, the leader gathers and compares them:
//   - what it was told: a hash of the step's words, the sampled tokens among them;
//   - one row of the hidden state after the last sum over ranks, a different one each step, which
//     is equal on all ranks of a stage bit by bit and holds the outcome of every sum before: a hash
//     of it, and whether it holds NaN or infinity;
//   - when its own part of the row's sums first held NaN or infinity: the rank that was first is
//     where it began, the others were only told.
// What the leader's sampler says of the logits is added by the leader.
#ifndef OCTANT_WORKER_NUMBERS_H
#define OCTANT_WORKER_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/shard_plan.h"
#include "proto/cluster_msg.h"

typedef struct numbers_report {
    uint64_t words, row; // hashes
    int32_t first_bad;   // of the sums of the step; REDUCE_ALL_FINITE: none
    int32_t row_bad;     // the row holds NaN or infinity
} numbers_report;

uint64_t numbers_hash(const void *bytes, size_t size);
bool numbers_all_finite(const float *x, size_t count);
bool numbers_all_finite_doubles(const double *x, size_t count);

// Compares the reports of `ranks` ranks, whose plan is `shards`; rows are compared within stages.
// OK: nothing is wrong. DATA_LOSS: *code and *rank say what and whose (-1: not one rank's).
status numbers_judge(const numbers_report *all, const shard *shards, int ranks,
                     cluster_failure *code, int *rank);

#endif
