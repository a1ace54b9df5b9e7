// The collectives, exactly: alone, and under mpirun with any number of ranks:
//
//   mpirun -n 3 --oversubscribe test_comm shm|mpi|auto
//
// Sums of small integers have one right answer; sums of random doubles have one right answer in
// rank order. Both are compared bit by bit. The last line of rank 0 is the latency of the allreduce
// that a decode step makes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "worker/comm.h"

enum { COUNT_MAX = 200003 };
static const size_t counts[] = {1, 7, 576, 4096, 4097, 8192, 24000, 65536, 65537, COUNT_MAX};
enum { COUNTS = sizeof counts / sizeof counts[0] };

static comm *group;

static int64_t soon(void) {
    return clock_now_ns() + 60 * CLOCK_SECOND;
}

static void ok(status s) {
    if (!status_is_ok(&s)) fail_msg("rank %d: %s", comm_rank(group), s.message);
}

static void sums_of_integers_are_exact(void **state) {
    (void)state;
    double *x = malloc(COUNT_MAX * sizeof *x);
    int n = comm_size(group), rank = comm_rank(group);
    for (int c = 0; c < COUNTS; c++) {
        for (size_t i = 0; i < counts[c]; i++) x[i] = (double)(rank * 1000 + (int)(i % 997));
        ok(comm_allreduce_sum(group, x, counts[c], soon()));
        for (size_t i = 0; i < counts[c]; i++)
            if (x[i] != (double)(1000 * n * (n - 1) / 2 + n * (int)(i % 997)))
                fail_msg("count %zu, element %zu: %g", counts[c], i, (double)x[i]);
    }
    free(x);
}

static double value_of(int rank, size_t i) {
    double u = rng_draw((uint64_t)rank, i) - 0.5;
    return (double)(u * (i % 3 == 0 ? 1e6 : i % 3 == 1 ? 1.0 : 1e-5));
}

static void sums_are_in_rank_order_bit_by_bit(void **state) {
    (void)state;
    double *x = malloc(COUNT_MAX * sizeof *x);
    for (int c = 0; c < COUNTS; c++) {
        for (size_t i = 0; i < counts[c]; i++) x[i] = value_of(comm_rank(group), i);
        ok(comm_allreduce_sum(group, x, counts[c], soon()));
        for (size_t i = 0; i < counts[c]; i++) {
            double sum = value_of(0, i);
            for (int rank = 1; rank < comm_size(group); rank++) sum += value_of(rank, i);
            if (memcmp(&sum, &x[i], sizeof sum) != 0)
                fail_msg("count %zu, element %zu: %a, not %a", counts[c], i, (double)x[i],
                         (double)sum);
        }
    }
    free(x);
}

static void broadcast_and_gather_move_every_byte(void **state) {
    (void)state;
    int n = comm_size(group), rank = comm_rank(group);
    uint8_t *mine = malloc(4 * COUNT_MAX), *all = malloc((size_t)n * 4 * COUNT_MAX);
    for (int c = 0; c < COUNTS; c++) {
        size_t size = counts[c] * 4 - 1;
        for (size_t i = 0; i < size; i++) mine[i] = rank == 0 ? (uint8_t)(i * 7 + (size_t)c) : 0xEE;
        ok(comm_broadcast(group, mine, size, soon()));
        for (size_t i = 0; i < size; i++) assert_int_equal(mine[i], (uint8_t)(i * 7 + (size_t)c));
        memset(mine, rank + 1, size);
        ok(comm_gather(group, mine, size, rank == 0 ? all : NULL, soon()));
        for (size_t i = 0; rank == 0 && i < (size_t)n * size; i++)
            if (all[i] != i / size + 1) fail_msg("gather of %zu: byte %zu is %d", size, i, all[i]);
    }
    free(mine);
    free(all);
}

// The order of operations is the same on all ranks, the pauses are not: a slot that is written too
// early shows.
static void a_random_sequence_with_uneven_ranks_keeps_its_data(void **state) {
    (void)state;
    rng order = rng_make(42), pauses = rng_make(1000 + (uint64_t)comm_rank(group));
    int n = comm_size(group);
    double x[3000], all[3000 * 16];
    for (int op = 0; op < 1500; op++) {
        uint64_t kind = rng_below(&order, 3), count = 1 + rng_below(&order, 3000);
        if (rng_below(&pauses, 40) == 0)
            clock_sleep_until(clock_now_ns() + (int64_t)rng_below(&pauses, 300000));
        double base = (double)(op * 16);
        for (uint64_t i = 0; i < count; i++) x[i] = base + (double)comm_rank(group);
        if (kind == 0) {
            ok(comm_allreduce_sum(group, x, count, soon()));
            for (uint64_t i = 0; i < count; i++)
                assert_true(x[i] == (double)n * base + (double)(n * (n - 1) / 2));
        } else if (kind == 1) {
            ok(comm_broadcast(group, x, count * sizeof *x, soon()));
            for (uint64_t i = 0; i < count; i++) assert_true(x[i] == base);
        } else {
            ok(comm_gather(group, x, count * sizeof *x, all, soon()));
            for (uint64_t i = 0; comm_rank(group) == 0 && i < (uint64_t)n * count; i++)
                assert_true(all[i] == base + (double)(i / count));
        }
    }
}

