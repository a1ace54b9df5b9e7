#include "coordinator/route/window.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { DAY_MINUTES = 1440, DAY_SECONDS = 86400, EVERY_DAY = 0x7f };
static const char *const day_names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static status not_a_window(const char *text) {
    return status_error(STATUS_INVALID_ARGUMENT,
                        "'%.60s' is not a window such as 'daily 03:00-03:30', 'sun 02:00-04:00', "
                        "'mon-fri 22:00-02:00' or '2026-12-24 18:00 to 2026-12-26 06:00' (UTC)",
                        text);
}

// Exactly `count` digits; moves on. -1: something else.
static int digits(const char **at, int count) {
    int value = 0;
    for (int i = 0; i < count; i++, (*at)++) {
        if (!isdigit((unsigned char)**at)) return -1;
        value = value * 10 + (**at - '0');
    }
    return value;
}

static bool take(const char **at, char c) {
    if (**at != c) return false;
    (*at)++;
    return true;
}

// "HH:MM" to minutes; 24:00 is the end of the day.
static bool take_clock(const char **at, int *out) {
    int hour = digits(at, 2);
    int minute = hour >= 0 && take(at, ':') ? digits(at, 2) : -1;
    if (hour < 0 || minute < 0 || minute > 59 || hour * 60 + minute > DAY_MINUTES) return false;
    *out = hour * 60 + minute;
    return true;
}

// Days since 1970 (Howard Hinnant's civil calendar arithmetic).
static int64_t days_from_civil(int year, int month, int day) {
    year -= month <= 2;
    int era = year / 400, of_era = year - era * 400;
    int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool take_date(const char **at, int64_t *out) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = digits(at, 4);
    int month = year >= 1970 && take(at, '-') ? digits(at, 2) : -1;
    int day = month >= 1 && month <= 12 && take(at, '-') ? digits(at, 2) : -1;
    if (day < 1) return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > lengths[month - 1] + (month == 2 && leap)) return false;
    int minutes;
    if (!take(at, ' ') || !take_clock(at, &minutes)) return false;
    *out = days_from_civil(year, month, day) * DAY_SECONDS + minutes * 60;
    return true;
}

static bool take_day(const char **at, int *out) {
    for (int i = 0; i < 7; i++) {
        if (strncasecmp(*at, day_names[i], 3) != 0) continue;
        *at += 3;
        *out = i;
        return true;
    }
    return false;
}

// "daily", "sun", "sat,sun", "mon-fri", "fri-mon".
static bool take_days(const char **at, unsigned *out) {
    *out = 0;
    if (strncasecmp(*at, "daily", 5) == 0) {
        *at += 5;
        *out = EVERY_DAY;
        return true;
    }
    do {
        int from, to;
        if (!take_day(at, &from)) return false;
        to = from;
        if (take(at, '-') && !take_day(at, &to)) return false;
        for (int d = from;; d = (d + 1) % 7) {
            *out |= 1u << d;
            if (d == to) break;
        }
    } while (take(at, ','));
    return true;
}

status window_parse(const char *text, window *out) {
    *out = (window){0};
    const char *at = text;
    if (isdigit((unsigned char)*at)) {
        if (!take_date(&at, &out->once_from) || strncmp(at, " to ", 4) != 0)
            return not_a_window(text);
        at += 4;
        if (!take_date(&at, &out->once_to) || *at) return not_a_window(text);
        if (out->once_to <= out->once_from)
            return status_error(STATUS_INVALID_ARGUMENT, "'%.60s' ends before it begins", text);
        return status_ok();
    }
    if (!take_days(&at, &out->days) || !take(&at, ' ') || !take_clock(&at, &out->begin) ||
        !take(&at, '-') || !take_clock(&at, &out->end) || *at || out->begin == DAY_MINUTES)
        return not_a_window(text);
    if (out->begin == out->end)
        return status_error(STATUS_INVALID_ARGUMENT, "'%.60s' is empty; a whole day is 00:00-24:00",
                            text);
    return status_ok();
}

bool window_is_open(const window *w, int64_t unix_seconds) {
    if (!w->days) return unix_seconds >= w->once_from && unix_seconds < w->once_to;
    int64_t day = unix_seconds / DAY_SECONDS - (unix_seconds % DAY_SECONDS < 0);
    int minute = (int)((unix_seconds - day * DAY_SECONDS) / 60);
    int today = (int)(((day + 3) % 7 + 7) % 7); // 1970-01-01 was a Thursday
    bool begins_today = w->days >> today & 1, began_yesterday = w->days >> (today + 6) % 7 & 1;
    if (w->end > w->begin) return begins_today && minute >= w->begin && minute < w->end;
    return (begins_today && minute >= w->begin) || (began_yesterday && minute < w->end);
}
