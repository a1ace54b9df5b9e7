// pool: every task runs once, its writes are seen after the join, also when jobs follow each other
// at once, when threads have gone to sleep in between, and when there are more threads than cores.
// Run under TSan, it checks the orderings.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <string.h>

#include "common/base/clock.h"
#include "kernels/cpu/pool.h"

enum { TASKS_MAX = 300 };

typedef struct job {
    int runs[TASKS_MAX]; // plain: the join must order them
    int threads;
    _Atomic int total;
} job;

static void count_task(void *context, int task, int thread) {
    job *j = context;
    if (thread < 0 || thread >= j->threads) atomic_store(&j->total, -1000000);
    // A straggler now and then, so that a join that does not wait for it is seen.
    if (task % 100 == 99) clock_sleep_until(clock_now_ns() + 20000);
    j->runs[task]++;
    atomic_fetch_add(&j->total, 1);
}

static void run_jobs(int threads, int jobs, int64_t pause_ns) {
    pool *p = NULL;
    assert_int_equal(pool_create(threads, 0, &p).code, STATUS_OK);
    assert_int_equal(pool_threads(p), threads);
    for (int i = 0; i < jobs; i++) {
        job j = {.threads = threads};
        int tasks = i * 7 % TASKS_MAX;
        pool_run(p, tasks, count_task, &j);
        assert_int_equal(atomic_load(&j.total), tasks);
        for (int t = 0; t < TASKS_MAX; t++) assert_int_equal(j.runs[t], t < tasks);
        if (pause_ns > 0) clock_sleep_until(clock_now_ns() + pause_ns);
    }
    pool_destroy(p);
}

static void test_back_to_back(void **state) {
    (void)state;
    for (int threads = 1; threads <= 4; threads++) run_jobs(threads, 2000, 0);
}

static void test_after_sleep(void **state) {
    (void)state;
    run_jobs(3, 50, 2 * CLOCK_MS);
}

static void test_crowded(void **state) {
    (void)state;
    run_jobs(24, 300, 0);
}

static void test_unused(void **state) {
    (void)state;
    pool *p = NULL;
    assert_int_equal(pool_create(3, -1, &p).code, STATUS_OK);
    pool_destroy(p);
    pool_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_back_to_back),
        cmocka_unit_test(test_after_sleep),
        cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
