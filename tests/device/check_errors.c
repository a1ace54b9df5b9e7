// check_errors: errors that the emulated device plants: each becomes a status that names the call,
// none leaves memory or a half-made backend behind (ASan watches), and what cannot be returned at
// once is told by the next wait.
#include <cuda_runtime_api.h>
#include <string.h>

#include "common/base/clock.h"
#include "tests/device/check.h"

static const kernels_limits limits = {
    .tokens = 8, .cols = 64, .context = 32, .heads = 1, .head_dim = 16};

static status open_and_reserve(kernels **out) {
    *out = NULL;
    status s = kernels_create_cuda((kernels_cuda_options){.device = 0}, out);
    return status_is_ok(&s) ? kernels_reserve(*out, limits) : s;
}

// The n-th call of a function fails while the backend is made, for each n until none does.
static void making(check *c, const char *function, cudaError_t error, status_code code) {
    enum { CALLS_MAX = 40 };
    for (int n = 0; n < CALLS_MAX; n++) {
        kernels *k = NULL;
        check_case(c, "call %d of %s fails while a backend is made", n + 1, function);
        check_target_fail(function, n, (int)error);
        status s = open_and_reserve(&k);
        check_target_fail(function, 0, cudaSuccess); // whatever is left
        kernels_destroy(k);
        if (status_is_ok(&s)) {
            check_that(c, n > 0, "no call of %s was made", function);
            return;
        }
        check_that(c, s.code == code, "%s: %s", status_code_name(s.code), s.message);
    }
    check_that(c, false, "there is no end of calls");
}

static status wait_for(kernels *k) {
    return kernels_sync(k, clock_now_ns() + 10 * CLOCK_SECOND);
}

// A launch that is refused: the call returns nothing, the waits from then on say what it was.
static void launching(check *c) {
    kernels *k = NULL;
    void *sums = NULL, *x = NULL;
    check_case(c, "a launch fails");
    status s = open_and_reserve(&k);
    if (!check_that(c, status_is_ok(&s), "%s", s.message)) return;
    s = kernels_alloc(k, 64, &sums);
    check_that(c, status_is_ok(&s), "%s", s.message);
    s = kernels_alloc(k, 64, &x);
    check_that(c, status_is_ok(&s), "%s", s.message);
    check_target_fail("cudaLaunchKernelExC", 0, cudaErrorInvalidValue);
    kernels_add(k, x, sums, 1, 8);
    kernels_add(k, x, sums, 1, 8); // this one is good
    for (int i = 0; i < 2; i++) {
        s = wait_for(k);
        check_that(c, s.code == STATUS_INTERNAL && strncmp(s.message, "add: ", 5) == 0, "%s: %s",
                   status_code_name(s.code), s.message);
    }
    bool done = false;
    s = kernels_poll(k, &done);
    check_that(c, s.code == STATUS_INTERNAL, "poll: %s", status_code_name(s.code));
    kernels_free(k, sums);
    kernels_free(k, x);
    kernels_destroy(k);
}

typedef struct recorded {
    kernels *k;
    void *sums;
    float *x;
    int calls;
} recorded;

static status enqueue(void *context) {
    recorded *r = context;
    r->calls++;
    kernels_add(r->k, r->x, r->sums, 1, 8);
    return status_ok();
}

static void open_recording(check *c, recorded *r) {
    const double ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    void *memory = NULL;
    status s = open_and_reserve(&r->k);
    if (status_is_ok(&s)) s = kernels_alloc(r->k, sizeof ones, &r->sums);
    if (status_is_ok(&s)) s = kernels_upload(r->k, r->sums, ones, sizeof ones);
    if (status_is_ok(&s)) s = kernels_alloc(r->k, 64, &memory);
    r->x = memory;
    check_that(c, status_is_ok(&s), "%s", s.message);
}

static void close_recording(recorded *r) {
    kernels_free(r->k, r->sums);
    kernels_free(r->k, r->x);
    kernels_destroy(r->k);
}

static status take_step(const recorded *r) {
    static const int32_t id = 0;
    kernels_begin(
        r->k,
        &(kernels_step){.tokens = 1, .ids = &id, .blocks = 1, .block_tokens = 16, .in_run = true});
    return kernels_run(r->k, enqueue, (void *)r, 0);
}

// Steps of one shape: the first is run, the second recorded, later ones replayed. When recording
// fails, that step and all later ones are run as they are, once each.
static void recording(check *c, const char *function, int calls) {
    enum { STEPS = 5 };
    recorded r = {0};
    check_case(c, "%s fails while a step is recorded", function);
    open_recording(c, &r);
    for (int i = 0; i < STEPS; i++) {
        if (i == 1) check_target_fail(function, 0, cudaErrorNotSupported);
        status s = take_step(&r);
        check_that(c, status_is_ok(&s), "step %d: %s", i, s.message);
    }
    float x = 0;
    status s = kernels_download(r.k, &x, r.x, sizeof x);
    check_that(c, status_is_ok(&s), "%s", s.message);
    check_that(c, x == STEPS, "the steps were run %g times, not %d", (double)x, STEPS);
    check_that(c, r.calls == calls, "they were enqueued %d times, not %d", r.calls, calls);
    kernels_run_counts n = kernels_count_runs(r.k);
    check_that(c, n.failed == 1 && n.recorded == 0 && n.steps == 0, "no step was replayed");
    close_recording(&r);
}

// A step that was recorded but cannot be launched is lost, and so are those behind it.
static void replaying(check *c) {
    recorded r = {0};
    check_case(c, "a recorded step cannot be launched");
    open_recording(c, &r);
    for (int i = 0; i < 5; i++) {
        if (i == 2) check_target_fail("cudaGraphLaunch", 0, cudaErrorNotSupported);
        status s = take_step(&r);
        check_that(c, status_is_ok(&s) == (i < 2), "step %d: %s", i, s.message);
    }
    status s = wait_for(r.k);
    check_that(c, s.code == STATUS_INTERNAL && strstr(s.message, "cudaGraphLaunch"), "%s",
               s.message);
    close_recording(&r);
}

int check_errors(check *c) {
    if (!check_target_emulated()) return 0; // a real card has no errors to plant
    making(c, "cudaMalloc", cudaErrorMemoryAllocation, STATUS_RESOURCE_EXHAUSTED);
    making(c, "cudaHostAlloc", cudaErrorMemoryAllocation, STATUS_RESOURCE_EXHAUSTED);
    making(c, "cudaEventCreateWithFlags", cudaErrorUnknown, STATUS_INTERNAL);
    making(c, "cudaMemsetAsync", cudaErrorUnknown, STATUS_INTERNAL);
    making(c, "cudaGetDeviceCount", cudaErrorNoDevice, STATUS_UNAVAILABLE);
    making(c, "cudaGetDeviceProperties", cudaErrorUnknown, STATUS_INTERNAL);
    launching(c);
    recording(c, "cudaStreamBeginCapture", 5);
    recording(c, "cudaLaunchKernelExC", 6);
    recording(c, "cudaGraphInstantiate", 6);
    recording(c, "cudaGraphUpload", 6);
    replaying(c);
    return c->failed;
}
