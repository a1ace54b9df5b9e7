// octant route explain: where a request would go under an octant.yaml, and why: the coordinator's
// own router with facts that are told instead of measured. Sends nothing anywhere.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/commands.h"
#include "client/route_request.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/json.h"
#include "common/ledger/prices.h"
#include "coordinator/route/contents.h"
#include "coordinator/route/policy_file.h"

enum { ROUTE_MEMORY_MAX = 64 << 20, LINE_MAX_BYTES = 64 << 20 };

typedef struct explainer {
    const char *config, *prices_path, *key, *privacy, *at, *absent;
    double spent, spent_all;
    int64_t time_left_ns;
    bool json;
    int64_t now;
    routing_policy *policy;
    prices *prices;
} explainer;

// ---- facts ----

static bool is_absent(const explainer *e, const char *model) {
    size_t size = strlen(model);
    for (const char *at = e->absent; at && *at;
         at += strcspn(at, ",") + (at[strcspn(at, ",")] != 0))
        if (strcspn(at, ",") == size && strncmp(at, model, size) == 0) return true;
    return false;
}

static void set_costs(const explainer *e, route_facts *f) {
    price_usage usage = {.input = f->prompt_tokens,
                         .output = f->max_tokens >= 0 ? f->max_tokens : CONTENTS_ANSWER_TOKENS};
    for (int i = 0; i < e->policy->upstreams.count; i++) {
        const upstream_policy *u = &e->policy->upstreams.items[i];
        int64_t nano = prices_cost(e->prices, u->price ? u->price : u->model, e->now, &usage);
        f->costs[i] = nano < 0 ? -1 : (nano + 999) / 1000;
    }
}

static status set_facts(const explainer *e, json_t *body, arena *memory, route_facts *f,
                        complexity_score *score) {
    *f = (route_facts){.key = e->key ? e->key : "",
                       .privacy = e->privacy,
                       .now = e->now,
                       .time_left_ns = e->time_left_ns,
                       .spent_key = (int64_t)(e->spent * 1e6),
                       .spent_all = (int64_t)(e->spent_all * 1e6),
                       .explain = true};
    TRY(route_request_read(body, e->policy, memory, f, score));
    const char *local = router_resolve(e->policy, f->model).local;
    f->local_known = local && !is_absent(e, local);
    // The same body, the same turn: FNV-1a of its bytes stands for the request's id.
    char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    f->id = UINT64_C(14695981039346656037);
    for (const char *c = text; c && *c; c++)
        f->id = (f->id ^ (unsigned char)*c) * UINT64_C(1099511628211);
    free(text);
    set_costs(e, f);
    return status_ok();
}

// ---- showing ----

static void show_text(const explainer *e, const route_decision *d, const complexity_score *score) {
    const core_route *r = &d->route;
    for (int i = 0; i < d->trail_count; i++) printf("  %s\n", d->trail[i]);
    printf("complexity: %s (%.2f:", complexity_level_name(score->level), score->score);
    for (int i = 0; i < COMPLEXITY_FEATURES; i++)
        if (score->features[i] != 0)
            printf(" %s %.2f", complexity_feature_name((complexity_feature)i), score->features[i]);
    printf(")\ndecision:   %s\n", r->rule);
    if (d->refused.code != STATUS_OK) {
        printf("refused:    %s: %s\n", status_code_name(d->refused.code), d->refused.message);
        return;
    }
    printf("first:      %s\nthen:       ", r->upstream_first ? "upstreams" : "our groups");
    if (!r->upstream_count) printf("nobody else");
    for (int i = 0; i < r->upstream_count; i++)
        printf("%s%s", i ? ", " : "", e->policy->upstreams.items[r->upstreams[i]].name);
    if (r->upstream_count && r->upstream_first && r->local) printf("; our groups");
    printf("\n");
    if (r->upstream_count) printf("mid-stream: %s\n", midstream_policy_name(r->midstream));
}

static json_t *score_json(const complexity_score *score) {
    json_t *features = json_object();
    for (int i = 0; i < COMPLEXITY_FEATURES; i++)
        json_object_set_new(features, complexity_feature_name((complexity_feature)i),
                            json_real(score->features[i]));
    return json_pack("{s:s, s:f, s:o}", "level", complexity_level_name(score->level), "score",
                     score->score, "features", features);
}

static void show_json(const explainer *e, const route_decision *d, const complexity_score *score) {
    const core_route *r = &d->route;
    json_t *upstreams = json_array(), *trail = json_array();
    for (int i = 0; i < r->upstream_count; i++)
        json_array_append_new(upstreams,
                              json_string(e->policy->upstreams.items[r->upstreams[i]].name));
    for (int i = 0; i < d->trail_count; i++) json_array_append_new(trail, json_string(d->trail[i]));
    bool refused = d->refused.code != STATUS_OK;
    json_t *all = json_pack("{s:s, s:s, s:b, s:b, s:o, s:s, s:f, s:I, s:o, s:s?, s:o}", "privacy",
                            privacy_class_name(r->privacy), "rule", r->rule, "local", r->local,
                            "upstream_first", r->upstream_first, "upstreams", upstreams,
                            "midstream", midstream_policy_name(r->midstream), "spill_seconds",
                            (double)r->spill_ns / 1e9, "cost_limit_microdollars",
                            (json_int_t)r->cost_limit, "complexity", score_json(score), "refused",
                            refused ? d->refused.message : NULL, "trail", trail);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(all);
}

// ---- one request, or one a line ----

