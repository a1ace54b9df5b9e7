// loader: brings a rank's weights from files to where they are computed with, as fast as the disk
// gives them. Several threads read pieces into the slots of a stage (kernels/stage.h); the calling
// thread hands filled slots to the device, which copies and repacks them meanwhile; so reading,
// copying and repacking overlap, and memory is bounded by the slots. On a backend that multiplies
// from mapped files the same threads read the pages in, and nothing is copied.
#ifndef OCTANT_WORKER_LOADER_H
#define OCTANT_WORKER_LOADER_H

#include <stdbool.h>

#include "common/base/status.h"
#include "common/model/file_map.h"
#include "kernels/kernels.h"
#include "worker/load_piece.h"
#include "worker/progress.h"

enum {
    LOADER_THREADS = 8,           // a fast disk wants some reads at once
    LOADER_SLOTS = 16,            // twice the threads: as many are being copied
    LOADER_PIECE_BYTES = 8 << 20, // a slot's; more where rows are longer
    LOADER_STALL_S = 120,         // no piece came for so long: an error
};

typedef struct loader_options {
    kernels *kernels;
    const file_map *files; // (file_count); copied, the mappings must stay
    int file_count;
    const load_item *items; // (item_count); copied
    int item_count;
    const load_piece *pieces; // (piece_count), copied; NULL: cut from the items
    int piece_count;
    bool direct;        // by direct I/O, where it can be
    progress *progress; // load rises from 0 to 1; NULL is allowed
    int64_t deadline_ns;
} loader_options;

// What came of it, for the line that a rank says.
typedef struct load_report {
    int64_t bytes;
    int64_t direct_bytes; // of these, past the page cache
    double seconds;       // in all
    double read_seconds;  // while at least one thread was reading: what the disk was given
    int64_t copied_bytes; // by the device, as they came from the files
    double copy_seconds;  // while it was copying these; 0 where nothing is copied
    int made;             // matrices that no file has as they are (worker/slice.h)
} load_report;

// An error names file, matrix, offset and errno: DATA_LOSS for a file that became shorter or a
// checksum that does not fit, UNAVAILABLE for one that cannot be read, DEADLINE_EXCEEDED when
// nothing comes.
status loader_run(const loader_options *options, load_report *out);

// "5017.6 MiB in 2.13 s, 2.30 GiB/s; reading alone ..." in at most `size` bytes with the NUL.
const char *load_report_text(const load_report *r, char *text, size_t size);

// Sum over a piece of device layout, for warm shards: four 64-bit FNV-1a sums side by side (Fowler,
// Noll, Vo), mixed at the end. Against accidents, not against forgers.
uint64_t loader_checksum(const void *bytes, size_t size);

#endif
