// warm_shard: see warm_shard.h. The file: a header of one block, a table of sums (one for each
// piece), then the matrices' device memory, each from a block's start on. Where each piece lies
// follows from the items, so that only the sums need a table.
#include "worker/warm_shard.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/model/fingerprint.h"
#include "kernels/stage.h"

enum { BLOCK = 4096, NAME_PART_MAX = 100, FORMAT = 1 };

typedef struct header {
    char magic[8];
    uint32_t format, pieces;
    uint64_t bytes; // of the file
    uint64_t table_sum;
    char key[FINGERPRINT_DIGITS + 1];
} header;

static const char magic[8] = "octwarm";

// ---- what a shard is of, and where it lies

static void copy_name(char *out, const char *name) {
    int n = 0;
    for (; name[n] && n < NAME_PART_MAX; n++)
        out[n] = isalnum((unsigned char)name[n]) || strchr("._-", name[n]) ? name[n] : '_';
    out[n] = 0;
}

status warm_shard_path(const warm_shard *w, char *path, size_t size) {
    char name[NAME_PART_MAX + 1], backend[NAME_PART_MAX + 1];
    copy_name(name, model_name(w->model));
    copy_name(backend, kernels_name(w->kernels));
    int n = snprintf(path, size, "%s/octant-%s-%dof%d-%s.shard", w->folder, name, w->rank, w->ranks,
                     backend);
    if (n > 0 && (size_t)n < size) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "--warm-shards: the path %.80s... is too long",
                        w->folder);
}

static size_t item_bytes(const warm_shard *w, int item) {
    return kernels_weight_bytes(w->kernels, &w->items[item].view);
}

static void add_files(const warm_shard *w, fingerprint *f) {
    int count = 0;
    const file_map *files = model_files(w->model, &count);
    for (int i = 0; i < count; i++) {
        fingerprint_add_number(f, (uint64_t)files[i].seen.st_size);
        fingerprint_add_number(f, (uint64_t)files[i].seen.st_mtim.tv_sec);
        fingerprint_add_number(f, (uint64_t)files[i].seen.st_mtim.tv_nsec);
    }
}

// All that the bytes depend on.
static status make_key(const warm_shard *w, char key[FINGERPRINT_DIGITS + 1]) {
    fingerprint *f = NULL;
    TRY(fingerprint_create(&f));
    const char *backend = kernels_name(w->kernels), *of = model_fingerprint(w->model);
    fingerprint_add_number(f, FORMAT);
    fingerprint_add_number(f, KERNELS_LAYOUT);
    fingerprint_add(f, backend, strlen(backend));
    fingerprint_add(f, of, strlen(of));
    add_files(w, f);
    const shard_range ranges[] = {w->shard->heads, w->shard->kv_heads, w->shard->ffn,
                                  w->shard->vocab, w->shard->layers,   w->shard->embedding};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        fingerprint_add_number(f, (uint64_t)ranges[i].begin);
        fingerprint_add_number(f, (uint64_t)ranges[i].end);
    }
    for (int i = 0; i < w->item_count; i++) {
        fingerprint_add_number(f, (uint64_t)w->items[i].view.rows);
        fingerprint_add_number(f, (uint64_t)w->items[i].view.cols);
        fingerprint_add_number(f, (uint64_t)w->items[i].view.type);
        fingerprint_add_number(f, item_bytes(w, i));
    }
    return fingerprint_finish(f, key);
}

