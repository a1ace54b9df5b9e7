#include "worker/load_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 // Linux 5.14
#endif

enum {
    PAGE = 4096,
    RESIDENT_PAGES = 4096, // of one question: 16 MiB
    GAP_MAX = 64 << 10,    // shorter gaps between rows are touched along with them
    SCRATCH = 64 << 10,
    COPY_LEAST = 1 << 20, // a run that is worth direct I/O and a copy
    COPY_BYTES = 1 << 20, // at a time
};

static status read_error(const load_file *f, int64_t offset, int error) {
    return status_error(STATUS_UNAVAILABLE, "cannot read %s at byte %lld: %s (errno %d)",
                        f->map.path, (long long)offset, strerror(error), error);
}

static status shorter(const load_file *f, int64_t offset, size_t size) {
    return status_error(STATUS_DATA_LOSS,
                        "%s became shorter while it was loaded: it has no bytes %lld to %lld any "
                        "more: start again when it is complete",
                        f->map.path, (long long)offset, (long long)offset + (long long)size - 1);
}

static status open_error(const char *path) {
    int error = errno;
    return status_error(error == ENOENT ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE,
                        "cannot open %s: %s (errno %d)", path, strerror(error), error);
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

status load_file_open(const file_map *map, bool direct, load_file *out) {
    memset(out, 0, sizeof *out);
    out->fd = out->direct_fd = -1;
    out->map = *map;
    out->fd = open(map->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (out->fd < 0) return open_error(map->path);
    struct stat now;
    if (fstat(out->fd, &now) != 0 || !same_file(&now, &map->seen)) {
        load_file_close(out);
        return status_error(STATUS_DATA_LOSS,
                            "%s changed while it was in use: start again when it is complete",
                            map->path);
    }
    // mincore(2) tells the truth to who could write the file anyway.
    out->sees_cache = map->bytes && (geteuid() == 0 || now.st_uid == geteuid());
    if (direct) out->direct_fd = open(map->path, O_RDONLY | O_CLOEXEC | O_DIRECT | O_NOCTTY);
    atomic_store(&out->direct, out->direct_fd >= 0);
    return status_ok();
}

void load_file_close(load_file *f) {
    if (!f->map.path) return;
    if (f->fd >= 0) close(f->fd);
    if (f->direct_fd >= 0) close(f->direct_fd);
    memset(f, 0, sizeof *f);
}

status load_file_bytes(load_file *f, int64_t offset, void *out, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(f->fd, (char *)out + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return read_error(f, offset + (int64_t)done, errno);
        if (got == 0) return shorter(f, offset, size);
        done += (size_t)got;
    }
    return status_ok();
}

// Whether most of the range is in the page cache. Wrong answers cost time, never bytes.
static bool is_cached(const load_file *f, int64_t offset, size_t size) {
    if (!f->sees_cache) return false;
    unsigned char pages[RESIDENT_PAGES];
    uintptr_t begin = ((uintptr_t)f->map.bytes + (uintptr_t)offset) & ~(uintptr_t)(PAGE - 1);
    size_t count = size / PAGE + 1, there = 0;
    if (count > RESIDENT_PAGES) count = RESIDENT_PAGES;
    if (mincore((void *)begin, count * PAGE, pages) != 0) return false;
    for (size_t i = 0; i < count; i++) there += pages[i] & 1;
    return there * 8 >= count * 7;
}

// One run by direct I/O. *taken: it was read; else the caller reads it by the page cache.
static status read_direct(load_file *f, int64_t offset, size_t size, char *buffer, size_t *at,
                          bool *taken) {
    int64_t begin = offset / LOAD_FILE_BLOCK * LOAD_FILE_BLOCK;
    size_t head = (size_t)(offset - begin), wanted = head + size, done = 0;
    size_t whole = (wanted + LOAD_FILE_BLOCK - 1) / LOAD_FILE_BLOCK * LOAD_FILE_BLOCK;
    *taken = false;
    while (done < wanted) {
        ssize_t got = pread(f->direct_fd, buffer + done, whole - done, begin + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EINVAL) { // this filesystem, or this file's end, refuses it
            atomic_store(&f->direct, false);
            return status_ok();
        }
        if (got < 0) return read_error(f, begin + (int64_t)done, errno);
        if (got == 0) return shorter(f, offset, size);
        done += (size_t)got;
        if (done < wanted && done % LOAD_FILE_BLOCK != 0) return status_ok(); // cut short
    }
    *taken = true;
    *at = head;
    atomic_fetch_add(&f->direct_bytes, (int64_t)size);
    return status_ok();
}

static void advise(const load_file *f, int64_t offset, size_t size) {
    // Advice: where it is refused, reading reads all the same.
    (void)posix_fadvise(f->fd, offset, (off_t)size, POSIX_FADV_WILLNEED);
}

static status read_run(load_file *f, int64_t offset, size_t size, char *buffer, size_t *at) {
    bool taken = false;
    if (atomic_load(&f->direct) && !is_cached(f, offset, size))
        TRY(read_direct(f, offset, size, buffer, at, &taken));
    if (taken) return status_ok();
    advise(f, offset, size);
    *at = 0;
    return load_file_bytes(f, offset, buffer, size);
}

status load_file_copy(load_file *f, int64_t offset, void *out, size_t size) {
    if (size < COPY_LEAST || !atomic_load(&f->direct) || is_cached(f, offset, size)) {
        advise(f, offset, size);
        return load_file_bytes(f, offset, out, size);
    }
    char *block = aligned_alloc(LOAD_FILE_BLOCK, COPY_BYTES + LOAD_FILE_SLACK);
    if (!block) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to read weights");
    status s = status_ok();
    for (size_t done = 0; status_is_ok(&s) && done < size; done += COPY_BYTES) {
        size_t n = size - done < COPY_BYTES ? size - done : COPY_BYTES, at = 0;
        s = read_run(f, offset + (int64_t)done, n, block, &at);
        if (status_is_ok(&s)) memcpy((char *)out + done, block + at, n);
    }
    free(block);
    return s;
}

static size_t span(const load_piece *p) {
    return (size_t)(p->rows - 1) * p->row_stride + p->row_bytes;
}

status load_file_read(load_file *f, const load_piece *p, char *buffer, size_t *at) {
    assert((uintptr_t)buffer % LOAD_FILE_BLOCK == 0);
    if (p->row_stride == p->row_bytes || p->rows == 1)
        return read_run(f, p->offset, load_piece_bytes(p), buffer, at);
    advise(f, p->offset, span(p));
    *at = 0;
    for (int r = 0; r < p->rows; r++)
        TRY(load_file_bytes(f, p->offset + (int64_t)((size_t)r * p->row_stride),
                            buffer + (size_t)r * p->row_bytes, p->row_bytes));
    return status_ok();
}

// Where the mapping cannot be filled (an old kernel, a file that shrank), reading tells why or
// fills the page cache at least.
static status touch_run(load_file *f, int64_t offset, size_t size) {
    uintptr_t first = (uintptr_t)f->map.bytes + (uintptr_t)offset;
    uintptr_t begin = first & ~(uintptr_t)(PAGE - 1);
    if (madvise((void *)begin, first + size - begin, MADV_POPULATE_READ) == 0) return status_ok();
    char scratch[SCRATCH];
    for (size_t done = 0; done < size; done += sizeof scratch) {
        size_t n = size - done < sizeof scratch ? size - done : sizeof scratch;
        TRY(load_file_bytes(f, offset + (int64_t)done, scratch, n));
    }
    return status_ok();
}

status load_file_touch(load_file *f, const load_piece *p) {
    assert(f->map.bytes);
    advise(f, p->offset, span(p));
    if (p->row_stride - p->row_bytes < GAP_MAX) return touch_run(f, p->offset, span(p));
    for (int r = 0; r < p->rows; r++)
        TRY(touch_run(f, p->offset + (int64_t)((size_t)r * p->row_stride), p->row_bytes));
    return status_ok();
}
