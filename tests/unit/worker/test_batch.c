// The batch: what a plan becomes on every rank, and every way in which a plan is refused before any
// rank has seen it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/batch.h"

static const cluster_limits limits = {.max_step_tokens = 16,
                                      .max_seqs = 4,
                                      .block_tokens = 4,
                                      .max_context = 32,
                                      .vocab = 100,
                                      .kv_blocks = 50};

static batch *make(void) {
    batch *b = NULL;
    status s = batch_create(&limits, 1, &b);
    assert_true(status_is_ok(&s));
    return b;
}

static status write_rows(batch *b, const open_seq *open, const seq_rows *rows, int rows_count,
                         const int32_t *close) {
    static uint64_t step;
    const batch_sampling sampling[4] = {BATCH_ARGMAX, BATCH_FULL, BATCH_NO_SAMPLE, BATCH_ARGMAX};
    step_plan plan = {.step = UINT64_C(0x100000000) + ++step,
                      .open = (open_seq *)open,
                      .open_count = open != NULL,
                      .rows = (seq_rows *)rows,
                      .rows_count = rows_count,
                      .close = close,
                      .close_count = close != NULL};
    return batch_write(b, &plan, sampling);
}

static void run(batch *b, const open_seq *open, const seq_rows *rows, int rows_count,
                const int32_t *close) {
    status s = write_rows(b, open, rows, rows_count, close);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    assert_int_equal(batch_apply(b), BATCH_STEP);
}

static const int32_t tokens[] = {7, 8, 9, 10, 11}, blocks[] = {30, 31, 32};
static const open_seq open2 = {.slot = 2};

static void a_sequence_lives_from_open_to_close(void **state) {
    (void)state;
    batch *b = make();
    int count;
    seq_rows rows = {.slot = 2,
                     .tokens = tokens,
                     .token_count = 5,
                     .new_blocks = blocks,
                     .new_block_count = 2,
                     .sample = true};
    run(b, &open2, &rows, 1, NULL);
    assert_true(batch_step(b) > UINT64_C(0x100000000));
    assert_memory_equal(batch_tokens(b, &count), tokens, sizeof tokens);
    assert_int_equal(count, 5);
    const kernels_seq *seq = batch_seqs(b, &count);
    assert_int_equal(count, 1);
    assert_int_equal(seq->tokens, 5);
    assert_int_equal(seq->blocks[1], 31);
    assert_false(batch_entries(b, &count)->continues);

    // A row without a token takes the one last sampled; the block table grows.
    batch_set_last_token(b, 2, 55);
    seq_rows next = {.slot = 2, .position = 5, .sample = true};
    run(b, NULL, &next, 1, NULL);
    assert_int_equal(batch_tokens(b, &count)[0], 55);
    assert_int_equal(batch_seqs(b, &count)->position, 5);
    assert_true(batch_entries(b, &count)->continues);

    const int32_t slot = 2;
    run(b, NULL, NULL, 0, &slot);
    next.position = 6;
    status s = write_rows(b, NULL, &next, 1, NULL);
    assert_non_null(strstr(s.message, "not open"));
    run(b, &open2, &rows, 1, NULL); // the slot can be taken again, with an empty table
    assert_int_equal(batch_seqs(b, &count)->blocks[0], 30);
    batch_destroy(b);
}

// The next step is written before the last one's token is known to anybody but the devices; a slot
// that was opened anew has none.
static void a_row_takes_the_token_that_the_devices_have(void **state) {
    (void)state;
    batch *b = make();
    int count;
    seq_rows rows = {
        .slot = 2, .tokens = tokens, .token_count = 1, .new_blocks = blocks, .new_block_count = 1};
    seq_rows next = {.slot = 2, .position = 1, .sample = true};
    run(b, &open2, &rows, 1, NULL);
    status s = write_rows(b, NULL, &next, 1, NULL);
    assert_non_null(strstr(s.message, "no token was sampled"));
    batch_set_last_token(b, 2, BATCH_FED);
    const int32_t slot = 2;
    run(b, NULL, &next, 1, &slot);
    assert_int_equal(batch_tokens(b, &count)[0], kernels_fed(2));
    run(b, &open2, &rows, 1, NULL);
    s = write_rows(b, NULL, &next, 1, NULL);
    assert_non_null(strstr(s.message, "no token was sampled"));
    batch_destroy(b);
}

static void words_survive_the_way_to_another_rank(void **state) {
    (void)state;
    batch *leader = make(), *other = make();
    seq_rows rows = {.slot = 2,
                     .position = 8,
                     .tokens = tokens,
                     .token_count = 3,
                     .new_blocks = blocks,
                     .new_block_count = 3};
    status s = write_rows(leader, &open2, &rows, 1, NULL); // starts behind two shared blocks
    assert_true(status_is_ok(&s));
    memcpy(batch_words(other), batch_words(leader), batch_word_count(leader) * sizeof(int32_t));
    int count, other_count;
    batch_apply(leader);
    assert_int_equal(batch_apply(other), BATCH_STEP);
    assert_memory_equal(batch_entries(leader, &count), batch_entries(other, &other_count),
                        sizeof(batch_rows));
    assert_int_equal(count, other_count);
    assert_int_equal(batch_seqs(other, &count)->blocks[2], 32);
    batch_write_mark(leader, BATCH_IDLE);
    assert_int_equal(batch_apply(leader), BATCH_IDLE);
    batch_write_mark(leader, BATCH_END);
    assert_int_equal(batch_apply(leader), BATCH_END);
    batch_destroy(leader);
    batch_destroy(other);
}

