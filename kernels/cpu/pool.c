// pool: see pool.h. How a fork-join works, without a lock:
//
// One 64-bit word holds the number of the job and the next task that nobody has taken. A thread
// takes a task by a compare-and-swap on that word, so a thread that slept through a job can never
// take from it, nor hold up its end. To post a job the caller first closes the word (new number, no
// tasks), then writes what the job is, then opens it at task 0. A thread that has read a mix of an
// old and a new job fails its compare-and-swap, because the number has moved on.
#include "kernels/cpu/pool.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CLOSED UINT32_MAX

enum {
    SPIN_ROUNDS = 2000,   // pauses before sleeping, ~30 us: longer than the gaps between operators
    CROWDED_ROUNDS = 50,  // the same where there are more threads than cores
    YIELD_ROUNDS = 4,     // offers of the core to others before the sleep
    STACK_BYTES = 1 << 20 // tasks keep their scratch elsewhere
};

typedef struct worker {
    pool *owner;
    pthread_t thread;
    int index;
    int core; // -1: not pinned
} worker;

struct pool {
    _Alignas(64) _Atomic uint64_t ticket; // job number << 32 | next task
    _Alignas(64) _Atomic int done;        // tasks of this job that have ended
    _Alignas(64) _Atomic uint32_t epoch;  // counts jobs; what sleepers wait on
    _Atomic int sleepers;
    _Atomic bool stop;
    _Atomic(pool_task *) run; // the job, valid while the ticket is open
    _Atomic(void *) context;
    _Atomic int tasks;
    int threads, spin;
    worker workers[POOL_THREADS_MAX];
};

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

// Takes and runs tasks until the current job has none left.
static void work(pool *p, int thread) {
    uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    for (;;) {
        uint32_t next = (uint32_t)ticket;
        pool_task *run = atomic_load_explicit(&p->run, memory_order_acquire);
        void *context = atomic_load_explicit(&p->context, memory_order_acquire);
        int tasks = atomic_load_explicit(&p->tasks, memory_order_acquire);
        if (next == CLOSED || next >= (uint32_t)tasks) return;
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &ticket, ticket + 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        run(context, (int)next, thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
}

// Returns when a job newer than `seen` was posted.
static void await_job(pool *p, uint32_t seen) {
    for (int i = 0; i < p->spin; i++) {
        if (atomic_load_explicit(&p->epoch, memory_order_acquire) != seen) return;
        pause_cpu();
    }
    for (int i = 0; i < YIELD_ROUNDS; i++) {
        sched_yield();
        if (atomic_load_explicit(&p->epoch, memory_order_acquire) != seen) return;
    }
    // The order "count myself, then look" here and "post, then count" there (both sequentially
    // consistent) leaves no gap in which a job is posted unseen to a thread that then sleeps.
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->epoch) == seen) futex_wait(&p->epoch, seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

// The n-th core of this process's affinity mask from first_core on, around its end; -1 if unknown.
static int nth_core(int first_core, int n, int *cores) {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0 || CPU_COUNT(&mask) == 0) return -1;
    *cores = CPU_COUNT(&mask);
    int wanted = (first_core + n) % *cores;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &mask) && wanted-- == 0) return core;
    return -1;
}

// Pinning is for speed only: a machine that refuses it runs unpinned.
static void pin(int core) {
    if (core < 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static void *worker_main(void *argument) {
    worker *w = argument;
    pool *p = w->owner;
    pin(w->core);
    uint32_t seen = 0;
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        await_job(p, seen);
        seen = atomic_load_explicit(&p->epoch, memory_order_acquire);
        work(p, w->index);
    }
    return NULL;
}

static status start_worker(pool *p, int index) {
    worker *w = &p->workers[index];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int error = pthread_create(&w->thread, &attributes, worker_main, w);
    pthread_attr_destroy(&attributes);
    if (error == 0) return status_ok();
    return status_error(
        STATUS_RESOURCE_EXHAUSTED,
        "cannot start compute thread %d of %d: %s; lower --threads or raise ulimit -u", index + 1,
        p->threads, strerror(error));
}

static void stop_workers(pool *p, int started) {
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake_all(&p->epoch);
    for (int i = 1; i < started; i++) pthread_join(p->workers[i].thread, NULL);
}

status pool_create(int threads, int first_core, pool **out) {
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%d threads per rank; allowed are 1 to %d",
                            threads, POOL_THREADS_MAX);
    pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the thread pool");
    memset(p, 0, sizeof *p);
    p->threads = threads;
    atomic_init(&p->ticket, CLOSED);
    // All cores are looked up before the caller pins itself, which narrows its own mask.
    int cores = threads;
    for (int i = 0; i < threads; i++) {
        int core = nth_core(first_core < 0 ? 0 : first_core, i, &cores);
        p->workers[i] = (worker){.owner = p, .index = i, .core = first_core < 0 ? -1 : core};
    }
    p->spin = threads > cores ? CROWDED_ROUNDS : SPIN_ROUNDS;
    for (int i = 1; i < threads; i++) {
        status s = start_worker(p, i);
        if (s.code == STATUS_OK) continue;
        stop_workers(p, i);
        free(p);
        return s;
    }
    pin(p->workers[0].core);
    *out = p;
    return status_ok();
}

void pool_destroy(pool *p) {
    if (!p) return;
    stop_workers(p, p->threads);
    free(p);
}

int pool_threads(const pool *p) {
    return p->threads;
}

// Opens a job for everybody.
static void post(pool *p, int tasks, pool_task *run, void *context) {
    uint64_t job = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&p->ticket, job << 32 | CLOSED, memory_order_release);
    atomic_store_explicit(&p->done, 0, memory_order_release);
    atomic_store_explicit(&p->run, run, memory_order_release);
    atomic_store_explicit(&p->context, context, memory_order_release);
    atomic_store_explicit(&p->tasks, tasks, memory_order_release);
    atomic_store_explicit(&p->ticket, job << 32, memory_order_release);
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers) > 0) futex_wake_all(&p->epoch);
}

void pool_run(pool *p, int tasks, pool_task *run, void *context) {
    assert(tasks >= 0);
    if (p->threads == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++) run(context, i, 0);
        return;
    }
    post(p, tasks, run, context);
    work(p, 0);
    // What is left is in the hands of others and bounded by one task each.
    for (int i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < tasks; i++) {
        if (i < p->spin)
            pause_cpu();
        else
            sched_yield();
    }
}
