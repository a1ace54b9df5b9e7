#include "common/ledger/prices.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/json.h"

enum { SECONDS_PER_DAY = 86400, NAME_SHOWN_MAX = 80 };
#define DOLLARS_MAX 1e6 // per million tokens; a price beyond is a slip of the decimal point

struct prices {
    json_t *root; // rows' texts live in it
    price_row *rows;
    size_t count;
};

// ---- days ----

// Days since 1970-01-01 of the proleptic Gregorian calendar: years of 365 days and their leap days,
// counted from a year that begins in March, so that February's end is the year's.
static int64_t day_of(int year, int month, int day) {
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t month_from_march = (month + 9) % 12;
    int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    return 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

static int days_in(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

bool prices_parse_day(const char *text, int64_t *day) {
    static const char shape[] = "dddd-dd-dd";
    if (strlen(text) != sizeof shape - 1) return false;
    for (size_t i = 0; i < sizeof shape - 1; i++)
        if (shape[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i]) return false;
    int y = atoi(text), m = atoi(text + 5), d = atoi(text + 8);
    if (y < 1970 || m < 1 || m > 12 || d < 1 || d > days_in(y, m)) return false;
    *day = day_of(y, m, d);
    return true;
}

void prices_day_text(int64_t day, char out[16]) {
    int year = 1970;
    assert(day >= 0 && day < 366 * INT64_C(8000));
    while (day_of(year + 1, 1, 1) <= day) year++;
    int month = 1;
    while (month < 12 && day_of(year, month + 1, 1) <= day) month++;
    snprintf(out, 16, "%04u-%02u-%02u", (unsigned)year % 10000, (unsigned)month % 100,
             (unsigned)(day - day_of(year, month, 1) + 1) % 100);
}

// ---- reading ----

static status wrong(size_t row, const char *model, const char *what) {
    return status_error(STATUS_INVALID_ARGUMENT, "row %zu (%.*s): %s", row + 1, NAME_SHOWN_MAX,
                        model ? model : "no model", what);
}

// NaN when it is left out; false when it is no price.
static bool read_price(const json_t *tier, const char *name, double *out) {
    const json_t *value = json_object_get(tier, name);
    *out = NAN;
    if (!value) return true;
    *out = json_number_value(value);
    return json_is_number(value) && *out >= 0 && *out <= DOLLARS_MAX;
}

static const char *read_tier(const json_t *json, price_tier *t) {
    static const char *const names[] = {"up_to", "input", "cached", "written", "output"};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)json, name, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            known |= strcmp(name, names[i]) == 0;
        if (!known) return "a tier has up_to, input, cached, written, output and nothing else";
    }
    json_t *up_to = json_object_get(json, "up_to");
    t->up_to = up_to ? json_integer_value(up_to) : INT64_MAX;
    if (t->up_to <= 0) return "a tier's up_to is a number of tokens";
    if (!read_price(json, "input", &t->input) || !read_price(json, "cached", &t->cached) ||
        !read_price(json, "written", &t->written) || !read_price(json, "output", &t->output))
        return "a price is a number of dollars per million tokens, from 0 to a million";
    return isnan(t->input) || isnan(t->output) ? "a tier needs input and output" : NULL;
}

static const char *read_tiers(const json_t *array, price_row *row) {
    size_t count = json_array_size(array);
    if (count == 0) return "tiers is a list of at least one";
    if (count > PRICES_TIERS_MAX) return "too many tiers";
    for (size_t i = 0; i < count; i++) {
        const char *why = read_tier(json_array_get(array, i), &row->tiers[i]);
        if (why) return why;
        if (i > 0 && row->tiers[i].up_to <= row->tiers[i - 1].up_to)
            return "tiers ascend by up_to; only the last may leave it out";
    }
    row->tier_count = (int)count;
    return NULL;
}

static const char *text_of(const json_t *json, const char *name) {
    const char *text = json_string_value(json_object_get(json, name));
    return text && *text ? text : NULL;
}

static const char *read_dates(const json_t *json, price_row *row) {
    const char *from = text_of(json, "from"), *until = text_of(json, "until");
    int64_t seen;
    if (!from || !prices_parse_day(from, &row->from_day)) return "from is a date, YYYY-MM-DD";
    row->until_day = INT64_MAX;
    if (json_object_get(json, "until") && (!until || !prices_parse_day(until, &row->until_day)))
        return "until is a date, YYYY-MM-DD";
    if (row->until_day < row->from_day) return "until is before from";
    if (!row->seen || !prices_parse_day(row->seen, &seen)) return "seen is a date, YYYY-MM-DD";
    return NULL;
}