static uint64_t to_block(uint64_t bytes) {
    return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

// The pieces in the order of the file; *bytes is the file's size. *out is malloc'ed.
static status lay_out(const warm_shard *w, load_piece **out, int *count, uint64_t *bytes) {
    int pieces = 0;
    for (int i = 0; i < w->item_count; i++)
        pieces += (int)((item_bytes(w, i) + LOADER_PIECE_BYTES - 1) / LOADER_PIECE_BYTES);
    load_piece *list = calloc((size_t)pieces + 1, sizeof *list);
    if (!list) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a warm shard's table");
    uint64_t at = BLOCK + to_block((uint64_t)pieces * sizeof(uint64_t));
    int n = 0;
    for (int i = 0; i < w->item_count; i++) {
        size_t size = item_bytes(w, i);
        for (size_t done = 0; done < size; done += LOADER_PIECE_BYTES) {
            size_t part = size - done < LOADER_PIECE_BYTES ? size - done : LOADER_PIECE_BYTES;
            list[n++] = (load_piece){.offset = (int64_t)(at + done),
                                     .row_bytes = part,
                                     .row_stride = part,
                                     .item = i,
                                     .rows = 1,
                                     .plain = true,
                                     .at = done};
        }
        at += to_block(size);
    }
    *out = list;
    *count = pieces;
    *bytes = at;
    return status_ok();
}

// ---- loading

static status system_status(const char *verb, const char *path) {
    int error = errno;
    status_code code = error == ENOENT                      ? STATUS_NOT_FOUND
                       : error == ENOSPC || error == ENOMEM ? STATUS_RESOURCE_EXHAUSTED
                                                            : STATUS_UNAVAILABLE;
    return status_error(code, "cannot %s %s: %s (errno %d)", verb, path, strerror(error), error);
}

static status read_at(int fd, const char *path, void *out, size_t size, off_t offset) {
    ssize_t got = pread(fd, out, size, offset);
    if (got == (ssize_t)size) return status_ok();
    if (got < 0) return system_status("read", path);
    return status_error(STATUS_DATA_LOSS, "%s is cut short", path);
}

// A file that somebody else could have written is not taken for weights.
static status check_owner(const char *path, const struct stat *info) {
    if (S_ISREG(info->st_mode) && info->st_uid == geteuid() && !(info->st_mode & 022))
        return status_ok();
    return status_error(STATUS_PERMISSION_DENIED,
                        "%s is not a file that only this user can write: remove it", path);
}

static status check_header(const warm_shard *w, const char *path, const header *h, int pieces,
                           uint64_t bytes, int64_t size) {
    char key[FINGERPRINT_DIGITS + 1];
    TRY(make_key(w, key));
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return status_error(STATUS_DATA_LOSS, "%s is no warm shard", path);
    if (memcmp(h->key, key, sizeof key) != 0)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "%s is of another model, shard, device or version", path);
    if (h->format != FORMAT || h->pieces != (uint32_t)pieces || h->bytes != bytes ||
        (uint64_t)size != bytes)
        return status_error(STATUS_DATA_LOSS, "%s has another size than its header says", path);
    return status_ok();
}

static status read_sums(int fd, const char *path, const header *h, load_piece *pieces) {
    size_t size = h->pieces * sizeof(uint64_t);
    uint64_t *sums = malloc(size + 1);
    if (!sums) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a warm shard's table");
    status s = read_at(fd, path, sums, size, BLOCK);
    if (status_is_ok(&s) && loader_checksum(sums, size) != h->table_sum)
        s = status_error(STATUS_DATA_LOSS, "%s is damaged: its table has another sum", path);
    for (uint32_t i = 0; status_is_ok(&s) && i < h->pieces; i++) pieces[i].checksum = sums[i];
    free(sums);
    return s;
}

// Memory needs no direct I/O; a folder on a disk does.
static bool on_disk(int fd) {
    struct statfs info;
    return fstatfs(fd, &info) == 0 && (unsigned long)info.f_type != TMPFS_MAGIC;
}

static status load_from(const warm_shard *w, int fd, const char *path, load_piece *pieces,
                        int count, uint64_t bytes, progress *p, int64_t deadline_ns,
                        load_report *out) {
    header h;
    file_map map = {.path = (char *)path};
    if (fstat(fd, &map.seen) != 0) return system_status("stat", path);
    TRY(check_owner(path, &map.seen));
    TRY(read_at(fd, path, &h, sizeof h, 0));
    TRY(check_header(w, path, &h, count, bytes, map.seen.st_size));
    TRY(read_sums(fd, path, &h, pieces));
    return loader_run(&(loader_options){.kernels = w->kernels,
                                        .files = &map,
                                        .file_count = 1,
                                        .items = w->items,
                                        .item_count = w->item_count,
                                        .pieces = pieces,
                                        .piece_count = count,
                                        .direct = on_disk(fd),
                                        .progress = p,
                                        .deadline_ns = deadline_ns},
                      out);
}

