// step: what the kernels know of the step's rows. Lies in device memory, so that a recorded graph
// finds each step's own numbers behind the same pointers; the host numbers beside it are the step's
// shape, rounded up to a bucket, and all grids follow from them alone.
//
// Written by kernels_begin (cuda.c) in one upload; read by the launchers and kernels of this
// folder. May be included by C and .cu files of kernels/cuda.
#ifndef OCTANT_KERNELS_CUDA_STEP_H
#define OCTANT_KERNELS_CUDA_STEP_H

#include <stdint.h>

// One sequence's rows: consecutive rows, consecutive positions. Position p of the sequence lies in
// KV block blocks[first_block + p / B]. 16 bytes, read as one load.
typedef struct cuda_step_seq {
    int32_t row, tokens; // tokens is 0 in the sequences that pad a bucket
    int32_t position;    // of the first row
    int32_t first_block;
} cuda_step_seq;

typedef struct cuda_step {
    // Device memory.
    const int32_t *ids;     // (tokens) token ids, or kernels_fed of a slot
    const int32_t *fed;     // (slots), or NULL; see kernels_step
    const int32_t *row_seq; // (tokens) the sequence of each row; -1 in the rows that pad a bucket
    const int32_t *row_position; // (tokens)
    const cuda_step_seq *seq;    // (seqs)
    const int32_t *blocks;       // all block tables, one after another
    // The shape.
    int tokens;     // T
    int seqs;       // S
    int seq_tokens; // at least the rows of every sequence; 1 in a step that only decodes
    int context;    // at least position + tokens of every sequence
} cuda_step;

#endif