// The ranks in runs of 2 and, at the end, of what is left.
static comm *open_part(int *first) {
    int n = comm_size(group), rank = comm_rank(group), count = n < 2 ? n : 2;
    comm *part = NULL;
    *first = rank / 2 * 2;
    if (n - *first < count) count = n - *first;
    ok(comm_open_part(group, *first, count, soon(), &part));
    assert_int_equal(comm_size(part), count);
    assert_int_equal(comm_rank(part), rank - *first);
    assert_int_equal(comm_number(part, 0), *first);
    return part;
}

static void parts_and_the_whole_do_not_meet(void **state) {
    (void)state;
    int first, n = comm_size(group);
    comm *part = open_part(&first);
    static double x[70000];
    for (size_t count = 1; count < 70000; count = count * 3 + 1) {
        for (size_t i = 0; i < count; i++) x[i] = comm_rank(group) + 1;
        double expected = first + 1 + (comm_size(part) > 1 ? first + 2 : 0);
        ok(comm_allreduce_sum(part, x, count, soon()));
        for (size_t i = 0; i < count; i++) assert_true(x[i] == expected);
        if (comm_rank(group) % 3 == 0) clock_sleep_until(clock_now_ns() + CLOCK_MS);
        x[0] = comm_rank(group) + 1;
        ok(comm_allreduce_sum(group, x, 1, soon()));
        assert_true(x[0] == n * (n + 1) / 2);
    }
    status bad =
        comm_rank(group) == first ? status_error(STATUS_NOT_FOUND, "nothing") : status_ok();
    char name[32];
    snprintf(name, sizeof name, "rank %d on ", first); // as the whole group numbers it
    bad = comm_agree(part, bad, soon());
    assert_int_equal(bad.code, STATUS_NOT_FOUND);
    if (comm_size(part) > 1) assert_int_equal(strncmp(bad.message, name, strlen(name)), 0);
    comm_close(part);
}

// Each rank to the next, several messages ahead of it, and between collectives.
static void lines_keep_order_and_every_byte(void **state) {
    (void)state;
    int n = comm_size(group), rank = comm_rank(group);
    if (n == 1) return;
    ok(comm_open_lines(group, soon()));
    enum { MESSAGES = 24 };
    uint32_t *m = malloc((size_t)COUNT_MAX * sizeof *m);
    for (int k = 0; k < 2 * MESSAGES; k++) {
        size_t count = counts[k % COUNTS];
        if (k % MESSAGES == 0) ok(comm_barrier(group, soon()));
        if (rank > 0 && k % 5 == 0) clock_sleep_until(clock_now_ns() + CLOCK_MS);
        if (rank > 0) ok(comm_receive(group, COMM_ROWS, rank - 1, m, count * sizeof *m, soon()));
        for (size_t i = 0; i < count; i++) {
            uint32_t value = (uint32_t)(i * 31 + (size_t)k * 7 + (size_t)rank);
            if (rank > 0 && m[i] + 1 != value) fail_msg("message %d, word %zu", k, i);
            m[i] = value;
        }
        if (rank < n - 1) ok(comm_send(group, COMM_ROWS, rank + 1, m, count * sizeof *m, soon()));
    }
    ok(comm_barrier(group, soon()));
    free(m);
}

// Rank 0 is as far ahead as the lines bear, and hears of each message from everybody; nobody waits
// for anybody else.
static void words_and_reports_wait_for_nobody(void **state) {
    (void)state;
    int n = comm_size(group), rank = comm_rank(group);
    if (n == 1) return;
    ok(comm_open_lines(group, soon()));
    enum { ROUNDS = 5 };
    static uint8_t words[COMM_WORDS_BYTES];
    uint64_t report;
    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; rank == 0 && k < COMM_MESSAGES; k++) {
            size_t count = k % 2 ? 100 : sizeof words;
            memset(words, round * COMM_MESSAGES + k, count);
            for (int to = 1; to < n; to++)
                ok(comm_send(group, COMM_WORDS, to, words, count, soon()));
        }
        if (round == 0) ok(comm_barrier(group, soon())); // so nothing was read before all was sent
        for (int k = 0; k < COMM_MESSAGES; k++) {
            uint8_t value = (uint8_t)(round * COMM_MESSAGES + k);
            if (rank > 0) {
                size_t count = k % 2 ? 100 : sizeof words;
                ok(comm_receive(group, COMM_WORDS, 0, words, count, soon()));
                for (size_t i = 0; i < count; i++) assert_int_equal(words[i], value);
                report = (uint64_t)rank * 1000 + value;
                ok(comm_send(group, COMM_REPORTS, 0, &report, sizeof report, soon()));
            }
            for (int from = 1; rank == 0 && from < n; from++) {
                ok(comm_receive(group, COMM_REPORTS, from, &report, sizeof report, soon()));
                assert_int_equal(report, (uint64_t)from * 1000 + value);
            }
        }
    }
    for (int from = 1; rank == 0 && from < n; from++)
        assert_false(comm_has_come(group, COMM_REPORTS, from));
    ok(comm_barrier(group, soon()));
    if (rank > 0) ok(comm_send(group, COMM_REPORTS, 0, &report, sizeof report, soon()));
    for (int from = 1; rank == 0 && from < n; from++) {
        int64_t until = soon();
        while (!comm_has_come(group, COMM_REPORTS, from) && clock_now_ns() < until) sched_yield();
        assert_true(comm_has_come(group, COMM_REPORTS, from));
        ok(comm_receive(group, COMM_REPORTS, from, &report, sizeof report, soon()));
    }
    ok(comm_barrier(group, soon()));
}

