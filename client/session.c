#include "client/session.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/interrupt.h"
#include "client/show.h"
#include "common/base/clock.h"
#include "common/model/shard_plan.h"

void session_add(session *s, config_option option) {
    if (s->option_count < SESSION_OPTIONS_MAX) s->options[s->option_count++] = option;
}

static void add_connection(session *s) {
    session_add(s, (config_option){"server", CONFIG_STRING, &s->server, 0, 0, NULL, "HOST:PORT",
                                   "gRPC address of the coordinator"});
    session_add(s, (config_option){"model", CONFIG_STRING, &s->model, 0, 0, NULL, "NAME",
                                   "which model, where the server has several"});
    session_add(s,
                (config_option){"api-key-file", CONFIG_STRING, &s->api_key_file, 0, 0, NULL, "PATH",
                                "file with the key to send; without it OCTANT_API_KEY, if set"});
}

static void add_cluster(session *s, bool optional) {
    if (optional)
        session_add(
            s, (config_option){
                   "up", CONFIG_STRING, &s->up, 0, 0, NULL, "MODEL",
                   "start a coordinator and a group with this model, and stop them at the end"});
    session_add(s, (config_option){"ranks", CONFIG_INT, &s->ranks, 1, 1024, NULL, NULL,
                                   "tensor-parallel ranks of a group"});
    session_add(s, (config_option){"stages", CONFIG_INT, &s->stages, 1, SHARD_STAGES_MAX, NULL,
                                   NULL, "cut the layers into so many stages of these ranks"});
    session_add(s, (config_option){"threads", CONFIG_INT, &s->threads, 0, 1024, NULL, NULL,
                                   "threads of each rank; 0 shares out the cores"});
    session_add(s, (config_option){"kv-memory", CONFIG_STRING, &s->kv_memory, 0, 0, NULL, "SIZE",
                                   "KV cache of each rank, as octant-worker takes it"});
    session_add(s, (config_option){"name", CONFIG_STRING, &s->name, 0, 0, NULL, "NAME",
                                   "what clients call the model"});
    session_add(s, (config_option){"http", CONFIG_STRING, &s->http, 0, 0, NULL, "HOST:PORT",
                                   "where the coordinator's HTTP listens; port 0: a free one"});
    session_add(s, (config_option){"grpc", CONFIG_STRING, &s->grpc, 0, 0, NULL, "HOST:PORT",
                                   "where its gRPC listens; port 0: a free one"});
    session_add(s, (config_option){"ready-timeout", CONFIG_DURATION, &s->ready_timeout_ns, 1e9,
                                   86400e9, NULL, NULL, "longest wait for the model to load"});
    session_add(s, (config_option){"keep-logs", CONFIG_BOOL, &s->keep_logs, 0, 0, NULL, NULL,
                                   "leave the folder with the cluster's logs"});
}

// What only a cluster that stays needs.
static void add_standing(session *s) {
    session_add(s, (config_option){"groups", CONFIG_INT, &s->groups, 1, LOCAL_CLUSTER_GROUPS_MAX,
                                   NULL, NULL, "groups that serve the model side by side"});
    session_add(s, (config_option){"spares", CONFIG_INT, &s->spares, 0, LOCAL_CLUSTER_GROUPS_MAX,
                                   NULL, NULL, "more groups, that stand by for a lost one"});
    session_add(s, (config_option){"routing", CONFIG_STRING, &s->routing, 0, 0, NULL, "FILE",
                                   "octant.yaml: upstreams, privacy, routes, budgets"});
    session_add(s, (config_option){"data-dir", CONFIG_STRING, &s->data_dir, 0, 0, NULL, "DIR",
                                   "where usage and the audit are kept; without it nothing may "
                                   "leave"});
    session_add(s, (config_option){"prices", CONFIG_STRING, &s->prices, 0, 0, NULL, "FILE",
                                   "what upstreams cost (deploy/prices.json)"});
    session_add(s, (config_option){"api-keys", CONFIG_STRING, &s->api_keys, 0, 0, NULL, "PATH",
                                   "file with one \"NAME KEY\" a line; none: anybody may ask"});
    session_add(s, (config_option){"event-log", CONFIG_STRING, &s->event_log, 0, 0, NULL, "FILE",
                                   "what happens to groups and upstreams, a line of JSON each"});
    session_add(s,
                (config_option){"drain-timeout", CONFIG_DURATION, &s->drain_timeout_ns, 1e9, 3600e9,
                                NULL, NULL, "how long running requests may go on after Ctrl-C"});
}

