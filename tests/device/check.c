// check: the helpers that the groups share.
#include "tests/device/check.h"
#include "common/base/clock.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/dtype.h"

static void must(status s, const char *what) {
    if (status_is_ok(&s)) return;
    fprintf(stderr, "device_check: %s: %s\n", what, s.message);
    exit(1);
}

void check_open(check *c, kernels_limits limits, kernels_cuda_options options) {
    check_close(c);
    must(kernels_create_cuda(options, &c->device), "the device");
    must(kernels_create_cpu(1, -1, "reference", &c->reference), "the reference");
    must(kernels_reserve(c->device, limits), "the device's scratch");
    must(kernels_reserve(c->reference, limits), "the reference's scratch");
}

void check_close(check *c) {
    check_release(c);
    kernels_destroy(c->device);
    kernels_destroy(c->reference);
    c->device = c->reference = NULL;
}

void check_release(check *c) {
    while (c->taken_count > 0) {
        check_taken *t = &c->taken[--c->taken_count];
        if (t->k)
            kernels_free(t->k, t->memory);
        else
            free(t->memory);
    }
}

void check_case(check *c, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(c->name, sizeof c->name, format, list);
    va_end(list);
}

static void *take(check *c, kernels *k, void *memory) {
    assert(c->taken_count < CHECK_TAKEN_MAX);
    c->taken[c->taken_count++] = (check_taken){.k = k, .memory = memory};
    return memory;
}

void *check_host(check *c, size_t bytes) {
    void *memory = malloc(bytes > 0 ? bytes : 1);
    assert(memory);
    memset(memory, 0xff, bytes);
    return take(c, NULL, memory);
}

float *check_random(check *c, size_t count, float scale) {
    float *x = check_host(c, count * sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = scale * (float)(2 * rng_uniform(&c->random) - 1);
    return x;
}

void *check_put(check *c, kernels *k, const void *host, size_t bytes) {
    void *memory = NULL;
    must(kernels_alloc(k, bytes, &memory), "device memory");
    must(kernels_upload(k, memory, host, bytes), "an upload");
    return take(c, k, memory);
}

void *check_poisoned(check *c, kernels *k, size_t bytes) {
    return check_put(c, k, check_host(c, bytes), bytes);
}

void *check_get(check *c, kernels *k, const void *memory, size_t bytes) {
    void *host = check_host(c, bytes);
    status s = kernels_sync(k, clock_now_ns() + 60 * CLOCK_SECOND);
    check_that(c, status_is_ok(&s), "%s", s.message);
    must(kernels_download(k, host, memory, bytes), "a download");
    return host;
}

bool check_that(check *c, bool holds, const char *format, ...) {
    if (holds) {
        c->passed++;
        return true;
    }
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    c->failed++;
    printf("FAILED %s: %s\n", c->name, text);
    return false;
}

bool check_near(check *c, const char *what, const float *got, const float *want, size_t count,
                double absolute, double relative) {
    size_t worst = 0, bad = 0;
    double most = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(want[i]) ? isnan(got[i]) : got[i] == want[i]) continue;
        double over = fabs((double)got[i] - want[i]) / (absolute + relative * fabs(want[i]));
        if (over <= 1) continue; // false for NaN
        bad++;
        if (bad == 1 || over > most || isnan(over)) {
            worst = i;
            most = isnan(over) ? INFINITY : over;
        }
    }
    return check_that(c, bad == 0, "%s: %zu of %zu are off; worst [%zu] is %.9g, should be %.9g",
                      what, bad, count, worst, bad ? (double)got[worst] : 0,
                      bad ? (double)want[worst] : 0);
}

bool check_same(check *c, const char *what, const void *got, const void *want, size_t bytes) {
    const uint8_t *a = got, *b = want;
    size_t at = 0;
    while (at < bytes && a[at] == b[at]) at++;
    return check_that(c, at == bytes, "%s: byte %zu of %zu differs", what, at, bytes);
}

float check_bf16(float x) {
    return dtype_bf16_to_f32(dtype_f32_to_bf16(x));
}

double check_activate(kernels_activation activation, double x) {
    const double pi = 3.14159265358979323846;
    if (activation == KERNELS_SILU) return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
}
