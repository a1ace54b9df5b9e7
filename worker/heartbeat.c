#include "worker/heartbeat.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/urgent.h"
#include "proto/rpc_client.h"

enum {
    ANSWER_MS = 1000, // a heartbeat without an answer for so long counts as lost
    MESSAGE_MAX = 4096,
    EXIT_NOT_WANTED = 3,
    EXIT_DEVICE = 5,
};

struct heartbeat_sender {
    heartbeat_options o;
    rpc_channel *channel;
    int statm, thermal; // files of /proc and /sys; -1: not there
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ending;
    char error[CLUSTER_REASON_MAX];
    cluster_failure code;
    int64_t answered_ns;           // last answer
    int64_t stop_by_ns;            // 0: not told to stop
    bool silent;                   // the coordinator does not answer
    char fault[KERNELS_FAULT_MAX]; // of the card; the sending thread's
};

// The number in a file that was opened once: no stdio, whose buffers are mapped anew each time and
// so wait for a page fault of the main thread's. False where there is none.
static bool read_number(int file, int skip, long long *out) {
    char text[128];
    ssize_t size = file >= 0 ? pread(file, text, sizeof text - 1, 0) : -1;
    if (size <= 0) return false;
    text[size] = 0;
    char *at = text, *end = text;
    for (int i = 0; i <= skip; i++, at = end) {
        *out = strtoll(at, &end, 10);
        if (end == at) return false;
    }
    return true;
}

// Resident memory [bytes]; 0 where the system does not say.
static int64_t resident_bytes(const heartbeat_sender *h) {
    long long resident = 0;
    return read_number(h->statm, 1, &resident) ? (int64_t)resident * sysconf(_SC_PAGESIZE) : 0;
}

// Of the processor, by the kernel's first thermal zone [degrees C]; 0 where there is none.
static float temperature(const heartbeat_sender *h) {
    long long millidegrees = 0;
    if (!read_number(h->thermal, 0, &millidegrees)) return 0;
    return millidegrees > 0 && millidegrees < 1000000 ? (float)millidegrees / 1000 : 0;
}

static status send(heartbeat_sender *h, buf *request, buf *answer, bool *stop) {
    heartbeat m = h->o.first;
    m.phase = progress_phase(h->o.progress);
    m.step = atomic_load_explicit(&h->o.progress->step, memory_order_relaxed);
    m.collective = atomic_load_explicit(&h->o.progress->collective, memory_order_relaxed);
    m.phase_ns =
        clock_now_ns() - atomic_load_explicit(&h->o.progress->moved_ns, memory_order_relaxed);
    if (m.phase_ns < 0) m.phase_ns = 0; // it has moved since the clock was read
    m.temperature = temperature(h);
    bool broken = h->o.watch && device_watch_look(h->o.watch, &m.device, h->fault);
    if (m.device.known && m.device.temperature >= 0) m.temperature = m.device.temperature;
    m.load_fraction = atomic_load_explicit(&h->o.progress->load, memory_order_relaxed);
    m.memory_bytes = resident_bytes(h);
    pthread_mutex_lock(&h->lock);
    snprintf(m.error, sizeof m.error, "%s", h->error);
    m.code = h->code;
    if (broken && !m.error[0]) {
        snprintf(m.error, sizeof m.error, "%s", h->fault);
        m.code = CLUSTER_FAILED_DEVICE;
    }
    pthread_mutex_unlock(&h->lock);
    buf_clear(request);
    TRY(heartbeat_encode(&m, request));
    rpc_header authorization = {"authorization", h->o.key.header};
    rpc_call_options call = {.deadline_ns = clock_now_ns() + ANSWER_MS * CLOCK_MS,
                             .headers = &authorization,
                             .header_count = h->o.key.header[0] != 0};
    TRY(rpc_unary(h->channel, "/octant.cluster.v1.Cluster/Heartbeat", request->data, request->size,
                  &call, answer));
    return heartbeat_response_decode(answer->data, answer->size, stop);
}

