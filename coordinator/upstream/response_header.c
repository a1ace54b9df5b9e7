#include "coordinator/upstream/response_header.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { VALUE_MAX = 128 }; // bytes of a value that is looked at

response_header response_header_make(void) {
    response_header h = {0};
    for (int i = 0; i < LIMIT_KINDS; i++) h.limits[i] = (limit_seen){-1, -1, -1};
    return h;
}

// ---- times ----

static int64_t bounded_ms(double ms) {
    if (!(ms > 0)) return 0;
    if (ms >= RETRY_AFTER_MAX_MS) return RETRY_AFTER_MAX_MS;
    return ms < 1 ? 1 : (int64_t)ms;
}

int64_t duration_parse_ms(const char *text, size_t size) {
    char value[VALUE_MAX];
    if (!size || size >= sizeof value) return 0;
    memcpy(value, text, size);
    value[size] = 0;
    double total = 0;
    for (char *at = value; *at;) {
        char *end;
        if (!isdigit((unsigned char)*at)) return 0; // no sign, no "inf"
        double number = strtod(at, &end);
        if (end == at) return 0;
        double unit = 1000;
        if (!strncmp(end, "ms", 2))
            unit = 1;
        else if (*end == 'h')
            unit = 3600e3;
        else if (*end == 'm')
            unit = 60e3;
        else if (*end && *end != 's')
            return 0;
        total += number * unit;
        if (*end) end += unit == 1 ? 2 : 1;
        at = end;
    }
    return bounded_ms(total);
}

// RFC 9110's preferred form and RFC 3339; -1: neither.
static int64_t date_parse(const char *value) {
    struct tm t = {0};
    const char *end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &t);
    if (end && !*end) return timegm(&t);
    t = (struct tm){0};
    end = strptime(value, "%Y-%m-%dT%H:%M:%S", &t);
    if (!end) return -1;
    if (*end == '.')
        for (end++; isdigit((unsigned char)*end);) end++;
    int64_t at = timegm(&t);
    if (!strcmp(end, "Z") || !strcmp(end, "z")) return at;
    int hours, minutes, used = 0;
    if ((*end != '+' && *end != '-') ||
        sscanf(end + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || end[1 + used])
        return -1;
    int64_t offset = hours * 3600 + minutes * 60;
    return *end == '+' ? at - offset : at + offset;
}

// A duration or a date, as a wait from now.
static int64_t wait_parse_ms(const char *value, int64_t unix_s) {
    int64_t ms = duration_parse_ms(value, strlen(value));
    if (ms) return ms;
    int64_t at = date_parse(value);
    return at < 0 ? 0 : bounded_ms((double)(at - unix_s) * 1000);
}

// ---- limits ----

static int64_t count_parse(const char *value) {
    char *end;
    if (!isdigit((unsigned char)*value)) return -1;
    long long count = strtoll(value, &end, 10);
    return *end ? -1 : count;
}

static void note_limit(limit_seen *l, const char *what, size_t size, const char *value,
                       int64_t unix_s) {
    if (size == 5 && !strncasecmp(what, "limit", 5)) {
        int64_t count = count_parse(value);
        l->limit = count > 0 ? count : -1;
    } else if (size == 9 && !strncasecmp(what, "remaining", 9)) {
        l->remaining = count_parse(value);
    } else if (size == 5 && !strncasecmp(what, "reset", 5)) {
        int64_t ms = wait_parse_ms(value, unix_s);
        l->reset_ms = ms ? ms : -1;
    }
}

static limit_seen *limit_named(response_header *h, const char *name, size_t size) {
    static const char *const NAMES[LIMIT_KINDS] = {"requests", "tokens", "input-tokens",
                                                   "output-tokens"};
    for (int i = 0; i < LIMIT_KINDS; i++)
        if (size == strlen(NAMES[i]) && !strncasecmp(name, NAMES[i], size)) return &h->limits[i];
    return NULL;
}