status warm_shard_load(const warm_shard *w, progress *p, int64_t deadline_ns, load_report *out) {
    char path[4096];
    TRY(warm_shard_path(w, path, sizeof path));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return system_status("open", path);
    load_piece *pieces = NULL;
    int count = 0;
    uint64_t bytes = 0;
    status s = lay_out(w, &pieces, &count, &bytes);
    if (status_is_ok(&s)) s = load_from(w, fd, path, pieces, count, bytes, p, deadline_ns, out);
    free(pieces);
    close(fd);
    if (s.code == STATUS_FAILED_PRECONDITION || s.code == STATUS_DATA_LOSS) unlink(path);
    return s;
}

// ---- saving

static status write_at(int fd, const char *path, const void *bytes, size_t size, int64_t offset) {
    for (size_t done = 0; done < size;) {
        ssize_t put = pwrite(fd, (const char *)bytes + done, size - done, offset + (int64_t)done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return system_status("write", path);
        done += (size_t)put;
    }
    return status_ok();
}

static status write_pieces(const warm_shard *w, int fd, const char *path, load_piece *pieces,
                           int count, char *memory, int64_t deadline_ns) {
    for (int i = 0; i < count; i++) {
        load_piece *p = &pieces[i];
        const char *device = w->items[p->item].device;
        TRY(kernels_download(w->kernels, memory, device + p->at, p->row_bytes));
        p->checksum = loader_checksum(memory, p->row_bytes);
        TRY(write_at(fd, path, memory, p->row_bytes, p->offset));
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED, "%s was not written in time", path);
    }
    return status_ok();
}

static status write_head(const warm_shard *w, int fd, const char *path, const load_piece *pieces,
                         int count, uint64_t bytes) {
    header h = {.format = FORMAT, .pieces = (uint32_t)count, .bytes = bytes};
    memcpy(h.magic, magic, sizeof magic);
    TRY(make_key(w, h.key));
    uint64_t *sums = malloc(((size_t)count + 1) * sizeof *sums);
    if (!sums) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a warm shard's table");
    for (int i = 0; i < count; i++) sums[i] = pieces[i].checksum;
    h.table_sum = loader_checksum(sums, (size_t)count * sizeof *sums);
    status s = write_at(fd, path, sums, (size_t)count * sizeof *sums, BLOCK);
    free(sums);
    return status_is_ok(&s) ? write_at(fd, path, &h, sizeof h, 0) : s;
}

// Gives the nameless file its name, in the place of one that was there.
static status publish(int fd, const char *path) {
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    unlink(path);
    if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 || errno == EEXIST)
        return status_ok(); // another group of the same model was faster
    return system_status("name", path);
}

static status write_all(const warm_shard *w, int fd, const char *path, load_piece *pieces,
                        int count, uint64_t bytes, int64_t deadline_ns) {
    int error = posix_fallocate(fd, 0, (off_t)bytes); // else a full tmpfs shows half-way
    errno = error;
    if (error != 0) return system_status("reserve the bytes of", path);
    kernels_stage *stage = NULL; // for memory that the device copies to by itself
    TRY(kernels_stage_open(w->kernels, 1, LOADER_PIECE_BYTES, &stage));
    status s =
        write_pieces(w, fd, path, pieces, count, kernels_stage_memory(stage, 0), deadline_ns);
    kernels_stage_close(stage);
    TRY(s);
    TRY(write_head(w, fd, path, pieces, count, bytes));
    return publish(fd, path);
}

status warm_shard_save(const warm_shard *w, int64_t deadline_ns) {
    char path[4096];
    TRY(warm_shard_path(w, path, sizeof path));
    load_piece *pieces = NULL;
    int count = 0;
    uint64_t bytes = 0;
    TRY(lay_out(w, &pieces, &count, &bytes));
    status s = status_ok();
    int fd = -1;
    if (bytes > (uint64_t)w->limit)
        s = status_error(STATUS_RESOURCE_EXHAUSTED,
                         "%s would take %lld MiB; --warm-memory allows %lld", path,
                         (long long)(bytes >> 20), (long long)(w->limit >> 20));
    else if ((fd = open(w->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) < 0)
        s = system_status("make a file in", w->folder);
    else
        s = write_all(w, fd, path, pieces, count, bytes, deadline_ns);
    if (fd >= 0) close(fd);
    free(pieces);
    return s;
}