// Ends the process when its time is over. Only this thread can: the main thread may stand in a
// collective.
static void judge(heartbeat_sender *h, const status *sent, bool stop) {
    int64_t now = clock_now_ns();
    if (h->fault[0]) {
        log_error("heartbeat", "%s: ending", h->fault);
        _exit(EXIT_DEVICE);
    }
    if (h->o.launcher != 0 && getppid() != h->o.launcher) {
        log_error("heartbeat", "what started this rank (process %d) is gone: ending",
                  h->o.launcher);
        _exit(EXIT_NOT_WANTED);
    }
    if (status_is_ok(sent)) h->answered_ns = now;
    pthread_mutex_lock(&h->lock);
    if (stop && h->stop_by_ns == 0) h->stop_by_ns = now + h->o.stop_timeout_ns;
    h->silent = now - h->answered_ns >= h->o.lost_timeout_ns;
    bool late = h->stop_by_ns != 0 && now >= h->stop_by_ns;
    pthread_mutex_unlock(&h->lock);
    if (!late) return;
    log_error("heartbeat",
              "the coordinator has given this group up, and its ranks do not come together within "
              "%.1f s: ending",
              (double)h->o.stop_timeout_ns / (double)CLOCK_SECOND);
    _exit(EXIT_NOT_WANTED);
}

bool heartbeat_is_stopped(heartbeat_sender *h, status *why) {
    pthread_mutex_lock(&h->lock);
    bool told = h->stop_by_ns != 0, silent = h->silent;
    pthread_mutex_unlock(&h->lock);
    if (told || silent)
        *why = status_error(STATUS_UNAVAILABLE, told ? "the coordinator has given it up"
                                                     : "the coordinator does not answer");
    return told || silent;
}

// Sleeps until the next beat; false when the sender is to end.
static bool wait_for_beat(heartbeat_sender *h, int64_t next_ns) {
    struct timespec at = {.tv_sec = next_ns / CLOCK_SECOND, .tv_nsec = next_ns % CLOCK_SECOND};
    pthread_mutex_lock(&h->lock);
    while (!h->ending && clock_now_ns() < next_ns) pthread_cond_timedwait(&h->wake, &h->lock, &at);
    bool go_on = !h->ending;
    pthread_mutex_unlock(&h->lock);
    return go_on;
}

static void *beat(void *argument) {
    heartbeat_sender *h = argument;
    if (!urgent_this_thread())
        log_debug("heartbeat", "not allowed to go before other threads (LimitNICE)");
    buf request = buf_make(MESSAGE_MAX), answer = buf_make(MESSAGE_MAX);
    int64_t next = clock_now_ns();
    do {
        bool stop = false;
        status s = send(h, &request, &answer, &stop);
        judge(h, &s, stop);
        next += h->o.interval_ms * CLOCK_MS;
        if (next < clock_now_ns())
            next = clock_now_ns(); // an answer took long: no burst afterwards
    } while (wait_for_beat(h, next));
    buf_free(&request);
    buf_free(&answer);
    return NULL;
}

static void close_files(const heartbeat_sender *h) {
    if (h->statm >= 0) close(h->statm);
    if (h->thermal >= 0) close(h->thermal);
}

status heartbeat_start(const heartbeat_options *options, heartbeat_sender **out) {
    heartbeat_sender *h = calloc(1, sizeof *h);
    if (!h) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the heartbeat");
    h->o = *options;
    h->answered_ns = clock_now_ns();
    h->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    h->thermal = open("/sys/class/thermal/thermal_zone0/temp", O_RDONLY | O_CLOEXEC);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    status s = rpc_channel_create(&(rpc_channel_options){.address = options->address}, &h->channel);
    if (!status_is_ok(&s)) goto fail_channel;
    if (pthread_create(&h->thread, NULL, beat, h) != 0) {
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no thread for the heartbeat");
        goto fail_thread;
    }
    *out = h;
    return s;
fail_thread:
    rpc_channel_destroy(h->channel);
fail_channel:
    close_files(h);
    free(h);
    return s;
}

static void join(heartbeat_sender *h) {
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
}

void heartbeat_tell_error(heartbeat_sender *h, cluster_failure code, const char *error) {
    pthread_mutex_lock(&h->lock);
    bool running = !h->ending;
    snprintf(h->error, sizeof h->error, "%s", error);
    h->code = code;
    pthread_mutex_unlock(&h->lock);
    if (running) join(h);
    buf request = buf_make(MESSAGE_MAX), answer = buf_make(MESSAGE_MAX);
    bool stop;
    status s = send(h, &request, &answer, &stop);
    if (!status_is_ok(&s)) log_warn("heartbeat", "the coordinator was not told: %s", s.message);
    buf_free(&request);
    buf_free(&answer);
}

void heartbeat_stop(heartbeat_sender *h) {
    if (!h) return;
    if (!h->ending) join(h);
    rpc_channel_destroy(h->channel);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    close_files(h);
    free(h);
}