// Three plans are checked, each against those before it, before the first is applied; what is read
// is what each of them was.
static void plans_are_written_ahead(void **state) {
    (void)state;
    static const int32_t close = 2;
    batch *b = NULL;
    status s = batch_create(&limits, 3, &b);
    assert_true(status_is_ok(&s));
    seq_rows first = {
        .slot = 2, .tokens = tokens, .token_count = 3, .new_blocks = blocks, .new_block_count = 1};
    seq_rows second = {
        .slot = 2, .position = 3, .tokens = tokens, .token_count = 1, .new_block_count = 0};
    seq_rows third = {.slot = 2,
                      .tokens = tokens + 4,
                      .token_count = 1,
                      .new_blocks = blocks + 2,
                      .new_block_count = 1}; // of another sequence
    s = write_rows(b, &open2, &first, 1, NULL);
    assert_true(status_is_ok(&s));
    s = write_rows(b, NULL, &first, 1, NULL);
    assert_non_null(strstr(s.message, "do not follow"));
    s = write_rows(b, NULL, &second, 1, &close);
    assert_true(status_is_ok(&s));
    s = write_rows(b, NULL, &second, 1, NULL);
    assert_non_null(strstr(s.message, "not open"));
    s = write_rows(b, &open2, &third, 1, NULL);
    assert_true(status_is_ok(&s));
    int count;
    size_t words;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(batch_apply(b), BATCH_STEP);
        const batch_rows *e = batch_entries(b, &count);
        assert_int_equal(e->position, i == 1 ? 3 : 0);
        assert_int_equal(e->continues, i == 1);
        assert_int_equal(batch_seqs(b, &count)->blocks[0], i < 2 ? 30 : 32);
        assert_int_equal(batch_tokens(b, &count)[0], i < 2 ? 7 : 11);
        assert_int_equal(count, i == 0 ? 3 : 1);
        batch_applied_words(b, &words);
        // head 8, open 1, entry 7, tokens, blocks, close
        assert_int_equal(words, i == 0 ? 8 + 1 + 7 + 3 + 1 : i == 1 ? 8 + 7 + 1 + 1 : 18);
    }
    batch_destroy(b);
}

static void prompt_rows_end_with_the_prompt(void **state) {
    (void)state;
    batch *b = make();
    open_seq open = {.slot = 1, .prompt_logprobs = true, .prompt_tokens = 4};
    seq_rows rows = {
        .slot = 1, .tokens = tokens, .token_count = 3, .new_blocks = blocks, .new_block_count = 2};
    int count;
    run(b, &open, &rows, 1, NULL);
    assert_int_equal(batch_entries(b, &count)->prompt_rows, 3);
    assert_true(batch_entries(b, &count)->keep_last);
    rows = (seq_rows){.slot = 1, .position = 3, .tokens = tokens, .token_count = 2};
    run(b, NULL, &rows, 1, NULL);
    assert_int_equal(batch_entries(b, &count)->prompt_rows, 1); // position 4 is the answer's
    assert_false(batch_entries(b, &count)->keep_last);
    batch_destroy(b);
}

typedef struct wrong {
    const char *what;
    seq_rows rows;
} wrong;

static void wrong_plans_are_refused_and_change_nothing(void **state) {
    (void)state;
    static const int32_t bad_token[] = {100}, minus[] = {-1}, bad_block[] = {50}, many[17] = {0};
    const wrong cases[] = {
        {"no such slot", {.slot = 4, .tokens = tokens, .token_count = 1}},
        {"no such slot", {.slot = -1, .tokens = tokens, .token_count = 1}},
        {"not open", {.slot = 0, .tokens = tokens, .token_count = 1}},
        {"no such token", {.slot = 2, .position = 1, .tokens = bad_token, .token_count = 1}},
        {"no such token", {.slot = 2, .position = 1, .tokens = minus, .token_count = 1}},
        {"no such block",
         {.slot = 2,
          .position = 1,
          .tokens = tokens,
          .token_count = 1,
          .new_blocks = bad_block,
          .new_block_count = 1}},
        {"block table", {.slot = 2, .position = 1, .tokens = tokens, .token_count = 4}},
        {"do not follow", {.slot = 2, .position = 2, .tokens = tokens, .token_count = 1}},
        {"longest sequence", {.slot = 2, .position = -1, .tokens = tokens, .token_count = 1}},
        {"longest sequence", {.slot = 2, .position = 32, .tokens = tokens, .token_count = 1}},
        {"could take", {.slot = 2, .position = 1}},
        {"block table", {.slot = 2, .position = 1, .tokens = many, .token_count = 17}},
    };
    batch *b = make();
    seq_rows first = {
        .slot = 2, .tokens = tokens, .token_count = 1, .new_blocks = blocks, .new_block_count = 1};
    run(b, &open2, &first, 1, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        status s = write_rows(b, NULL, &cases[i].rows, 1, NULL);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        if (!strstr(s.message, cases[i].what)) fail_msg("case %zu: %s", i, s.message);
    }
    seq_rows good = {.slot = 2, .position = 1, .tokens = tokens, .token_count = 1};
    seq_rows twice[] = {good, good};
    status s = write_rows(b, NULL, twice, 2, NULL);
    assert_non_null(strstr(s.message, "two entries"));
    s = write_rows(b, &open2, &good, 1, NULL);
    assert_non_null(strstr(s.message, "opened twice"));
    static const int32_t no_slot = 9;
    s = write_rows(b, NULL, NULL, 0, &no_slot);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    run(b, NULL, &good, 1, NULL); // after all that, the right plan still fits
    batch_destroy(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_lives_from_open_to_close),
        cmocka_unit_test(a_row_takes_the_token_that_the_devices_have),
        cmocka_unit_test(words_survive_the_way_to_another_rank),
        cmocka_unit_test(plans_are_written_ahead),
        cmocka_unit_test(prompt_rows_end_with_the_prompt),
        cmocka_unit_test(wrong_plans_are_refused_and_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