static void add_generation(session *s) {
    session_add(s, (config_option){"max-tokens", CONFIG_INT, &s->max_tokens, 0, 1e9, NULL, NULL,
                                   "longest answer [tokens]; 0: what the context holds"});
    session_add(s, (config_option){"temperature", CONFIG_FLOAT, &s->temperature, 0, 2, NULL, NULL,
                                   "0 is greedy"});
    session_add(s, (config_option){"top-k", CONFIG_INT, &s->top_k, 0, 1e9, NULL, NULL,
                                   "sample among the k likeliest; 0: all"});
    session_add(s, (config_option){"top-p", CONFIG_FLOAT, &s->top_p, 0, 1, NULL, NULL,
                                   "sample among the likeliest that make up p"});
    session_add(s, (config_option){"min-p", CONFIG_FLOAT, &s->min_p, 0, 1, NULL, NULL,
                                   "drop tokens less likely than this share of the likeliest"});
    session_add(s, (config_option){"repetition-penalty", CONFIG_FLOAT, &s->repetition_penalty, 0.01,
                                   10, NULL, NULL, "above 1 discourages repetition"});
    session_add(s, (config_option){"seed", CONFIG_INT, &s->seed, -1, 9e15, NULL, NULL,
                                   "same seed, same answer; -1: random"});
    session_add(s, (config_option){"system", CONFIG_STRING, &s->system, 0, 0, NULL, "TEXT",
                                   "system message"});
    session_add(s, (config_option){"ignore-eos", CONFIG_BOOL, &s->ignore_eos, 0, 0, NULL, NULL,
                                   "go on to --max-tokens"});
    session_add(s, (config_option){"stats", CONFIG_BOOL, &s->stats, 0, 0, NULL, NULL,
                                   "print tokens/s on standard error"});
    session_add(s, (config_option){"timeout", CONFIG_DURATION, &s->timeout_ns, 1e6, 86400e9, NULL,
                                   NULL, "longest wait for an answer"});
}

status session_create(session *s, int parts) {
    *s = (session){.server = "127.0.0.1:50051",
                   .http = "127.0.0.1:8080",
                   .grpc = "127.0.0.1:50051",
                   .ranks = 1,
                   .groups = 1,
                   .drain_timeout_ns = 30 * CLOCK_SECOND,
                   .stages = 1,
                   .ready_timeout_ns = 600 * CLOCK_SECOND,
                   .temperature = 1,
                   .top_p = 1,
                   .repetition_penalty = 1,
                   .seed = -1,
                   .timeout_ns = 600 * CLOCK_SECOND};
    s->memory = arena_create(1 << 20);
    if (!s->memory) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    if (parts & SESSION_CONNECTION) add_connection(s);
    if (parts & SESSION_CLUSTER) add_cluster(s, (parts & SESSION_CONNECTION) != 0);
    if (parts & SESSION_STANDING) add_standing(s);
    if (parts & SESSION_GENERATION) add_generation(s);
    return status_ok();
}

// A value counts only where it differs from the server's own default.
static void fill_sampling(session *s) {
    octant_sampling *p = &s->sampling;
    *p = (octant_sampling){.max_tokens = (int)s->max_tokens,
                           .top_k = (int)s->top_k,
                           .temperature = (float)s->temperature,
                           .top_p = (float)s->top_p,
                           .min_p = (float)s->min_p,
                           .seed = (uint64_t)s->seed,
                           .repetition_penalty = (float)s->repetition_penalty,
                           .ignore_eos = s->ignore_eos};
    p->set = OCTANT_TEMPERATURE | OCTANT_TOP_K | OCTANT_MIN_P | OCTANT_REPETITION_PENALTY |
             OCTANT_IGNORE_EOS;
    if (s->max_tokens > 0) p->set |= OCTANT_MAX_TOKENS;
    if (s->top_p > 0) p->set |= OCTANT_TOP_P;
    if (s->seed >= 0) p->set |= OCTANT_SEED;
}