// "x-ratelimit-WHAT-KIND" (OpenAI) and "anthropic-ratelimit-KIND-WHAT".
static void note_ratelimit(response_header *h, const char *name, size_t size, const char *value,
                           int64_t unix_s) {
    static const char OPENAI[] = "x-ratelimit-", ANTHROPIC[] = "anthropic-ratelimit-";
    const char *end = name + size;
    if (size > sizeof OPENAI && !strncasecmp(name, OPENAI, sizeof OPENAI - 1)) {
        const char *what = name + sizeof OPENAI - 1;
        const char *dash = memchr(what, '-', (size_t)(end - what));
        limit_seen *l = dash ? limit_named(h, dash + 1, (size_t)(end - dash - 1)) : NULL;
        if (l) note_limit(l, what, (size_t)(dash - what), value, unix_s);
    } else if (size > sizeof ANTHROPIC && !strncasecmp(name, ANTHROPIC, sizeof ANTHROPIC - 1)) {
        const char *kind = name + sizeof ANTHROPIC - 1;
        const char *dash = memrchr(kind, '-', (size_t)(end - kind));
        limit_seen *l = dash ? limit_named(h, kind, (size_t)(dash - kind)) : NULL;
        if (l) note_limit(l, dash + 1, (size_t)(end - dash - 1), value, unix_s);
    }
}

// ---- lines ----

static bool is_name(const char *name, size_t size, const char *wanted) {
    return size == strlen(wanted) && !strncasecmp(name, wanted, size);
}

static void note_field(response_header *h, const char *name, size_t size, const char *value,
                       int64_t unix_s) {
    if (is_name(name, size, "content-type")) {
        h->has_type = true;
        h->is_events = !strncasecmp(value, "text/event-stream", 17);
    } else if (is_name(name, size, "retry-after-ms")) {
        int64_t ms = bounded_ms(isdigit((unsigned char)*value) ? strtod(value, NULL) : 0);
        if (ms) h->retry_after_ms = ms; // finer than Retry-After, whichever comes first
    } else if (is_name(name, size, "retry-after")) {
        if (!h->retry_after_ms) h->retry_after_ms = wait_parse_ms(value, unix_s);
    } else {
        note_ratelimit(h, name, size, value, unix_s);
    }
}

static int status_of(const char *line, size_t size) {
    const char *space = memchr(line, ' ', size);
    if (!space || line + size - space < 4) return 0;
    int code = 0;
    for (int i = 1; i <= 3; i++) {
        if (!isdigit((unsigned char)space[i])) return 0;
        code = code * 10 + (space[i] - '0');
    }
    return code;
}

void response_header_line(response_header *h, const char *line, size_t size, int64_t unix_s) {
    while (size && (line[size - 1] == '\n' || line[size - 1] == '\r')) size--;
    if (size >= 5 && !strncasecmp(line, "HTTP/", 5)) {
        *h = response_header_make();
        h->http_status = status_of(line, size);
        return;
    }
    const char *colon = memchr(line, ':', size);
    if (!colon) return;
    const char *from = colon + 1, *end = line + size;
    while (from < end && (*from == ' ' || *from == '\t')) from++;
    while (end > from && (end[-1] == ' ' || end[-1] == '\t')) end--;
    char value[VALUE_MAX] = {0};
    if ((size_t)(end - from) >= sizeof value) return;
    memcpy(value, from, (size_t)(end - from));
    note_field(h, line, (size_t)(colon - line), value, unix_s);
}

// ---- what came of it ----

// Zero left and no word when there will be more: how Azure says that it does not know.
static limit_seen trusted(limit_seen l) {
    if (l.remaining == 0 && l.reset_ms < 0) l.remaining = -1;
    return l;
}

static limit_seen tokens_limit(const response_header *h) {
    limit_seen least = trusted(h->limits[LIMIT_TOKENS]);
    for (int i = LIMIT_INPUT_TOKENS; i <= LIMIT_OUTPUT_TOKENS; i++) {
        limit_seen l = trusted(h->limits[i]);
        if (l.remaining >= 0 && (least.remaining < 0 || l.remaining < least.remaining)) least = l;
    }
    return least;
}

codec_limits response_header_limits(const response_header *h) {
    limit_seen requests = trusted(h->limits[LIMIT_REQUESTS]), tokens = tokens_limit(h);
    return (codec_limits){.requests_limit = requests.limit,
                          .requests_remaining = requests.remaining,
                          .requests_reset_ms = requests.reset_ms,
                          .tokens_limit = tokens.limit,
                          .tokens_remaining = tokens.remaining,
                          .tokens_reset_ms = tokens.reset_ms};
}

int64_t response_header_wait_ms(const response_header *h) {
    if (h->retry_after_ms) return h->retry_after_ms;
    limit_seen requests = trusted(h->limits[LIMIT_REQUESTS]), tokens = tokens_limit(h);
    int64_t wait = 0;
    if (requests.remaining == 0) wait = requests.reset_ms;
    if (tokens.remaining == 0 && tokens.reset_ms > wait) wait = tokens.reset_ms;
    return wait;
}
