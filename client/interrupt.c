#include "client/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

// Process-wide, as signals are.
static struct {
    pthread_mutex_t lock;
    octant_client *client;
    atomic_int count;
} interrupts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void signals_of_interest(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
}

static void *watch(void *unused) {
    (void)unused;
    sigset_t set;
    signals_of_interest(&set);
    for (int signal_number; sigwait(&set, &signal_number) == 0;) {
        if (atomic_fetch_add(&interrupts.count, 1) > 0) _exit(128 + signal_number);
        pthread_mutex_lock(&interrupts.lock);
        if (interrupts.client) octant_cancel(interrupts.client);
        pthread_mutex_unlock(&interrupts.lock);
    }
    return NULL;
}

status interrupt_start(void) {
    sigset_t set;
    signals_of_interest(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, watch, NULL);
    if (error)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                            strerror(error));
    pthread_detach(thread);
    return status_ok();
}

int interrupt_count(void) {
    return atomic_load(&interrupts.count);
}

void interrupt_cancels(octant_client *client) {
    pthread_mutex_lock(&interrupts.lock);
    interrupts.client = client;
    pthread_mutex_unlock(&interrupts.lock);
}

void interrupt_reset(void) {
    atomic_store(&interrupts.count, 0);
}
