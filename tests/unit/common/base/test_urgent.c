// urgent: the calling thread goes before others where that is allowed; no other thread changes.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "common/base/urgent.h"

typedef struct outcome {
    bool urgent;
    int before, after; // nice
} outcome;

static void *try(void *argument) {
    outcome *o = argument;
    o->before = getpriority(PRIO_PROCESS, 0);
    o->urgent = urgent_this_thread();
    o->after = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

static void test_one_thread(void **state) {
    (void)state;
    int mine = getpriority(PRIO_PROCESS, 0);
    outcome o = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, try, &o), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(o.after, o.urgent ? -10 : o.before);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), mine);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_thread)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
