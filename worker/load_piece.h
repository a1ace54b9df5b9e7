// load_piece: which bytes of which file a rank reads, in what pieces and in what order. Pure
// arithmetic over the matrices' views; no I/O.
//
// A piece is some rows of one matrix, as many as fit a buffer. Rows that lie one after another in
// the file (slices by rows, or whole matrices) are one run, read at once. Rows that do not (slices
// by columns) are read one by one: what lies between belongs to other ranks. Pieces are sorted by
// where they lie, so that a disk is read from front to back.
#ifndef OCTANT_WORKER_LOAD_PIECE_H
#define OCTANT_WORKER_LOAD_PIECE_H

#include "common/base/status.h"
#include "common/model/file_map.h"
#include "kernels/kernels.h"

// A matrix to load: where it lies in a mapped file, and where it shall go.
typedef struct load_item {
    kernels_weight view; // inside one of the files; data NULL: in none, nothing is read for it
    void *device;        // NULL: its pages are read in, no more (it is multiplied where it lies)
    const char *what;    // "down matrix"
    int layer;           // -1: of none
} load_item;

typedef struct load_piece {
    int file;
    int64_t offset;    // of the first row
    size_t row_bytes;  // of the slice
    size_t row_stride; // from row to row in the file; row_bytes: one run
    int item;          // index of the matrix
    int first_row;     // of the matrix
    int rows;          // 1 where `plain`
    bool plain;        // not rows to be repacked: row_bytes bytes of device layout, from `at`
    size_t at;         // bytes into the matrix's device memory
    uint64_t checksum; // of these bytes, where `plain`
} load_piece;

static inline size_t load_piece_bytes(const load_piece *p) {
    return (size_t)p->rows * p->row_bytes;
}

// Cuts the items into pieces of at most `bytes` bytes, whole groups of KERNELS_STAGE_ROWS rows.
// *out is malloc'ed. INTERNAL when a view is in none of the files; INVALID_ARGUMENT when a group of
// rows is larger than `bytes`.
status load_pieces_cut(const file_map *files, int file_count, const load_item *items,
                       int item_count, size_t bytes, load_piece **out, int *count);

// What a message calls an item: "the down matrix of layer 3". At most `size` bytes with the NUL.
const char *load_item_name(const load_item *item, char *text, size_t size);

#endif
