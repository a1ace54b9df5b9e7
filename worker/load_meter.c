#include "worker/load_meter.h"

#include "common/base/clock.h"

void load_meter_open(load_meter *m) {
    *m = (load_meter){0};
    pthread_mutex_init(&m->lock, NULL);
}

void load_meter_close(load_meter *m) {
    pthread_mutex_destroy(&m->lock);
}

static void count(load_meter *m, int change, int64_t bytes) {
    pthread_mutex_lock(&m->lock);
    int64_t now = clock_now_ns();
    if (m->reading > 0) m->read_ns += now - m->since_ns;
    m->since_ns = now;
    m->reading += change;
    m->bytes += bytes;
    pthread_mutex_unlock(&m->lock);
}

void load_meter_begin(load_meter *m) {
    count(m, 1, 0);
}

void load_meter_end(load_meter *m, int64_t bytes) {
    count(m, -1, bytes);
}

int64_t load_meter_bytes(load_meter *m) {
    pthread_mutex_lock(&m->lock);
    int64_t bytes = m->bytes;
    pthread_mutex_unlock(&m->lock);
    return bytes;
}

double load_meter_seconds(load_meter *m) {
    count(m, 0, 0);
    return (double)m->read_ns / (double)CLOCK_SECOND;
}
