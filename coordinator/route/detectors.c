// detectors: a pattern proposes, a check disposes. A match whose check fails costs one step
// forward, not its whole length: a card may begin inside of what looked like a longer number.
#include "coordinator/route/detectors.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/route/detector_check.h"
#include "coordinator/route/fold.h"

enum {
    MATCH_LIMIT = 1000000,  // steps of one match
    DEPTH_LIMIT = 1000,     // nested, of one match
    HEAP_LIMIT_KIB = 4096,  // of one match
    CANDIDATES_MAX = 65536, // matches of one detector in one text, with those that fail their check
    SPANS_MAX = 65536,      // findings of one text
    ROUNDS_MAX = 4, // of redacting: what stood beside a finding may be one once that is replaced
};

typedef struct detector {
    char name[DETECTOR_NAME_MAX + 1];
    pcre2_code *code;
    detector_check check;
    detector_action action;
} detector;

struct detectors {
    pcre2_match_context *limits;
    int count;
    detector items[DETECTORS_MAX];
};

// What may stand between the digits of one number: blank, dash, and their Unicode kin.
#define GAP "[ \\-\\x{a0}\\x{2000}-\\x{200b}\\x{2010}-\\x{2015}\\x{202f}\\x{2060}]"
#define GAPS GAP "{0,3}+"
// Between groups of digits also these; not between any two, where they make fractions and dates.
#define MARK "[._/]"

static const struct {
    const char *name, *regex;
    detector_check check;
    detector_action action;
} built_in[] = {
    // RFC 5321's lengths; letters and digits of any script (RFC 6531).
    {"email",
     "[\\p{L}\\p{N}._%+'\\-]{1,64}@(?:[\\p{L}\\p{N}\\-]{1,63}\\.){1,8}\\p{L}[\\p{L}\\p{N}\\-]{1,"
     "62}",
     CHECK_NONE, DETECTOR_REDACT},
    // +49 30 1234567 and 0049...; (555) 123-4567 and 555-123-4567; 030 1234567, 0171/2345678.
    {"phone",
     "(?<![\\p{L}\\p{N}])(?:(?:\\+|00)(?:[ \\-.()/]{0,2}\\d){8,15}(?!\\d)"
     "|(?:\\(\\d{3}\\)" GAP "?|\\d{3}(?:" GAP "|[./]))\\d{3}(?:" GAP "|[.])\\d{4}(?!\\d)"
     "|\\(?0[1-9]\\d{1,4}\\)?(?:" GAP "|[/.]){0,3}\\d{2,9}(?:" GAP "?\\d{2,5}){0,4}(?!\\d))",
     CHECK_PHONE, DETECTOR_REDACT},
    {"card",
     "(?<!\\d)(?:[2-6](?:" GAPS "\\d){11,18}"
     "|[2-6]\\d{3}(" MARK ")\\d{4}\\1\\d{4}\\1\\d{4}|3[47]\\d\\d(" MARK ")\\d{6}\\2\\d{5})",
     CHECK_CARD, DETECTOR_LOCAL_ONLY},
    {"iban", "(?i)(?<![a-z0-9])[a-z]{2}" GAPS "\\d{2}(?:(?:" GAPS "|" MARK ")[a-z0-9]){11,30}",
     CHECK_MOD97, DETECTOR_LOCAL_ONLY},
    // With its dashes, or bare behind a word that says what it is.
    {"us-ssn",
     "(?<![\\d\\-])\\d{3}(?:" GAP "{1,3}\\d{2}" GAP "{1,3}|(" MARK ")\\d{2}\\1)\\d{4}(?![\\d\\-])"
     "|(?i)\\b(?:ssn|social security)(?: number| no)?[ .:#=is]{0,6}\\d{9}(?!\\d)",
     CHECK_US_SSN, DETECTOR_REDACT},
};

// ---- the list ----

detectors *detectors_create(void) {
    detectors *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->limits = pcre2_match_context_create(NULL);
    bool good = d->limits != NULL;
    if (good) {
        pcre2_set_match_limit(d->limits, MATCH_LIMIT);
        pcre2_set_depth_limit(d->limits, DEPTH_LIMIT);
        pcre2_set_heap_limit(d->limits, HEAP_LIMIT_KIB);
    }
    for (size_t i = 0; good && i < sizeof built_in / sizeof *built_in; i++) {
        status s = detectors_add(d, built_in[i].name, built_in[i].regex, built_in[i].check,
                                 built_in[i].action);
        good = status_is_ok(&s);
    }
    if (good) return d;
    detectors_destroy(d);
    return NULL;
}

void detectors_destroy(detectors *d) {
    if (!d) return;
    for (int i = 0; i < d->count; i++) pcre2_code_free(d->items[i].code);
    pcre2_match_context_free(d->limits);
    free(d);
}

int detectors_count(const detectors *d) {
    return d->count;
}

const char *detectors_name(const detectors *d, int i) {
    return d->items[i].name;
}

