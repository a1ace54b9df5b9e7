#include "worker/watchdog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/log.h"

enum { LOOK_MS = 250, EXIT_STANDS_STILL = 4 };

struct watchdog {
    progress *progress;
    int64_t timeout_ns;
    pthread_t thread;
    _Atomic bool ending;
};

static void look(const watchdog *w) {
    cluster_phase phase = progress_phase(w->progress);
    if (phase != CLUSTER_STEP && phase != CLUSTER_ALLREDUCE) return;
    int64_t stood =
        clock_now_ns() - atomic_load_explicit(&w->progress->moved_ns, memory_order_relaxed);
    if (stood < w->timeout_ns) return;
    log_error("watchdog", "this rank has stood in phase %s of step %" PRIu64 " for %.1f s: ending",
              cluster_phase_name(phase),
              atomic_load_explicit(&w->progress->step, memory_order_relaxed),
              (double)stood / (double)CLOCK_SECOND);
    _exit(EXIT_STANDS_STILL);
}

static void *watch(void *argument) {
    watchdog *w = argument;
    while (!atomic_load(&w->ending)) {
        look(w);
        clock_sleep_until(clock_now_ns() + LOOK_MS * CLOCK_MS);
    }
    return NULL;
}

status watchdog_start(progress *p, int64_t timeout_ns, watchdog **out) {
    watchdog *w = calloc(1, sizeof *w);
    if (!w) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the watchdog");
    w->progress = p;
    w->timeout_ns = timeout_ns;
    if (pthread_create(&w->thread, NULL, watch, w) != 0) {
        free(w);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no thread for the watchdog");
    }
    *out = w;
    return status_ok();
}

void watchdog_stop(watchdog *w) {
    if (!w) return;
    atomic_store(&w->ending, true);
    pthread_join(w->thread, NULL);
    free(w);
}
