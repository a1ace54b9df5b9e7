// octant cost: what requests cost, here and outside, from the ledger of a coordinator, which may or
// may not run. Also checks a price file.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/commands.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/ledger/cost_show.h"

enum { OUTPUT_MAX = 64 << 20, MEMORY_MAX = 1 << 16, GPUS_MAX = 1 << 20 };
#define US INT64_C(1000000)
#define SECONDS_PER_DAY INT64_C(86400)

typedef struct cost_options {
    const char *data_dir, *by, *since, *until, *model, *key, *prices;
    int64_t gpus;
    double gpu_hour;
    bool json, check;
} cost_options;

// "2026-11-24" (its midnight, UTC), "7d" or "24h" (so long ago), NULL: `otherwise`.
static status read_moment(const char *text, const char *flag, int64_t otherwise, int64_t *us) {
    int64_t day;
    *us = otherwise;
    if (!text) return status_ok();
    if (prices_parse_day(text, &day)) {
        *us = day * SECONDS_PER_DAY * US;
        return status_ok();
    }
    char *end;
    long ago = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
    if (ago >= 0 && ago <= 100000 && (strcmp(end, "d") == 0 || strcmp(end, "h") == 0)) {
        *us = (clock_unix_seconds() - ago * (*end == 'd' ? SECONDS_PER_DAY : 3600)) * US;
        return status_ok();
    }
    return status_error(STATUS_INVALID_ARGUMENT,
                        "--%s %s: a day (2026-11-24, UTC) or so long ago (7d, 24h)", flag, text);
}

static status make_question(const cost_options *o, cost_question *q) {
    q->data_dir = o->data_dir;
    q->by = strcmp(o->by, "key") == 0   ? COST_BY_KEY
            : strcmp(o->by, "day") == 0 ? COST_BY_DAY
                                        : COST_BY_MODEL;
    q->model = o->model;
    q->key = o->key;
    q->gpu_hour_dollars = o->gpu_hour;
    q->now_s = clock_unix_seconds();
    TRY(read_moment(o->since, "since", 0, &q->since_us));
    return read_moment(o->until, "until", INT64_MAX, &q->until_us);
}

// Those that were asked for, else those of the coordinator; that these are gone is no reason to say
// nothing at all.
static status open_prices(const cost_options *o, prices **out) {
    if (o->prices) return prices_open(o->prices, out);
    char *path;
    TRY(cost_prices_path(o->data_dir, &path));
    if (!path) return status_ok();
    status s = prices_open(path, out);
    if (!status_is_ok(&s)) fprintf(stderr, "octant cost: %s\n", s.message);
    free(path);
    return status_ok();
}

static status show(const cost_options *o, const cost_question *q) {
    cost_report r;
    status s = cost_report_make(q, &r);
    buf out = buf_make(OUTPUT_MAX);
    if (status_is_ok(&s)) {
        if (o->json)
            cost_show_json(&r, q->by, (int)o->gpus, &out);
        else
            cost_show_text(&r, q->by, (int)o->gpus, &out);
        fputs(buf_string(&out), stdout);
    }
    buf_free(&out);
    cost_report_free(&r);
    return s;
}

static status check(const cost_options *o) {
    prices *p;
    TRY(prices_open(o->prices, &p));
    size_t known = 0, count = prices_count(p);
    for (size_t i = 0; i < count; i++) {
        const price_row *row = prices_at(p, i);
        known += prices_find(p, row->model, clock_unix_seconds()) == row;
    }
    printf("%s: %zu rows, %zu in force today\n", o->prices, count, known);
    prices_close(p);
    return status_ok();
}

static status run(const cost_options *o) {
    if (o->check) return check(o);
    cost_question q = {0};
    prices *p = NULL;
    TRY(make_question(o, &q));
    TRY(open_prices(o, &p));
    q.prices = p;
    status s = show(o, &q);
    prices_close(p);
    return s;
}

static status parse(cost_options *o, int argc, char **argv, arena *memory, config_action *action) {
    const config_option options[] = {
        {"data-dir", CONFIG_STRING, &o->data_dir, 0, 0, NULL, "DIR", "of the coordinator"},
        {"by", CONFIG_CHOICE, &o->by, 0, 0, "model|key|day", NULL, "a line for each"},
        {"since", CONFIG_STRING, &o->since, 0, 0, NULL, "DAY|7d|24h", "not before"},
        {"until", CONFIG_STRING, &o->until, 0, 0, NULL, "DAY|7d|24h", "before"},
        {"model", CONFIG_STRING, &o->model, 0, 0, NULL, "NAME", "requests for this model only"},
        {"key", CONFIG_STRING, &o->key, 0, 0, NULL, "NAME", "of this key only: key:NAME"},
        {"gpu-hour", CONFIG_FLOAT, &o->gpu_hour, 0, 1e6, NULL, "DOLLARS",
         "of one GPU; 0: as booked"},
        {"gpus", CONFIG_INT, &o->gpus, 1, GPUS_MAX, NULL, NULL,
         "how many are paid for, for the break-even"},
        {"prices", CONFIG_STRING, &o->prices, 0, 0, NULL, "FILE",
         "prices to compare with; none: the coordinator's"},
        {"json", CONFIG_BOOL, &o->json, 0, 0, NULL, NULL, "for programs"},
        {"check", CONFIG_BOOL, &o->check, 0, 0, NULL, NULL, "only check --prices FILE"},
    };
    config_program program = {
        .name = "octant cost",
        .synopsis = "--data-dir DIR [options]",
        .about = "Prints what requests cost, here and at upstreams, from the coordinator's ledger: "
                 "by model, key or\nday; what failover cost; what one ticket costs here and at the "
                 "price list, and from how many a day\none's own GPUs are cheaper.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    const char *words[argc];
    int word_count = 0;
    TRY(config_parse(&program, argc, argv, memory, words, &word_count, action));
    if (*action != CONFIG_RUN) return status_ok();
    if (word_count > 0) return status_error(STATUS_INVALID_ARGUMENT, "unexpected '%s'", words[0]);
    if (o->check && !o->prices)
        return status_error(STATUS_INVALID_ARGUMENT, "--check needs --prices FILE");
    if (!o->check && !o->data_dir)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--data-dir is missing: the directory that the coordinator was given");
    return status_ok();
}

int command_cost(int argc, char **argv) {
    cost_options o = {.by = "model", .gpus = 1};
    config_action action = CONFIG_RUN;
    arena *memory = arena_create(MEMORY_MAX);
    status s = memory ? parse(&o, argc, argv, memory, &action)
                      : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    int code = 2;
    if (status_is_ok(&s)) {
        if (action == CONFIG_RUN) s = run(&o);
        code = status_is_ok(&s) ? 0 : 1;
    }
    if (!status_is_ok(&s)) fprintf(stderr, "octant cost: %s\n", s.message);
    arena_destroy(memory);
    return code;
}