detector_action detectors_action(const detectors *d, int i) {
    return d->items[i].action;
}

static int find(const detectors *d, const char *name) {
    for (int i = 0; i < d->count; i++)
        if (strcmp(d->items[i].name, name) == 0) return i;
    return -1;
}

bool detectors_set(detectors *d, const char *name, detector_action action) {
    int i = find(d, name);
    if (i >= 0) d->items[i].action = action;
    return i >= 0;
}

static status compile(const char *regex, pcre2_code **out) {
    int error;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at,
                         NULL);
    if (*out) {
        // Without a JIT compiler for this machine the interpreter does it.
        pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
        return status_ok();
    }
    PCRE2_UCHAR words[160];
    pcre2_get_error_message(error, words, sizeof words);
    return status_error(STATUS_INVALID_ARGUMENT, "the regex is wrong at its character %zu: %s",
                        at + 1, (const char *)words);
}

static bool matches_empty(const pcre2_code *code) {
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    int rc = data ? pcre2_match(code, (PCRE2_SPTR) "", 0, 0, 0, data, NULL) : 0;
    pcre2_match_data_free(data);
    return rc >= 0;
}

// Whether a pattern finds something in "[NAME]", what redacting leaves behind.
static bool finds_placeholder(const pcre2_code *code, const char *name) {
    char text[DETECTOR_NAME_MAX + 3];
    int size = snprintf(text, sizeof text, "[%s]", name);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    int rc = data ? pcre2_match(code, (PCRE2_SPTR)text, (size_t)size, 0, 0, data, NULL) : 0;
    pcre2_match_data_free(data);
    return rc >= 0;
}

// Else redacting would never come to an end.
static status check_placeholders(const detectors *d, const pcre2_code *code, const char *name) {
    const char *hit = finds_placeholder(code, name) ? name : NULL;
    for (int i = 0; i < d->count && !hit; i++) {
        if (finds_placeholder(code, d->items[i].name)) hit = d->items[i].name;
        if (finds_placeholder(d->items[i].code, name)) hit = name;
    }
    return !hit ? status_ok()
                : status_error(STATUS_INVALID_ARGUMENT,
                               "a regex also finds '[%s]', by which findings are replaced; give "
                               "the pattern another name or a narrower regex",
                               hit);
}

status detectors_add(detectors *d, const char *name, const char *regex, detector_check check,
                     detector_action action) {
    if (d->count == DETECTORS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "more than %d detectors", DETECTORS_MAX);
    size_t size = strlen(name);
    if (size == 0 || size > DETECTOR_NAME_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "a detector's name has 1 to %d characters",
                            DETECTOR_NAME_MAX);
    if (find(d, name) >= 0)
        return status_error(STATUS_INVALID_ARGUMENT, "there is a detector '%s' already", name);
    if (strlen(regex) > DETECTOR_REGEX_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "the regex is longer than %d bytes",
                            DETECTOR_REGEX_MAX);
    detector *item = &d->items[d->count];
    TRY(compile(regex, &item->code));
    if (matches_empty(item->code)) {
        pcre2_code_free(item->code);
        return status_error(STATUS_INVALID_ARGUMENT,
                            "the regex matches the empty text, so it would be found everywhere");
    }
    status clear = check_placeholders(d, item->code, name);
    if (!status_is_ok(&clear)) {
        pcre2_code_free(item->code);
        return clear;
    }
    memcpy(item->name, name, size + 1);
    item->check = check;
    item->action = action;
    d->count++;
    return status_ok();
}

// ---- looking ----

// One way to look at a text: as it is, or folded.
typedef struct search {
    const detectors *d;
    const char *text;
    size_t size;
    pcre2_match_data *data;
    bool failed; // a limit, or no memory
} search;

typedef struct span_list {
    detector_span *items;
    size_t count, room;
} span_list;

static bool add_span(span_list *list, detector_span found) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        detector_span *grown = room > SPANS_MAX ? NULL : realloc(list->items, room * sizeof *grown);
        if (!grown) return false;
        list->items = grown;
        list->room = room;
    }
    list->items[list->count++] = found;
    return true;
}

// The next finding of detector i at or after *at. False: there is none, or s->failed.
static bool find_next(search *s, int i, size_t *at, int *candidates, detector_span *out) {
    const detector *item = &s->d->items[i];
    while (*at < s->size) {
        int rc =
            pcre2_match(item->code, (PCRE2_SPTR)s->text, s->size, *at, 0, s->data, s->d->limits);
        if (rc == PCRE2_ERROR_NOMATCH) return false;
        const PCRE2_SIZE *where = pcre2_get_ovector_pointer(s->data);
        // An empty match says that something is here, but not what.
        if (rc < 0 || where[1] <= where[0] || ++*candidates > CANDIDATES_MAX) {
            s->failed = true;
            return false;
        }
        size_t begin = where[0], end = where[1];
        size_t passed =
            detector_check_run(item->check, s->text + begin, end - begin, s->size - begin);
        *at = passed ? begin + passed : begin + 1;
        // In the middle of a character PCRE2 would see invalid bytes and start behind them anyway.
        while (*at < s->size && ((unsigned char)s->text[*at] & 0xc0) == 0x80) (*at)++;
        if (!passed) continue;
        *out = (detector_span){begin, begin + passed, i};
        return true;
    }
    return false;
}