static status explain(const explainer *e, const char *bytes, size_t size) {
    json_t *body = NULL;
    TRY(json_parse(bytes, size, &body));
    arena *memory = arena_create(ROUTE_MEMORY_MAX);
    route_decision *d = memory ? arena_alloc(memory, sizeof *d) : NULL;
    route_facts f;
    complexity_score score;
    status s = d ? set_facts(e, body, memory, &f, &score)
                 : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    if (status_is_ok(&s) && !router_decide(e->policy, &f, memory, d))
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the decision");
    if (status_is_ok(&s)) (e->json ? show_json : show_text)(e, d, &score);
    arena_destroy(memory);
    json_decref(body);
    return s;
}

static status explain_lines(const explainer *e, FILE *file, const char *path) {
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    status s = status_ok();
    for (int number = 1; status_is_ok(&s) && (size = getline(&line, &room, file)) > 0; number++) {
        if (strspn(line, " \t\r\n") == (size_t)size) continue;
        s = status_context(explain(e, line, (size_t)size), "%s:%d", path, number);
    }
    free(line);
    return s;
}

static status explain_whole(const explainer *e, FILE *file, const char *path) {
    buf all = buf_make(LINE_MAX_BYTES);
    char part[1 << 14];
    size_t got;
    while ((got = fread(part, 1, sizeof part, file)) > 0 && buf_append(&all, part, got)) {
    }
    status s = all.failed
                   ? status_error(STATUS_INVALID_ARGUMENT, "the request is larger than 64 MiB")
                   : explain(e, buf_string(&all), all.size);
    buf_free(&all);
    return status_context(s, "%s", path);
}

static status explain_file(const explainer *e, const char *path) {
    bool input = strcmp(path, "-") == 0;
    FILE *file = input ? stdin : fopen(path, "re");
    if (!file) return status_error(STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    const char *dot = strrchr(path, '.');
    bool lines = dot && strcmp(dot, ".jsonl") == 0;
    status s = (lines ? explain_lines : explain_whole)(e, file, path);
    if (!input) fclose(file);
    return s;
}

// ---- the command ----

static status read_time(explainer *e) {
    struct tm t = {0};
    e->now = clock_unix_seconds();
    if (!e->at) return status_ok();
    const char *end = strptime(e->at, "%Y-%m-%d %H:%M", &t);
    if (!end || *end)
        return status_error(STATUS_INVALID_ARGUMENT, "--at '%s' is not YYYY-MM-DD HH:MM", e->at);
    e->now = (int64_t)timegm(&t);
    return status_ok();
}

static status parse(explainer *e, int argc, char **argv, arena *memory, const char **words,
                    int *word_count, config_action *action) {
    const config_option options[] = {
        {"config", CONFIG_STRING, &e->config, 0, 0, NULL, "PATH", "octant.yaml with the policy"},
        {"prices", CONFIG_STRING, &e->prices_path, 0, 0, NULL, "PATH",
         "price file; none: no price is known, and whatever has a cost limit stays"},
        {"key", CONFIG_STRING, &e->key, 0, 0, NULL, "NAME", "of the API key; none: nobody's"},
        {"privacy", CONFIG_STRING, &e->privacy, 0, 0, NULL, "CLASS",
         "what the client sends as header octant-privacy"},
        {"at", CONFIG_STRING, &e->at, 0, 0, NULL, "TIME", "YYYY-MM-DD HH:MM in UTC; none: now"},
        {"time-left", CONFIG_DURATION, &e->time_left_ns, 0, 86400e9, NULL, NULL,
         "from now to the request's deadline"},
        {"spent", CONFIG_FLOAT, &e->spent, 0, 1e9, NULL, NULL, "dollars that the key spent today"},
        {"spent-all", CONFIG_FLOAT, &e->spent_all, 0, 1e9, NULL, NULL,
         "dollars that all keys spent today"},
        {"absent", CONFIG_STRING, &e->absent, 0, 0, NULL, "NAME,NAME",
         "models that no group has brought; every other name is ours"},
        {"json", CONFIG_BOOL, &e->json, 0, 0, NULL, NULL, "one line of JSON for each request"},
    };
    const config_program program = {
        .name = "octant route",
        .synopsis = "explain --config octant.yaml [options] REQUEST.json ...",
        .about = "Says where a chat request (the body of POST /v1/chat/completions) would go under "
                 "an octant.yaml, and why. Sends nothing. '-' reads standard input, a file that "
                 "ends in .jsonl has one request a line.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    TRY(config_parse(&program, argc, argv, memory, words, word_count, action));
    if (*action != CONFIG_RUN) return status_ok();
    if (*word_count < 2 || strcmp(words[0], "explain") != 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "expected 'explain REQUEST.json'; see octant route --help");
    if (!e->config) return status_error(STATUS_INVALID_ARGUMENT, "--config is missing");
    return read_time(e);
}

static status run(explainer *e, const char *const *paths, int count) {
    TRY(policy_file_read(e->config, &e->policy));
    if (e->prices_path) TRY(prices_open(e->prices_path, &e->prices));
    for (int i = 0; i < count; i++) TRY(explain_file(e, paths[i]));
    return status_ok();
}

int command_route(int argc, char **argv) {
    explainer e = {.time_left_ns = 600 * CLOCK_SECOND};
    const char *words[argc + 1];
    int word_count = 0, code = 2;
    config_action action = CONFIG_RUN;
    arena *memory = arena_create(1 << 20);
    status s = memory ? parse(&e, argc, argv, memory, words, &word_count, &action)
                      : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    if (status_is_ok(&s)) {
        code = 0;
        if (action == CONFIG_RUN) s = run(&e, words + 1, word_count - 1);
        if (!status_is_ok(&s)) code = 1;
    }
    if (!status_is_ok(&s)) fprintf(stderr, "octant route: %s\n", s.message);
    prices_close(e.prices);
    routing_policy_free(e.policy);
    arena_destroy(memory);
    return code;
}
