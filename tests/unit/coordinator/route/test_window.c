#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/route/window.h"

// "YYYY-MM-DD HH:MM" in UTC, by the C library: another calendar than window.c's.
static int64_t at(const char *text) {
    struct tm t = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M", &t));
    return (int64_t)timegm(&t);
}

static bool open_at(const char *text, const char *time) {
    window w;
    status s = window_parse(text, &w);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return window_is_open(&w, at(time));
}

static void windows_open_and_close(void **state) {
    (void)state;
    static const struct {
        const char *window, *time;
        bool open;
    } cases[] = {
        {"daily 03:00-03:30", "2026-11-24 03:00", true},
        {"daily 03:00-03:30", "2026-11-24 03:29", true},
        {"daily 03:00-03:30", "2026-11-24 03:30", false},
        {"daily 03:00-03:30", "2026-11-24 02:59", false},
        {"sun 02:00-04:00", "2026-11-29 02:00", true}, // a Sunday
        {"sun 02:00-04:00", "2026-11-28 02:00", false},
        {"Sun 02:00-04:00", "2026-11-29 03:59", true},
        {"mon-fri 22:00-02:00", "2026-11-27 23:00", true}, // Friday
        {"mon-fri 22:00-02:00", "2026-11-28 01:59", true}, // ... into Saturday
        {"mon-fri 22:00-02:00", "2026-11-28 22:00", false},
        {"mon-fri 22:00-02:00", "2026-11-30 01:00", false}, // Sunday's night was not in it
        {"fri-mon 00:00-24:00", "2026-11-29 12:00", true},
        {"fri-mon 00:00-24:00", "2026-11-25 12:00", false},
        {"sat,wed 10:00-11:00", "2026-11-25 10:30", true},
        {"sat,wed 10:00-11:00", "2026-11-26 10:30", false},
        {"2026-12-24 18:00 to 2026-12-26 06:00", "2026-12-25 12:00", true},
        {"2026-12-24 18:00 to 2026-12-26 06:00", "2026-12-24 17:59", false},
        {"2026-12-24 18:00 to 2026-12-26 06:00", "2026-12-26 06:00", false},
        {"2028-02-29 00:00 to 2028-03-01 00:00", "2028-02-29 23:59", true},
        {"daily 00:00-00:01", "1970-01-01 00:00", true},
        {"thu 00:00-00:01", "1970-01-01 00:00", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (open_at(cases[i].window, cases[i].time) != cases[i].open)
            fail_msg("%s at %s", cases[i].window, cases[i].time);
}

// Every minute of three weeks, against the C library's calendar.
static void weekdays_agree_with_the_calendar(void **state) {
    (void)state;
    window w;
    assert_int_equal(window_parse("tue 10:15-10:20", &w).code, STATUS_OK);
    for (int64_t t = at("2027-12-20 00:00"); t < at("2028-01-10 00:00"); t += 60) {
        time_t seconds = (time_t)t;
        struct tm c;
        gmtime_r(&seconds, &c);
        bool want = c.tm_wday == 2 && c.tm_hour == 10 && c.tm_min >= 15 && c.tm_min < 20;
        assert_int_equal(window_is_open(&w, t), want);
    }
    window_is_open(&w, -1); // before 1970: any answer, no crash
}

static void what_is_no_window_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "sun",
        "sun 2:00-4:00",
        "sun 02:00",
        "sun 02:00-25:00",
        "sun 02:60-03:00",
        "sun 02:00-02:00",
        "someday 01:00-02:00",
        "mon- 01:00-02:00",
        "daily 01:00-02:00 x",
        "daily 24:00-01:00",
        "2026-02-30 00:00 to 2026-03-01 00:00",
        "2026-13-01 00:00 to 2027-01-01 00:00",
        "2026-12-26 06:00 to 2026-12-24 18:00",
        "2026-12-26 to 2026-12-27",
        "1969-01-01 00:00 to 1970-01-02 00:00",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        window w;
        status s = window_parse(texts[i], &w);
        if (status_is_ok(&s)) fail_msg("taken: '%s'", texts[i]);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_open_and_close),
        cmocka_unit_test(weekdays_agree_with_the_calendar),
        cmocka_unit_test(what_is_no_window_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
