#include "worker/device_watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum {
    INTERVAL_MS = 1000,
    STALE_MS = 10000, // no answer for so long, and nothing is known
    END_SECONDS = 3,  // for a driver to let go of the thread at the end
};

struct device_watch {
    int card;
    bool started;
    pthread_t thread;
    atomic_bool ending;
    pthread_mutex_t lock; // of what follows
    device_health health;
    int64_t told_ns;
    bool fatal;
    char fault[KERNELS_FAULT_MAX];
};

device_watch *device_watch_create(void) {
    device_watch *w = calloc(1, sizeof *w);
    if (w) pthread_mutex_init(&w->lock, NULL);
    return w;
}

static void publish(device_watch *w, const device_health *health, bool fatal, const char *fault) {
    pthread_mutex_lock(&w->lock);
    w->health = *health;
    w->told_ns = clock_now_ns();
    if (fatal && !w->fatal) memcpy(w->fault, fault, sizeof w->fault); // the first one stays
    w->fatal = w->fatal || fatal;
    pthread_mutex_unlock(&w->lock);
}

static void *watch(void *argument) {
    device_watch *w = argument;
    kernels_monitor *monitor = NULL;
    status s = kernels_monitor_open(w->card, &monitor);
    if (!status_is_ok(&s)) {
        log_debug("device", "the card's health is not known: %s", s.message);
        return NULL;
    }
    bool fatal = false;
    char said[KERNELS_FAULT_MAX] = ""; // faults of some program come by the thousand
    for (int timeout_ms = 0; !atomic_load(&w->ending) && !fatal; timeout_ms = INTERVAL_MS) {
        device_health health;
        char fault[KERNELS_FAULT_MAX];
        fatal = kernels_monitor_wait(monitor, timeout_ms, &health, fault) != 0;
        if (fault[0] && strcmp(fault, said) != 0) log_warn("device", "%s", strcpy(said, fault));
        publish(w, &health, fatal, fault);
    }
    kernels_monitor_close(monitor);
    return NULL;
}

void device_watch_start(device_watch *w, int card) {
    if (w->started) return;
    w->card = card;
    w->started = pthread_create(&w->thread, NULL, watch, w) == 0;
    if (!w->started) log_warn("device", "no thread for the card's health");
}

bool device_watch_look(device_watch *w, device_health *out, char fault[KERNELS_FAULT_MAX]) {
    pthread_mutex_lock(&w->lock);
    *out = w->health;
    if (clock_now_ns() - w->told_ns > STALE_MS * CLOCK_MS) out->known = false;
    bool fatal = w->fatal;
    if (fatal) memcpy(fault, w->fault, sizeof w->fault);
    pthread_mutex_unlock(&w->lock);
    return fatal;
}

void device_watch_destroy(device_watch *w) {
    if (!w) return;
    atomic_store(&w->ending, true);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += END_SECONDS;
    // A thread that hangs in the driver keeps what it uses; the process is about to end.
    if (w->started && pthread_timedjoin_np(w->thread, NULL, &until) != 0) return;
    pthread_mutex_destroy(&w->lock);
    free(w);
}