status session_parse(session *s, const char *command, const char *synopsis, const char *about,
                     int argc, char **argv, const char **words, int *word_count,
                     config_action *action) {
    char name[64];
    snprintf(name, sizeof name, "octant %s", command);
    config_program program = {name, NULL, synopsis, about, s->options, s->option_count};
    TRY(config_parse(&program, argc, argv, s->memory, words, word_count, action));
    fill_sampling(s);
    return status_ok();
}

static void on_loading(void *user, const local_cluster *c, const octant_group *const groups[]) {
    static_assert(SHOW_LOADING_MAX >= 2 * LOCAL_CLUSTER_GROUPS_MAX, "a line for each group");
    const char *labels[2 * LOCAL_CLUSTER_GROUPS_MAX];
    bool ready = true;
    for (int i = 0; i < c->group_count; i++) {
        labels[i] = c->groups[i].label;
        ready = ready && c->groups[i].serves;
    }
    (ready ? show_loading_end : show_loading_update)(user, labels, groups, c->group_count);
}

static status open_cluster(session *s) {
    // A cluster for one command takes free ports: another one may be serving on the usual ones.
    bool temporary = s->up != NULL && s->server != NULL;
    local_cluster_options o = {.model = s->up,
                               .name = s->name,
                               .ranks = (int)s->ranks,
                               .groups = (int)s->groups,
                               .spares = (int)s->spares,
                               .stages = (int)s->stages,
                               .threads = (int)s->threads,
                               .http = temporary ? "127.0.0.1:0" : s->http,
                               .grpc = temporary ? "127.0.0.1:0" : s->grpc,
                               .kv_memory = s->kv_memory,
                               .api_keys = s->api_keys,
                               .routing = s->routing,
                               .data_dir = s->data_dir,
                               .prices = s->prices,
                               .event_log = s->event_log,
                               .drain_seconds = (int)(s->drain_timeout_ns / CLOCK_SECOND)};
    show_loading lines = show_loading_start();
    status st = local_cluster_start(&s->cluster, &o);
    s->cluster_runs = status_is_ok(&st);
    if (status_is_ok(&st))
        st = local_cluster_wait_ready(&s->cluster, clock_now_ns() + s->ready_timeout_ns, on_loading,
                                      &lines);
    if (status_is_ok(&st))
        s->server = s->cluster.grpc;
    else
        show_loading_end(&lines, NULL, NULL, 0);
    return st;
}

// The first line of the key file, or the environment's key: never a flag, which others on the
// machine could read.
static status set_api_key(session *s) {
    char line[1024];
    const char *key = getenv("OCTANT_API_KEY");
    if (s->api_key_file) {
        FILE *file = fopen(s->api_key_file, "r");
        bool got = file && fgets(line, sizeof line, file);
        if (file) fclose(file);
        if (!got)
            return status_error(STATUS_NOT_FOUND, "--api-key-file %s: cannot read a key from it",
                                s->api_key_file);
        line[strcspn(line, "\r\n")] = 0;
        key = line;
    }
    if (!octant_set_api_key(s->client, key))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a key");
    return status_ok();
}

status session_open(session *s) {
    if (s->up) TRY(open_cluster(s));
    if (!s->client) s->client = octant_connect(s->server);
    if (!s->client) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a client");
    return set_api_key(s);
}

void session_close(session *s, bool failed) {
    interrupt_cancels(NULL);
    octant_close(s->client);
    bool keep = s->keep_logs || failed;
    if (s->cluster_runs) local_cluster_stop(&s->cluster, keep);
    if (s->cluster_runs && keep)
        fprintf(stderr, "octant: the cluster's logs are in %s\n", s->cluster.directory);
    arena_destroy(s->memory);
}

status session_error(const session *s, const octant_error *error) {
    if (error->code == 0) return status_ok();
    const char *said = error->message;
    // gRPC's words for a server that is not there, is not found, or speaks HTTP/1.
    if (strstr(said, "http1.x"))
        return status_error(STATUS_UNAVAILABLE,
                            "%s is not a gRPC port; --server takes the coordinator's --grpc "
                            "address, not its --http one",
                            s->server);
    if (strstr(said, "connect to all addresses") || strstr(said, "DNS resolution failed"))
        return status_error(STATUS_UNAVAILABLE,
                            "no coordinator answers at %s: start one (octant up MODEL), or name "
                            "one with --server HOST:PORT (%.300s)",
                            s->server, said);
    return status_error((status_code)error->code, "%s", said);
}
