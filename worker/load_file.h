// load_file: one file of weights, read by several threads at once.
//
// A run of bytes is read by direct I/O (open(2), O_DIRECT) where the filesystem takes it: weights
// that go on to a device would only push other things out of the page cache. What lies in the page
// cache already is read from there, and so are short rows with gaps between them, whose pages
// several ranks of a host share. Never through the mapping: a file that shrinks is an error here,
// not a SIGBUS.
#ifndef OCTANT_WORKER_LOAD_FILE_H
#define OCTANT_WORKER_LOAD_FILE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/status.h"
#include "common/model/file_map.h"
#include "worker/load_piece.h"

// Direct I/O wants offsets, lengths and buffers in multiples of this: the largest logical block of
// common disks.
enum { LOAD_FILE_BLOCK = 4096 };

// Room that a buffer needs beyond a piece's own bytes.
enum { LOAD_FILE_SLACK = 2 * LOAD_FILE_BLOCK };

typedef struct load_file {
    file_map map; // the caller's; bytes is NULL for a file that is not mapped
    int fd, direct_fd;
    atomic_bool direct;           // works, as far as is known
    bool sees_cache;              // mincore(2) tells what is in the page cache; else it says "all"
    _Atomic int64_t direct_bytes; // read so far past the page cache
} load_file;

// Opens map->path and sees that it is still the file that was mapped: DATA_LOSS when not. `direct`
// false: by the page cache alone.
status load_file_open(const file_map *map, bool direct, load_file *out);
void load_file_close(load_file *f); // one that is all zero is allowed

// Reads the piece's rows into `buffer` (aligned to LOAD_FILE_BLOCK, load_piece_bytes +
// LOAD_FILE_SLACK), one after another from *at on. The message of an error names file, offset and
// errno.
status load_file_read(load_file *f, const load_piece *p, char *buffer, size_t *at);

// Brings the piece's pages into the page cache and into the mapping's page table.
status load_file_touch(load_file *f, const load_piece *p);

// Plain bytes: [offset, offset + size), by the page cache.
status load_file_bytes(load_file *f, int64_t offset, void *out, size_t size);

// The same, a long run of them by direct I/O as in load_file_read.
status load_file_copy(load_file *f, int64_t offset, void *out, size_t size);

#endif
