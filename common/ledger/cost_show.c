#include "common/ledger/cost_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/json.h"

enum { DOLLARS_TEXT = 32, COUNT_TEXT = 32 };

static const char *by_name(cost_by by) {
    return by == COST_BY_KEY ? "key" : by == COST_BY_DAY ? "day" : "model";
}

// ---- text ----

// Six decimals down to a microdollar, two from a hundred dollars on.
static const char *money(double dollars, char text[DOLLARS_TEXT]) {
    if (dollars < 0)
        snprintf(text, DOLLARS_TEXT, "unknown");
    else
        snprintf(text, DOLLARS_TEXT, "%.*f", dollars >= 100 ? 2 : dollars >= 1 ? 4 : 6, dollars);
    return text;
}

// 1234567 as "1,234,567".
static const char *count(int64_t n, char text[COUNT_TEXT]) {
    char digits[COUNT_TEXT];
    int size = snprintf(digits, sizeof digits, "%" PRId64, n), at = 0;
    for (int i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0 && digits[i - 1] != '-') text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

static void line_text(const cost_line *l, int width, buf *out) {
    char a[COUNT_TEXT], b[COUNT_TEXT], c[COUNT_TEXT], d[COUNT_TEXT], e[COUNT_TEXT];
    char here[DOLLARS_TEXT], outside[DOLLARS_TEXT];
    buf_printf(out, "%-*s %9s %7s %13s %13s %12s %10.1f %12s %7" PRId64 " %12s", width, l->name,
               count(l->requests, a), count(l->errors, b), count(l->prompt, c), count(l->cached, d),
               count(l->completion, e), l->gpu_seconds, money(l->here, here), l->calls,
               money(l->outside, outside));
    if (l->unpriced) buf_printf(out, "  + %" PRId64 " calls without a price", l->unpriced);
    if (l->estimated) buf_printf(out, "  (%" PRId64 " estimated)", l->estimated);
    buf_append_char(out, '\n');
}

static void lines_text(const cost_report *r, cost_by by, buf *out) {
    int width = 10;
    for (size_t i = 0; i < r->line_count; i++) {
        int size = (int)strlen(r->lines[i].name);
        if (size > width) width = size;
    }
    buf_printf(out, "%-*s %9s %7s %13s %13s %12s %10s %12s %7s %12s\n", width, by_name(by),
               "requests", "errors", "prompt", "of it cached", "answer", "GPU-s", "here $", "calls",
               "outside $");
    for (size_t i = 0; i < r->line_count; i++) line_text(&r->lines[i], width, out);
    if (r->line_count != 1) line_text(&r->total, width, out);
    if (r->rows_lost)
        buf_printf(out,
                   "\n%" PRId64 " rows are missing from all sums: the ledger's disk was too slow\n",
                   r->rows_lost);
}

static void upstreams_text(const cost_report *r, buf *out) {
    char a[COUNT_TEXT], b[COUNT_TEXT], c[COUNT_TEXT], d[DOLLARS_TEXT];
    if (r->upstream_count == 0) return;
    buf_printf(out, "\n%-16s %-24s %7s %7s %9s %13s %13s %12s %12s\n", "upstream", "model", "calls",
               "ok", "failover", "prompt", "of it cached", "answer", "$");
    for (size_t i = 0; i < r->upstream_count; i++) {
        const cost_upstream *u = &r->upstreams[i];
        buf_printf(out, "%-16s %-24s %7" PRId64 " %7" PRId64 " %9" PRId64 " %13s %13s %12s %12s",
                   u->name, u->model, u->calls, u->ok, u->failover, count(u->input, a),
                   count(u->cached, b), count(u->output, c), money(u->dollars, d));
        if (u->unpriced) buf_printf(out, "  + %" PRId64 " calls without a price", u->unpriced);
        buf_append_char(out, '\n');
    }
}

static void failover_text(const cost_report *r, buf *out) {
    char a[DOLLARS_TEXT], b[DOLLARS_TEXT];
    if (r->failover_calls == 0) {
        buf_printf(out, "\nfailover: no request that was to be served here left\n");
        return;
    }
    buf_printf(out,
               "\nfailover: %" PRId64 " requests that were to be served here left in %" PRId64
               " calls and cost $%s outside",
               r->failover_requests, r->failover_calls, money(r->failover_dollars, a));
    if (r->failover_unpriced)
        buf_printf(out, " (and %" PRId64 " calls without a price)", r->failover_unpriced);
    if (r->failover_here >= 0)
        buf_printf(out, "; as many tokens here: about $%s", money(r->failover_here, b));
    buf_append_char(out, '\n');
}

static void offer_text(const cost_offer *o, const cost_ticket *t, int gpus, buf *out) {
    char there[DOLLARS_TEXT], tickets[COUNT_TEXT], tokens[COUNT_TEXT];
    buf_printf(out, "%-24s %14s", o->row->model,
               money(o->there < 0 ? o->there : 1000 * o->there, there));
    if (o->tickets_per_day >= 0) {
        double a_day = gpus * o->tickets_per_day;
        buf_printf(out, " %14s %15s", count((int64_t)(a_day + 0.5), tickets),
                   count((int64_t)(a_day * (t->prompt + t->completion) + 0.5), tokens));
        if (o->share > 1)
            buf_printf(out, "   never: %.0f %% of what it can do", 100 * o->share);
        else
            buf_printf(out, "   at %.2g %% of what it can do", 100 * o->share);
    }
    buf_printf(out, "   (%s, %s)\n", o->row->vendor ? o->row->vendor : "?", o->row->seen);
}

static void ticket_text(const cost_report *r, int gpus, buf *out) {
    const cost_ticket *t = &r->ticket;
    char here[DOLLARS_TEXT], n[COUNT_TEXT];
    if (t->count == 0) {
        buf_printf(out, "\none ticket: no request was answered here, so nothing to compare\n");
        return;
    }
    buf_printf(out,
               "\none ticket (mean of %s answered here): %.1f prompt tokens, %.1f of them cached, "
               "%.1f of answer, %.4g GPU-seconds\n",
               count(t->count, n), t->prompt, t->cached, t->completion, t->gpu_seconds);
    if (t->gpu_hour_dollars <= 0)
        buf_printf(out, "what it costs here is unknown: give --gpu-hour DOLLARS, or local-cost: in "
                        "octant.yaml\n");
    buf_printf(out, "\n%-24s %14s %14s %15s\n", "", "$ of a", "tickets/day", "tokens/day");
    buf_printf(out, "%-24s %14s %14s %15s\n", "", "1000 tickets", "to break even", "to break even");
    buf_printf(out, "%-24s %14s", "here", money(t->here < 0 ? t->here : 1000 * t->here, here));
    if (t->gpu_hour_dollars > 0)
        buf_printf(out, "   while busy; %d GPU%s at $%g an hour, paid day and night", gpus,
                   gpus == 1 ? "" : "s", t->gpu_hour_dollars);
    buf_append_char(out, '\n');
    for (size_t i = 0; i < r->offer_count; i++) offer_text(&r->offers[i], t, gpus, out);
    if (r->offer_count > 0)
        buf_printf(out, "List prices as read on the dates shown; cached as much as here.\n");
}

void cost_show_text(const cost_report *r, cost_by by, int gpus, buf *out) {
    lines_text(r, by, out);
    upstreams_text(r, out);
    failover_text(r, out);
    ticket_text(r, gpus, out);
}

// ---- JSON ----

static void name(buf *out, const char *text) {
    json_append_string(out, text, strlen(text));
}

static void number(buf *out, const char *field, double value) {
    buf_printf(out, ",\"%s\":", field);
    if (value < 0)
        buf_append_string(out, "null");
    else
        json_append_number(out, value);
}

static void line_json(const cost_line *l, buf *out) {
    buf_append_string(out, "{\"name\":");
    name(out, l->name);
    buf_printf(out,
               ",\"requests\":%" PRId64 ",\"errors\":%" PRId64 ",\"prompt_tokens\":%" PRId64
               ",\"cached_tokens\":%" PRId64 ",\"completion_tokens\":%" PRId64 ",\"calls\":%" PRId64
               ",\"unpriced_calls\":%" PRId64 ",\"estimated_calls\":%" PRId64,
               l->requests, l->errors, l->prompt, l->cached, l->completion, l->calls, l->unpriced,
               l->estimated);
    number(out, "gpu_seconds", l->gpu_seconds);
    number(out, "here_dollars", l->here);
    number(out, "outside_dollars", l->outside);
    buf_append_char(out, '}');
}

static void upstream_json(const cost_upstream *u, buf *out) {
    buf_append_string(out, "{\"name\":");
    name(out, u->name);
    buf_append_string(out, ",\"model\":");
    name(out, u->model);
    buf_printf(out,
               ",\"calls\":%" PRId64 ",\"ok\":%" PRId64 ",\"failover\":%" PRId64
               ",\"unpriced_calls\":%" PRId64 ",\"estimated_calls\":%" PRId64
               ",\"input_tokens\":%" PRId64 ",\"cached_tokens\":%" PRId64
               ",\"written_tokens\":%" PRId64 ",\"output_tokens\":%" PRId64,
               u->calls, u->ok, u->failover, u->unpriced, u->estimated, u->input, u->cached,
               u->written, u->output);
    number(out, "dollars", u->dollars);
    buf_append_char(out, '}');
}

static void offer_json(const cost_offer *o, const cost_ticket *t, int gpus, buf *out) {
    double a_day = o->tickets_per_day < 0 ? o->tickets_per_day : gpus * o->tickets_per_day;
    buf_append_string(out, "{\"model\":");
    name(out, o->row->model);
    buf_append_string(out, ",\"seen\":");
    name(out, o->row->seen);
    number(out, "ticket_dollars", o->there);
    number(out, "break_even_tickets_per_day", a_day);
    number(out, "break_even_tokens_per_day",
           a_day < 0 ? a_day : a_day * (t->prompt + t->completion));
    number(out, "break_even_share_of_capacity", o->share);
    buf_append_char(out, '}');
}

static void rest_json(const cost_report *r, int gpus, buf *out) {
    const cost_ticket *t = &r->ticket;
    buf_printf(out,
               ",\"failover\":{\"requests\":%" PRId64 ",\"calls\":%" PRId64
               ",\"unpriced_calls\":%" PRId64 ",\"tokens\":%" PRId64,
               r->failover_requests, r->failover_calls, r->failover_unpriced, r->failover_tokens);
    number(out, "outside_dollars", r->failover_dollars);
    number(out, "here_dollars", r->failover_here);
    buf_printf(out, "},\"ticket\":{\"count\":%" PRId64, t->count);
    number(out, "prompt_tokens", t->prompt);
    number(out, "cached_tokens", t->cached);
    number(out, "completion_tokens", t->completion);
    number(out, "gpu_seconds", t->gpu_seconds);
    number(out, "here_dollars", t->count ? t->here : COST_UNKNOWN);
    number(out, "gpu_hour_dollars", t->gpu_hour_dollars > 0 ? t->gpu_hour_dollars : COST_UNKNOWN);
    buf_append_string(out, "},\"offers\":[");
    for (size_t i = 0; i < r->offer_count; i++) {
        if (i) buf_append_char(out, ',');
        offer_json(&r->offers[i], t, gpus, out);
    }
    buf_printf(out, "],\"gpus\":%d,\"rows_lost\":%" PRId64 "}\n", gpus, r->rows_lost);
}

void cost_show_json(const cost_report *r, cost_by by, int gpus, buf *out) {
    buf_printf(out, "{\"by\":\"%s\",\"lines\":[", by_name(by));
    for (size_t i = 0; i < r->line_count; i++) {
        if (i) buf_append_char(out, ',');
        line_json(&r->lines[i], out);
    }
    buf_append_string(out, "],\"total\":");
    line_json(&r->total, out);
    buf_append_string(out, ",\"upstreams\":[");
    for (size_t i = 0; i < r->upstream_count; i++) {
        if (i) buf_append_char(out, ',');
        upstream_json(&r->upstreams[i], out);
    }
    buf_append_char(out, ']');
    rest_json(r, gpus, out);
}
