// shard_plan: who holds what. Pure arithmetic from the model's config and the number of ranks and
// stages; computed by the coordinator, sent at registration, obeyed by the workers.
//
// Tensor parallel as in Megatron-LM (Shoeybi et al. 2019): q, k, v, gate and up are cut by output
// rows, o and down by input columns, embedding and output by vocabulary rows; one allreduce after o
// and one after down. Any rank count from 1 to the number of query heads: query heads are cut into
// contiguous runs, the first (heads mod ranks) ranks one more; a rank holds every KV head that one
// of its query heads reads, so KV heads at the seams are replicated. FFN columns are cut in units
// of 32, or of config->ffn_block where that is larger (256 in Q4_K), so that no block is split;
// vocabulary rows one by one. Of a mixture of experts each rank holds the same columns of every
// expert, and the router whole. With more ranks than units the last ranks get an empty range, which
// every part must bear.
//
// Pipeline parallel (Huang et al. 2019, GPipe) above that: the layers are cut into stages of
// consecutive layers, each with ranks of its own, among whom all of the above is cut. The first
// stage alone holds the embedding, the last alone the output matrix. Stages hold about as many
// weights for each of their ranks. The ranks of a stage are neighbours, so that a stage is a host
// where the launcher fills host by host, and the LAST stage has the first ranks: rank 0, the
// leader, samples where the logits are made. Any number of ranks can be cut into any number of
// stages: where it does not divide, the last stages have one rank more.
#ifndef OCTANT_MODEL_SHARD_PLAN_H
#define OCTANT_MODEL_SHARD_PLAN_H

#include "common/base/dtype.h"
#include "common/base/status.h"
#include "common/model/model_config.h"

enum { SHARD_RANKS_MAX = MODEL_HEADS_MAX, SHARD_STAGES_MAX = 64, SHARD_FFN_UNIT = 32 };

typedef struct shard_range {
    int begin, end; // [begin, end)
} shard_range;

typedef struct shard {
    shard_range heads;    // query heads
    shard_range kv_heads; // may overlap with the neighbour's
    shard_range ffn;      // FFN columns
    shard_range vocab;    // rows of the output matrix; empty but in the last stage
    shard_range layers;
    shard_range embedding; // rows of it; empty but in the first stage
} shard;

// What rank `rank` of `ranks`, cut into `stages` stages, holds. INVALID_ARGUMENT, with the counts
// that work, when one is out of range.
status shard_plan(const model_config *config, int ranks, int stages, int rank, shard *out);

// Where a rank stands in a plan: read off the layers.
typedef struct shard_place {
    int stages, stage; // in the order of the layers: stage 0 embeds
    int first, ranks;  // of the stage: ranks first to first + ranks - 1
    int rank;          // within the stage
} shard_place;
shard_place shard_find_place(const shard *shards, int ranks, int rank);

// Of stage `stage` (counted as in shard_place), its ranks: first and count; the same plan.
shard_place shard_find_stage(const shard *shards, int ranks, int stage);

// Columns of the FFN that no plan cuts. A multiple of SHARD_FFN_UNIT and of the quantisation block;
// larger in wide models, where even shares matter less than the cost of each unit
// (kernels_matmul_sums).
int shard_ffn_unit(const model_config *config);

// Checks a plan that came over the wire. One shard: ranges inside the model, kv_heads exactly those
// that heads need. All of a plan: besides, the stages' layers and each stage's heads, columns and
// rows cover the model, in order and once.
status shard_check(const model_config *config, const shard *s);
status shard_check_plan(const model_config *config, const shard *shards, int ranks);

// Quantised weights come in blocks along the summed dimension, and no block may be split: checks
// that the shard's columns of o (type `o`) and of down (type `down`) begin and end on blocks.
// INVALID_ARGUMENT says with which rank count or type it works.
status shard_check_blocks(const model_config *config, const shard *s, dtype o, dtype down);

// Weights (matrices, norms, biases; a tied output counts once where one rank holds both its uses)
// that a rank holds; for planning and for the memory check before loading.
int64_t shard_weight_count(const model_config *config, const shard *s);

#endif
