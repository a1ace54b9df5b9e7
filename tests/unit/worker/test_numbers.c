// Whose numbers are wrong: every pattern that a fault leaves in the ranks' reports.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "worker/numbers.h"
#include "worker/reduce.h"

enum { RANKS = 5 };

static void sound(numbers_report all[RANKS]) {
    for (int i = 0; i < RANKS; i++)
        all[i] = (numbers_report){.words = 7, .row = 8, .first_bad = REDUCE_ALL_FINITE};
}

static shard shards[RANKS]; // of one stage, but for one test

static void expect(const numbers_report *all, int ranks, status_code what, cluster_failure code,
                   int rank) {
    cluster_failure got_code;
    int got_rank;
    assert_int_equal(numbers_judge(all, shards, ranks, &got_code, &got_rank).code, what);
    if (what == STATUS_OK) return;
    assert_int_equal(got_code, code);
    assert_int_equal(got_rank, rank);
}

static void equal_ranks_are_sound(void **state) {
    (void)state;
    numbers_report all[RANKS];
    sound(all);
    for (int ranks = 1; ranks <= RANKS; ranks++) expect(all, ranks, STATUS_OK, 0, 0);
}

// Ranks 0 and 1 have the last layers, rank 4 alone the first.
static void stages_are_judged_in_their_order(void **state) {
    (void)state;
    numbers_report all[RANKS];
    for (int i = 0; i < RANKS; i++)
        shards[i].layers = i < 2    ? (shard_range){4, 6}
                           : i == 4 ? (shard_range){0, 2}
                                    : (shard_range){2, 4};
    sound(all);
    for (int i = 0; i < RANKS; i++) all[i].row = (uint64_t)(i < 2 ? 1 : i == 4 ? 2 : 3);
    expect(all, RANKS, STATUS_OK, 0, 0);
    for (int i = 0; i < 4; i++) all[i].first_bad = 0, all[i].row_bad = true; // they were told
    all[4].first_bad = 9, all[4].row_bad = true;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, 4);
    sound(all);
    all[3].row++;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, 3);
    sound(all);
    all[4].words++;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, 4);
    sound(all);
    all[2].words = all[3].words = 1;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, -1);
    memset(shards, 0, sizeof shards);
}

static void the_odd_rank_is_named(void **state) {
    (void)state;
    numbers_report all[RANKS];
    for (int odd = 0; odd < RANKS; odd++) {
        sound(all);
        all[odd].row++;
        expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, odd);
        sound(all);
        all[odd].words++;
        expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, odd);
    }
    sound(all);
    all[1].row++; // of two, the one that does not lead
    expect(all, 2, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, 1);
    for (int i = 0; i < RANKS; i++) all[i].row = (uint64_t)i; // no two agree: some rank is named
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_CHECKSUM, RANKS - 1);
}

static void the_rank_where_it_began_is_named(void **state) {
    (void)state;
    numbers_report all[RANKS];
    sound(all);
    for (int i = 0; i < RANKS; i++) { // all hold NaN in the end
        all[i].row_bad = 1;
        all[i].first_bad = 12;
    }
    all[3].first_bad = 11; // one had it a sum before
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, 3);
    all[3].first_bad = 12; // all at once: what all were given, or all did
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, -1);
    expect(all, 1, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, 0);
}

static void a_row_that_went_bad_on_one_rank_only_names_it(void **state) {
    (void)state;
    numbers_report all[RANKS];
    sound(all);
    all[2].row_bad = 1;
    all[2].row = 1;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, 2);
    all[4].row_bad = 1;
    expect(all, RANKS, STATUS_DATA_LOSS, CLUSTER_FAILED_NUMBERS, -1);
}

static void one_bit_changes_the_hash(void **state) {
    (void)state;
    unsigned char bytes[100] = {0};
    uint64_t zero = numbers_hash(bytes, sizeof bytes);
    assert_int_not_equal(numbers_hash(bytes, sizeof bytes - 1), zero);
    for (size_t i = 0; i < 8 * sizeof bytes; i++) {
        bytes[i / 8] = (unsigned char)(1 << i % 8);
        assert_int_not_equal(numbers_hash(bytes, sizeof bytes), zero);
        bytes[i / 8] = 0;
    }
}

static void finite_is_told_from_the_rest(void **state) {
    (void)state;
    float x[67];
    double y[67];
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 67; i++) {
        x[i] = i % 2 ? -3.4e38f : 1e-44f;
        y[i] = i % 2 ? -1.7e308 : 5e-324;
    }
    assert_true(numbers_all_finite(x, 67));
    assert_true(numbers_all_finite_doubles(y, 67));
    for (int i = 0; i < 67; i++)
        for (int k = 0; k < 3; k++) {
            float was = x[i];
            double was_double = y[i];
            x[i] = (float)bad[k];
            y[i] = bad[k];
            assert_false(numbers_all_finite(x, 67));
            assert_false(numbers_all_finite_doubles(y, 67));
            x[i] = was;
            y[i] = was_double;
        }
    assert_true(numbers_all_finite(x, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ranks_are_sound),
        cmocka_unit_test(stages_are_judged_in_their_order),
        cmocka_unit_test(the_odd_rank_is_named),
        cmocka_unit_test(the_rank_where_it_began_is_named),
        cmocka_unit_test(a_row_that_went_bad_on_one_rank_only_names_it),
        cmocka_unit_test(one_bit_changes_the_hash),
        cmocka_unit_test(finite_is_told_from_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
