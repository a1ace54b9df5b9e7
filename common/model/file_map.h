// file_map: a file of weights as memory: mapped read-only, pages read when they are touched, shared
// by all processes that map it. Whoever wants them early advises the kernel (madvise) on the ranges
// it needs.
#ifndef OCTANT_MODEL_FILE_MAP_H
#define OCTANT_MODEL_FILE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/base/status.h"

typedef struct file_map {
    const void *bytes;
    size_t size;
    char *path;
    struct stat seen; // as it was when mapped
} file_map;

// Maps a regular, non-empty file; the message names path and reason (a folder, a pipe, empty, no
// permission ...). *out is all zero after an error.
status file_map_open(const char *path, file_map *out);
void file_map_close(file_map *m); // one that is all zero is allowed

// DATA_LOSS when the file at the path is the one that was mapped and has another size or change
// time. A mapping whose file shrinks kills the process that reads it (SIGBUS), and nothing can
// prevent that; this tells it in time where there is time.
status file_map_check(const file_map *m);

// Reads a whole regular file of at most `limit` bytes; *bytes is malloc'ed, with a NUL behind the
// last. NOT_FOUND when there is none.
status file_read(const char *path, size_t limit, char **bytes, size_t *size);

#endif