static void a_barrier_waits_for_the_last(void **state) {
    (void)state;
    int64_t start = clock_now_ns();
    if (comm_rank(group) == comm_size(group) - 1) clock_sleep_until(start + 50 * CLOCK_MS);
    ok(comm_barrier(group, soon()));
    assert_true(clock_now_ns() - start > 25 * CLOCK_MS || comm_size(group) == 1);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void waiting_costs_next_to_nothing(void **state) {
    (void)state;
    char byte = 1;
    double before = processor_seconds();
    if (comm_rank(group) == 0) clock_sleep_until(clock_now_ns() + 500 * CLOCK_MS);
    ok(comm_broadcast(group, &byte, 1, soon()));
    double spent = processor_seconds() - before;
    if (spent > 0.15) fail_msg("rank %d burnt %.3f s of 0.5 s", comm_rank(group), spent);
}

static void latency_of_a_decode_allreduce(void **state) {
    (void)state;
    enum { WIDTH = 576, ROUNDS = 2000 };
    double x[WIDTH] = {0};
    ok(comm_barrier(group, soon()));
    comm_take_time(group);
    int64_t start = clock_now_ns();
    for (int i = 0; i < ROUNDS; i++) ok(comm_allreduce_sum(group, x, WIDTH, soon()));
    double us = (double)(clock_now_ns() - start) / ROUNDS / 1000;
    if (comm_rank(group) == 0)
        printf("allreduce ranks=%d transport=%s doubles=%d us=%.2f\n", comm_size(group),
               comm_name(group), WIDTH, us);
}

// Last: a group that has missed a deadline is broken. MPI cannot take its call back, so this one is
// for shm.
static void a_rank_that_does_not_come_is_named(void **state) {
    (void)state;
    if (strcmp(comm_name(group), "shm") != 0) return;
    int last = comm_size(group) - 1;
    double x = 1;
    if (comm_rank(group) == 0) { // who does not receive is named when its inbox is full
        static char message[4 << 20];
        int64_t until = clock_now_ns() + 100 * CLOCK_MS;
        status s = comm_send(group, COMM_ROWS, 1, message, sizeof message, until);
        assert_int_equal(s.code, STATUS_DEADLINE_EXCEEDED);
        assert_non_null(strstr(s.message, "rank 1 has not taken"));
        assert_int_equal(comm_missing(group), 1);
    }
    if (comm_rank(group) == last && last > 1) { // and who does not send
        status s =
            comm_receive(group, COMM_ROWS, last - 1, &x, sizeof x, clock_now_ns() + 100 * CLOCK_MS);
        assert_int_equal(s.code, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(comm_missing(group), last - 1);
    }
    if (comm_rank(group) == last) return;
    status s = comm_allreduce_sum(group, &x, 1, clock_now_ns() + 100 * CLOCK_MS);
    assert_int_equal(s.code, STATUS_DEADLINE_EXCEEDED);
    if (comm_size(group) == 2) assert_non_null(strstr(s.message, "rank 1"));
}

int main(int argc, char **argv) {
    comm_transport transport = argc > 1 && !strcmp(argv[1], "shm")   ? COMM_SHM
                               : argc > 1 && !strcmp(argv[1], "mpi") ? COMM_MPI
                                                                     : COMM_AUTO;
    status s = comm_open(&argc, &argv, transport, &group);
    if (!status_is_ok(&s)) {
        fprintf(stderr, "%s\n", s.message);
        return 1;
    }
    comm_set_spin(group, comm_size(group) <= 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_integers_are_exact),
        cmocka_unit_test(sums_are_in_rank_order_bit_by_bit),
        cmocka_unit_test(broadcast_and_gather_move_every_byte),
        cmocka_unit_test(a_random_sequence_with_uneven_ranks_keeps_its_data),
        cmocka_unit_test(parts_and_the_whole_do_not_meet),
        cmocka_unit_test(lines_keep_order_and_every_byte),
        cmocka_unit_test(words_and_reports_wait_for_nobody),
        cmocka_unit_test(a_barrier_waits_for_the_last),
        cmocka_unit_test(waiting_costs_next_to_nothing),
        cmocka_unit_test(latency_of_a_decode_allreduce),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    // A failed assertion leaves the other ranks waiting for this one: end them.
    if (failed) comm_abort(group, 1);
    comm_close(group);
    return 0;
}
