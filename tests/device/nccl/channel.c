// channel: see channel.h.
#include "channel.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

segment *segment_map(const char *name, bool create) {
    int fd = shm_open(name, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return NULL;
    void *memory = MAP_FAILED;
    if (!create || ftruncate(fd, sizeof(segment)) == 0)
        memory = mmap(NULL, sizeof(segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

void segment_unmap(segment *s) {
    if (s) munmap(s, sizeof *s);
}

void segment_forget(const char *name) {
    shm_unlink(name);
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t channel_write(channel *c, const void *bytes, size_t count) {
    uint64_t written = atomic_load_explicit(&c->written, memory_order_relaxed);
    uint64_t read = atomic_load_explicit(&c->read, memory_order_acquire);
    size_t n = least(count, CHANNEL_BYTES - (size_t)(written - read)), at = written % CHANNEL_BYTES;
    size_t first = least(n, CHANNEL_BYTES - at);
    memcpy(c->bytes + at, bytes, first);
    memcpy(c->bytes, (const char *)bytes + first, n - first);
    atomic_store_explicit(&c->written, written + n, memory_order_release);
    return n;
}

size_t channel_read(channel *c, void *bytes, size_t count) {
    uint64_t read = atomic_load_explicit(&c->read, memory_order_relaxed);
    uint64_t written = atomic_load_explicit(&c->written, memory_order_acquire);
    size_t n = least(count, (size_t)(written - read)), at = read % CHANNEL_BYTES;
    size_t first = least(n, CHANNEL_BYTES - at);
    memcpy(bytes, c->bytes + at, first);
    memcpy((char *)bytes + first, c->bytes, n - first);
    atomic_store_explicit(&c->read, read + n, memory_order_release);
    return n;
}
