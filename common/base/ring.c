#include "common/base/ring.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"

struct ring {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    size_t item_size, capacity, head, count;
    bool closed;
    unsigned char items[];
};

ring *ring_create(size_t item_size, size_t capacity) {
    assert(item_size > 0 && capacity > 0);
    if (capacity > (SIZE_MAX - sizeof(ring)) / item_size) return NULL;
    ring *r = calloc(1, sizeof *r + item_size * capacity);
    if (!r) return NULL;
    r->item_size = item_size;
    r->capacity = capacity;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->not_empty, &monotonic);
    pthread_cond_init(&r->not_full, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return r;
}

void ring_destroy(ring *r) {
    if (!r) return;
    pthread_cond_destroy(&r->not_empty);
    pthread_cond_destroy(&r->not_full);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

// Waits once; false when the deadline has passed.
static bool wait_for(ring *r, pthread_cond_t *cond, int64_t deadline_ns) {
    if (deadline_ns <= 0) return false;
    struct timespec t = {.tv_sec = (time_t)(deadline_ns / CLOCK_SECOND),
                         .tv_nsec = (long)(deadline_ns % CLOCK_SECOND)};
    return pthread_cond_timedwait(cond, &r->lock, &t) == 0;
}

bool ring_push(ring *r, const void *item, int64_t deadline_ns) {
    pthread_mutex_lock(&r->lock);
    while (r->count == r->capacity && !r->closed)
        if (!wait_for(r, &r->not_full, deadline_ns)) break;
    bool fits = r->count < r->capacity && !r->closed;
    if (fits) {
        size_t slot = (r->head + r->count) % r->capacity;
        memcpy(r->items + slot * r->item_size, item, r->item_size);
        r->count++;
        pthread_cond_signal(&r->not_empty);
    }
    pthread_mutex_unlock(&r->lock);
    return fits;
}

bool ring_try_push(ring *r, const void *item) {
    return ring_push(r, item, 0);
}

bool ring_pop(ring *r, void *item, int64_t deadline_ns) {
    pthread_mutex_lock(&r->lock);
    while (r->count == 0 && !r->closed)
        if (!wait_for(r, &r->not_empty, deadline_ns)) break;
    bool got = r->count > 0;
    if (got) {
        memcpy(item, r->items + r->head * r->item_size, r->item_size);
        r->head = (r->head + 1) % r->capacity;
        r->count--;
        pthread_cond_signal(&r->not_full);
    }
    pthread_mutex_unlock(&r->lock);
    return got;
}

void ring_close(ring *r) {
    pthread_mutex_lock(&r->lock);
    r->closed = true;
    pthread_cond_broadcast(&r->not_empty);
    pthread_cond_broadcast(&r->not_full);
    pthread_mutex_unlock(&r->lock);
}

bool ring_is_closed(ring *r) {
    pthread_mutex_lock(&r->lock);
    bool closed = r->closed;
    pthread_mutex_unlock(&r->lock);
    return closed;
}

size_t ring_count(ring *r) {
    pthread_mutex_lock(&r->lock);
    size_t count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}
