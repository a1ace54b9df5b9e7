#include "common/model/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static status_code code_of(int error) {
    if (error == ENOENT || error == ENOTDIR) return STATUS_NOT_FOUND;
    if (error == EACCES || error == EPERM) return STATUS_PERMISSION_DENIED;
    if (error == ENOMEM || error == EMFILE || error == ENFILE) return STATUS_RESOURCE_EXHAUSTED;
    return STATUS_UNAVAILABLE;
}

static status system_error(const char *verb, const char *path) {
    int error = errno;
    return status_error(code_of(error), "cannot %s %s: %s", verb, path, strerror(error));
}

static const char *kind_of(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

// Opens without blocking, so that a pipe that nobody writes is an error and not a hang.
static status open_regular(const char *path, int *fd, struct stat *info) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) return system_error("open", path);
    status s = status_ok();
    if (fstat(*fd, info) != 0)
        s = system_error("stat", path);
    else if (!S_ISREG(info->st_mode))
        s = status_error(STATUS_INVALID_ARGUMENT, "%s is %s, not a regular file", path,
                         kind_of(info->st_mode));
    if (!status_is_ok(&s)) close(*fd);
    return s;
}

static status map(int fd, const char *path, file_map *out) {
    if (out->seen.st_size == 0)
        return status_error(STATUS_DATA_LOSS, "%s is empty: get the file again", path);
    out->path = strdup(path);
    if (!out->path) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to map %s", path);
    void *bytes = mmap(NULL, (size_t)out->seen.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) return system_error("map", path);
    out->bytes = bytes;
    out->size = (size_t)out->seen.st_size;
    return status_ok();
}

status file_map_open(const char *path, file_map *out) {
    *out = (file_map){0};
    int fd;
    TRY(open_regular(path, &fd, &out->seen));
    status s = map(fd, path, out);
    close(fd);
    if (!status_is_ok(&s)) file_map_close(out);
    return s;
}

void file_map_close(file_map *m) {
    if (m->bytes) munmap((void *)m->bytes, m->size);
    free(m->path);
    *m = (file_map){0};
}

status file_map_check(const file_map *m) {
    struct stat now;
    if (stat(m->path, &now) != 0)
        return status_ok(); // removed or renamed: the mapping keeps the old file
    if (now.st_dev != m->seen.st_dev || now.st_ino != m->seen.st_ino)
        return status_ok(); // replaced: likewise
    if (now.st_size == m->seen.st_size && now.st_mtim.tv_sec == m->seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == m->seen.st_mtim.tv_nsec)
        return status_ok();
    return status_error(
        STATUS_DATA_LOSS,
        "%s changed while it was in use (%lld bytes, then %lld): start again when it is complete",
        m->path, (long long)m->seen.st_size, (long long)now.st_size);
}

static status read_all(int fd, const char *path, char *bytes, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, bytes + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return system_error("read", path);
        if (got == 0)
            return status_error(STATUS_DATA_LOSS,
                                "%s became shorter while it was read: start again", path);
        done += (size_t)got;
    }
    return status_ok();
}

status file_read(const char *path, size_t limit, char **bytes, size_t *size) {
    int fd;
    struct stat info;
    *bytes = NULL;
    *size = 0;
    TRY(open_regular(path, &fd, &info));
    status s = status_ok();
    if ((uint64_t)info.st_size > limit)
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "%s has %lld bytes; at most %zu are read", path,
                         (long long)info.st_size, limit);
    else if (!(*bytes = calloc(1, (size_t)info.st_size + 1)))
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the %lld bytes of %s",
                         (long long)info.st_size, path);
    else
        s = read_all(fd, path, *bytes, (size_t)info.st_size);
    close(fd);
    if (status_is_ok(&s)) {
        *size = (size_t)info.st_size;
    } else {
        free(*bytes);
        *bytes = NULL;
    }
    return s;
}