static const char *read_row(const json_t *json, price_row *row) {
    row->model = text_of(json, "model");
    row->vendor = text_of(json, "vendor");
    row->source = text_of(json, "source");
    row->seen = text_of(json, "seen");
    if (!row->model) return "model is missing";
    if (!row->source) return "source is missing: where was this price read?";
    const char *why = read_dates(json, row);
    return why ? why : read_tiers(json_object_get(json, "tiers"), row);
}

static bool overlap(const price_row *a, const price_row *b) {
    return strcmp(a->model, b->model) == 0 && a->from_day <= b->until_day &&
           b->from_day <= a->until_day;
}

static status read_rows(prices *p) {
    json_t *rows = json_object_get(p->root, "rows");
    size_t count = json_array_size(rows);
    if (!json_is_array(rows) || count > PRICES_ROWS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "'rows' is a list of at most %d rows",
                            PRICES_ROWS_MAX);
    p->rows = calloc(count + 1, sizeof *p->rows);
    if (!p->rows) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for prices");
    for (; p->count < count; p->count++) {
        price_row *row = &p->rows[p->count];
        const char *why = read_row(json_array_get(rows, p->count), row);
        if (why) return wrong(p->count, row->model, why);
        for (size_t i = 0; i < p->count; i++)
            if (overlap(&p->rows[i], row))
                return wrong(p->count, row->model, "its dates overlap those of a row before");
    }
    return status_ok();
}

static status read_file(const char *path, buf *out) {
    FILE *file = fopen(path, "re");
    if (!file)
        return status_error(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE, "%s",
                            strerror(errno));
    char bytes[16384];
    size_t got;
    while ((got = fread(bytes, 1, sizeof bytes, file)) > 0)
        if (!buf_append(out, bytes, got)) break;
    bool good = !ferror(file) && !out->failed;
    fclose(file);
    return good ? status_ok()
                : status_error(STATUS_INVALID_ARGUMENT, "cannot be read, or is too large");
}

static status read_text(prices *p, const char *bytes, size_t size) {
    TRY(json_parse(bytes, size, &p->root));
    return read_rows(p);
}

status prices_parse(const char *bytes, size_t size, prices **out) {
    prices *p = calloc(1, sizeof *p);
    if (!p) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for prices");
    status s = read_text(p, bytes, size);
    if (status_is_ok(&s))
        *out = p;
    else
        prices_close(p);
    return s;
}

status prices_open(const char *path, prices **out) {
    buf text = buf_make(PRICES_FILE_BYTES_MAX);
    status s = read_file(path, &text);
    if (status_is_ok(&s)) s = prices_parse(buf_string(&text), text.size, out);
    buf_free(&text);
    return status_is_ok(&s) ? s : status_context(s, "%s", path);
}

void prices_close(prices *p) {
    if (!p) return;
    json_decref(p->root);
    free(p->rows);
    free(p);
}

// ---- asking ----

size_t prices_count(const prices *p) {
    return p ? p->count : 0;
}

const price_row *prices_at(const prices *p, size_t i) {
    assert(i < p->count);
    return &p->rows[i];
}

const price_row *prices_find(const prices *p, const char *model, int64_t unix_s) {
    int64_t day = unix_s / SECONDS_PER_DAY;
    for (size_t i = 0; i < prices_count(p); i++) {
        const price_row *row = &p->rows[i];
        if (day >= row->from_day && day <= row->until_day && strcmp(row->model, model) == 0)
            return row;
    }
    return NULL;
}

int64_t price_row_cost(const price_row *row, const price_usage *u) {
    int i = 0;
    while (i < row->tier_count && u->input > row->tiers[i].up_to) i++;
    if (i == row->tier_count) return PRICES_UNKNOWN; // longer than any tier
    const price_tier *t = &row->tiers[i];
    if (u->written > 0 && isnan(t->written)) return PRICES_UNKNOWN;
    double cached = isnan(t->cached) ? t->input : t->cached;
    double written = u->written > 0 ? t->written : 0;
    int64_t plain = u->input - u->cached - u->written;
    if (plain < 0) plain = 0; // an API that counts oddly is never paid back
    // Dollars per million tokens are a thousand nanodollars a token.
    double dollars_per_million = (double)plain * t->input + (double)u->cached * cached +
                                 (double)u->written * written + (double)u->output * t->output;
    double nano = dollars_per_million * 1e3;
    return nano < 9e18 ? llround(nano) : INT64_MAX;
}

int64_t prices_cost(const prices *p, const char *model, int64_t unix_s, const price_usage *u) {
    const price_row *row = prices_find(p, model, unix_s);
    return row ? price_row_cost(row, u) : PRICES_UNKNOWN;
}