// Findings of detector i; collected where there is a list.
static uint32_t search_one(search *s, int i, span_list *list) {
    uint32_t found = 0;
    size_t at = 0;
    int candidates = 0;
    detector_span one;
    while (!s->failed && find_next(s, i, &at, &candidates, &one)) {
        found++;
        if (list && !add_span(list, one)) s->failed = true;
    }
    return found;
}

void detectors_scan(const detectors *d, const char *text, size_t size, detector_findings *f) {
    folded read = {0};
    search as_is = {.d = d, .text = text, .size = size, .data = pcre2_match_data_create(1, NULL)};
    if (!as_is.data || !fold_text(text, size, &read)) {
        f->limits++;
        pcre2_match_data_free(as_is.data);
        fold_free(&read);
        return;
    }
    search as_read = as_is;
    as_read.text = buf_string(&read.text);
    as_read.size = read.text.size;
    for (int i = 0; i < d->count; i++) {
        if (d->items[i].action == DETECTOR_OFF) continue;
        as_is.failed = as_read.failed = false;
        uint32_t found = search_one(&as_is, i, NULL);
        uint32_t more = read.changed ? search_one(&as_read, i, NULL) : 0;
        f->found[i] += found > more ? found : more;
        f->limits += as_is.failed || as_read.failed;
    }
    pcre2_match_data_free(as_is.data);
    fold_free(&read);
}

static int by_place(const void *a, const void *b) {
    const detector_span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end > y->end ? -1 : 1; // the longer first: it gives the name
    return x->detector - y->detector;
}

static bool find_all(const detectors *d, const char *text, size_t size, span_list *list) {
    search s = {.d = d, .text = text, .size = size, .data = pcre2_match_data_create(1, NULL)};
    s.failed = s.data == NULL;
    for (int i = 0; i < d->count && !s.failed; i++)
        if (d->items[i].action != DETECTOR_OFF) search_one(&s, i, list);
    pcre2_match_data_free(s.data);
    return !s.failed;
}

// Findings in the folded text, at their places in the text.
static bool find_folded(const detectors *d, const char *text, size_t size, span_list *list) {
    folded read;
    size_t first = list->count;
    bool good = fold_text(text, size, &read);
    if (good && read.changed) good = find_all(d, buf_string(&read.text), read.text.size, list);
    for (size_t i = first; good && i < list->count; i++) {
        detector_span *s = &list->items[i];
        s->end = fold_end(&read, text, size, s->end - 1);
        s->begin = read.origin[s->begin];
    }
    fold_free(&read);
    return good;
}

bool detectors_find(const detectors *d, const char *text, size_t size, detector_span **out,
                    size_t *count) {
    span_list list = {0};
    bool good = find_all(d, text, size, &list) && find_folded(d, text, size, &list);
    if (good && list.count > 1) qsort(list.items, list.count, sizeof *list.items, by_place);
    if (!good) free(list.items);
    *out = good ? list.items : NULL;
    *count = good ? list.count : 0;
    return good;
}

// ---- replacing ----

// Spans that touch one another's bytes become one, under the first's name.
static void write_redacted(const detectors *d, const char *text, size_t size,
                           const detector_span *spans, size_t count, buf *out) {
    size_t done = 0;
    for (size_t i = 0; i < count;) {
        size_t end = spans[i].end, next = i + 1;
        for (; next < count && spans[next].begin < end; next++)
            if (spans[next].end > end) end = spans[next].end;
        buf_append(out, text + done, spans[i].begin - done);
        buf_printf(out, "[%s]", d->items[spans[i].detector].name);
        done = end;
        i = next;
    }
    buf_append(out, text + done, size - done);
}

// One round. False: a limit, or no memory. *found: something was replaced.
static bool redact_once(const detectors *d, const char *text, size_t size, buf *out, bool *found) {
    detector_span *spans;
    size_t count;
    if (!detectors_find(d, text, size, &spans, &count)) return false;
    *found = count > 0;
    write_redacted(d, text, size, spans, count, out);
    free(spans);
    return !out->failed;
}

bool detectors_redact(const detectors *d, const char *text, size_t size, buf *out) {
    buf rounds[2] = {buf_make(out->limit), buf_make(out->limit)};
    bool found = true, good = true;
    for (int i = 0; i < ROUNDS_MAX && good && found; i++) {
        buf *next = &rounds[i % 2];
        buf_clear(next);
        good = redact_once(d, text, size, next, &found);
        text = buf_string(next);
        size = next->size;
    }
    good = good && !found && buf_append(out, text, size);
    buf_free(&rounds[0]);
    buf_free(&rounds[1]);
    return good;
}
