// prices: what a file of dated rows says a call costs, and which files are refused. The file that
// ships (deploy/prices.json) is checked by ctest "prices" (octant cost --check).
#include "common/ledger/prices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static status open_text(const char *text, prices **out) {
    char path[] = "/tmp/octant-prices-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    status s = prices_open(path, out);
    unlink(path);
    return s;
}

#define ROW(model, dates, tiers)                                                                   \
    "{\"model\":\"" model "\"," dates ",\"tiers\":[" tiers                                         \
    "],\"source\":\"a page\",\"seen\":\"2026-11-24\"}"
#define FILE_OF(rows) "{\"rows\":[" rows "]}"
#define FROM "\"from\":\"2026-11-24\""
#define TIER "{\"input\":1,\"output\":2}"

static int64_t at(const char *day) {
    int64_t days;
    assert_true(prices_parse_day(day, &days));
    return days * 86400;
}

static void test_days(void **state) {
    (void)state;
    int64_t day;
    char text[16];
    assert_true(prices_parse_day("1970-01-01", &day));
    assert_int_equal(day, 0);
    assert_true(prices_parse_day("2026-11-24", &day)); // date -u -d 2026-11-24 +%s / 86400
    assert_int_equal(day, 20781);
    assert_true(prices_parse_day("2028-02-29", &day));
    for (day = 0; day < 40000; day += 7) {
        int64_t back;
        prices_day_text(day, text);
        assert_true(prices_parse_day(text, &back));
        assert_int_equal(back, day);
    }
    static const char *const bad[] = {"",           "2026-2-3",   "2026-02-30", "2027-02-29",
                                      "2026-13-01", "2026-00-10", "20261124",   "2026-11-24 ",
                                      "1969-12-31", "2026/11/24", "2026-11-00"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(prices_parse_day(bad[i], &day));
}

static void test_cost_of_classes_and_tiers(void **state) {
    (void)state;
    prices *p;
    status s = open_text(
        FILE_OF(
            ROW("m", FROM,
                "{\"up_to\":1000,\"input\":2,\"cached\":0.2,\"written\":2.5,\"output\":10},"
                "{\"input\":4,\"cached\":0.4,\"output\":15}") "," ROW("capped", FROM,
                                                                      "{\"up_to\":1000,\"input\":1,"
                                                                      "\"output\":1}")),
        &p);
    assert_true(status_is_ok(&s));
    int64_t now = at("2026-11-25");
    // 600 plain at $2, 300 cached at $0.2, 100 written at $2.5, 50 out at $10 per million.
    assert_int_equal(prices_cost(p, "m", now, &(price_usage){1000, 300, 100, 50}),
                     1200000 + 60000 + 250000 + 500000);
    // One token more: the whole request is dearer; and this tier says nothing of written tokens.
    assert_int_equal(prices_cost(p, "m", now, &(price_usage){1001, 300, 0, 50}),
                     701 * 4000 + 300 * 400 + 50 * 15000);
    assert_int_equal(prices_cost(p, "m", now, &(price_usage){1001, 0, 1, 50}), PRICES_UNKNOWN);
    assert_int_equal(prices_cost(p, "m", now, &(price_usage){0}), 0); // an explicit zero stays zero
    assert_int_equal(prices_cost(p, "capped", now, &(price_usage){1001, 0, 0, 1}), PRICES_UNKNOWN);
    // No price for cached tokens: never less than they may cost.
    assert_int_equal(prices_cost(p, "capped", now, &(price_usage){1000, 900, 0, 0}), 1000000);
    prices_close(p);
}

static void test_unknown_is_not_zero(void **state) {
    (void)state;
    prices *p;
    status s = open_text(FILE_OF(ROW("m", FROM, TIER)), &p);
    assert_true(status_is_ok(&s));
    price_usage u = {100, 0, 0, 10};
    assert_int_equal(prices_cost(p, "another", at("2026-11-25"), &u), PRICES_UNKNOWN);
    assert_int_equal(prices_cost(p, "m", at("2026-11-23"), &u), PRICES_UNKNOWN);
    assert_int_equal(prices_cost(NULL, "m", at("2026-11-25"), &u), PRICES_UNKNOWN);
    prices_close(p);
}

static void test_promotion_ends(void **state) {
    (void)state;
    prices *p;
    status s =
        open_text(FILE_OF(ROW("m", "\"from\":\"2027-01-01\"", "{\"input\":2,\"output\":4}") "," ROW(
                      "m", FROM ",\"until\":\"2026-12-31\"", TIER)),
                  &p);
    assert_true(status_is_ok(&s));
    price_usage u = {1000, 0, 0, 0};
    assert_int_equal(prices_cost(p, "m", at("2026-12-31") + 86399, &u), 1000000);
    assert_int_equal(prices_cost(p, "m", at("2027-01-01"), &u), 2000000);
    prices_close(p);
}

static void test_wrong_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"{", "JSON"},
        {"{}", "'rows'"},
        {FILE_OF("{\"model\":\"m\"}"), "source is missing"},
        {FILE_OF("{\"source\":\"x\"}"), "model is missing"},
        {FILE_OF(ROW("m", "\"from\":\"soon\"", TIER)), "from is a date"},
        {FILE_OF(ROW("m", FROM ",\"until\":\"2026-02-30\"", TIER)), "until is a date"},
        {FILE_OF(ROW("m", FROM ",\"until\":\"2026-11-01\"", TIER)), "until is before from"},
        {FILE_OF(ROW("m", FROM, "")), "tiers"},
        {FILE_OF(ROW("m", FROM, "{\"input\":1}")), "input and output"},
        {FILE_OF(ROW("m", FROM, "{\"input\":-1,\"output\":1}")), "a price is a number"},
        {FILE_OF(ROW("m", FROM, "{\"input\":\"1\",\"output\":1}")), "a price is a number"},
        {FILE_OF(ROW("m", FROM, "{\"input\":1,\"outptu\":1}")), "nothing else"},
        {FILE_OF(ROW("m", FROM, TIER "," TIER)), "ascend"},
        {FILE_OF(ROW("m", FROM, TIER) "," ROW("m", FROM, TIER)), "overlap"},
        {FILE_OF(ROW("m", FROM,
                     TIER) "," ROW("m", "\"from\":\"2026-01-01\",\"until\":\"2026-11-24\"", TIER)),
         "overlap"},
        {"{\"rows\":[{\"model\":\"m\"," FROM ",\"tiers\":[" TIER "],\"source\":\"x\"}]}",
         "seen is"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prices *p;
        status s = open_text(cases[i].text, &p);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        if (i > 0 && !strstr(s.message, cases[i].said)) fail_msg("%s", s.message);
    }
    prices *p;
    status s = prices_open("/nowhere/prices.json", &p);
    assert_int_equal(s.code, STATUS_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_days),
        cmocka_unit_test(test_cost_of_classes_and_tiers),
        cmocka_unit_test(test_unknown_is_not_zero),
        cmocka_unit_test(test_promotion_ends),
        cmocka_unit_test(test_wrong_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
