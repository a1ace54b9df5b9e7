// shard_plan: who holds what. Pure arithmetic from the model's config and the number of ranks;
// computed by the coordinator, sent at registration, obeyed by the workers.
//
// Tensor parallel as in Megatron-LM (Shoeybi et al. 2019): q, k, v, gate and up are cut by output
// rows, o and down by input columns, embedding and output by vocabulary rows; one allreduce after o
// and one after down. Any rank count from 1 to the number of query heads: query heads are cut into
// contiguous runs, the first (heads mod ranks) ranks one more; a rank holds every KV head that one
// of its query heads reads, so KV heads at the seams are replicated. FFN columns are cut in units
// of 32, or of config->ffn_block where that is larger (256 in Q4_K), so that no block is split;
// vocabulary rows one by one. With more ranks than units the last ranks get an empty range, which
// every part must bear.
#ifndef OCTANT_MODEL_SHARD_PLAN_H
#define OCTANT_MODEL_SHARD_PLAN_H

#include "common/base/dtype.h"
#include "common/base/status.h"
#include "common/model/model_config.h"

enum { SHARD_RANKS_MAX = MODEL_HEADS_MAX, SHARD_FFN_UNIT = 32 };

typedef struct shard_range {
    int begin, end; // [begin, end)
} shard_range;

typedef struct shard {
    shard_range heads;    // query heads
    shard_range kv_heads; // may overlap with the neighbour's
    shard_range ffn;      // FFN columns
    shard_range vocab;    // rows of embedding and output
} shard;

// What rank `rank` of `ranks` holds. INVALID_ARGUMENT, with the largest count that works, when
// ranks is out of range.
status shard_plan(const model_config *config, int ranks, int rank, shard *out);

// Columns of the FFN that no plan cuts. A multiple of SHARD_FFN_UNIT and of the quantisation block;
// larger in wide models, where even shares matter less than the cost of each unit
// (kernels_matmul_sums).
int shard_ffn_unit(const model_config *config);

// Checks a plan that came over the wire: ranges inside the model, kv_heads exactly those that heads
// need.
status shard_check(const model_config *config, const shard *s);

// Quantised weights come in blocks along the summed dimension, and no block may be split: checks
// that the shard's columns of o (type `o`) and of down (type `down`) begin and end on blocks.
// INVALID_ARGUMENT says with which rank count or type it works.
status shard_check_blocks(const model_config *config, const shard *s, dtype o, dtype down);

// Weights (matrices, norms, biases; a tied output counts once) that a rank holds; for planning and
// for the memory check before loading.
int64_t shard_weight_count(const model_config *config, const shard *s);

#endif
