// options: see options.h; the table is the documentation (--help prints it).
#include "coordinator/options.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/config.h"

enum { ITEMS_MAX = 1 << 20 };

static const char about[] =
    "Takes requests over HTTP (OpenAI's API) and gRPC, schedules them, and drives the worker "
    "groups "
    "that register with it. Workers need to know its gRPC address only; it needs to know nothing.\n"
    "\n"
    "  octant-coordinator --http 127.0.0.1:8080 --grpc 127.0.0.1:50051\n"
    "\n"
    "SIGTERM and SIGINT drain: nothing new is taken, what runs may end within --drain-timeout.";

static options defaults(void) {
    core_options core = core_default_options();
    return (options){.http = "127.0.0.1:8080",
                     .grpc = "127.0.0.1:50051",
                     .http_threads = 2,
                     .http_workers = 2,
                     .http_connections = 4096,
                     .http_body_max = 4 << 20,
                     .max_queue = core.max_queue,
                     .max_seqs = core.max_seqs,
                     .max_step_tokens = core.max_step_tokens,
                     .block_tokens = core.block_tokens,
                     .request_timeout_ns = 600 * CLOCK_SECOND,
                     .request_timeout_most_ns = 3600 * CLOCK_SECOND,
                     .no_group_wait_ns = core.no_group_wait_ns,
                     .heartbeat_ns = core.heartbeat_ms * CLOCK_MS,
                     .heartbeat_timeout_ns = core.heartbeat_timeout_ns,
                     .start_timeout_ns = core.start_timeout_ns,
                     .step_timeout_ns = core.step_timeout_ns,
                     .drain_timeout_ns = 30 * CLOCK_SECOND,
                     .log_level_name = "info"};
}

static status check(options *o, int word_count, const char *const *words) {
    char host[256];
    int port;
    if (word_count > 0)
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not an option; see --help", words[0]);
    TRY(status_context(config_split_address(o->http, host, &port), "--http"));
    TRY(status_context(config_split_address(o->grpc, host, &port), "--grpc"));
    if (o->max_step_tokens < o->max_seqs)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--max-step-tokens %lld is less than --max-seqs %lld: every sequence "
                            "that answers needs a row of each step",
                            (long long)o->max_step_tokens, (long long)o->max_seqs);
    if (o->heartbeat_timeout_ns < 2 * o->heartbeat_ns)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--heartbeat-timeout must be at least twice --heartbeat");
    if (o->request_timeout_most_ns < o->request_timeout_ns)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--max-request-timeout is less than --request-timeout");
    return log_level_parse(o->log_level_name, &o->log_level);
}

// The file after --config (config_parse has checked that it is there), or NULL.
static const char *config_file_of(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0) return argv[i] + 9;
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) return argv[i + 1];
    }
    return NULL;
}

status options_parse(int argc, char **argv, arena *memory, options *out, bool *exit_now) {
    options *o = out;
    *o = defaults();
    const double ms = (double)CLOCK_MS, day = 86400.0 * (double)CLOCK_SECOND;
    const config_option table[] = {
        {"http", CONFIG_STRING, &o->http, 0, 0, NULL, "HOST:PORT", "where HTTP clients connect"},
        {"grpc", CONFIG_STRING, &o->grpc, 0, 0, NULL, "HOST:PORT",
         "where gRPC clients and workers connect"},
        {"api-keys", CONFIG_STRING, &o->api_keys, 0, 0, NULL, "PATH",
         "file with one \"NAME KEY\" a line; none: anybody may ask"},
        {"cluster-key", CONFIG_STRING, &o->cluster_key, 0, 0, NULL, "PATH",
         "file with the key that workers must have; none: any worker may register"},
        {"address-file", CONFIG_STRING, &o->address_file, 0, 0, NULL, "PATH",
         "where to write the addresses once both listen, for whoever chose port 0"},
        {"routing", CONFIG_STRING, &o->routing, 0, 0, NULL, "FILE",
         "where requests may go: upstreams, privacy, routes, budgets; default: the --config file"},
        {"data-dir", CONFIG_STRING, &o->data_dir, 0, 0, NULL, "DIR",
         "where usage and the audit are kept; without it nothing may leave"},
        {"prices", CONFIG_STRING, &o->prices, 0, 0, NULL, "FILE",
         "what upstreams cost (deploy/prices.json)"},
        {"event-log", CONFIG_STRING, &o->event_log, 0, 0, NULL, "FILE",
         "what happens to groups and upstreams is appended there, a line of JSON each"},
        {"upstream-proxy", CONFIG_STRING, &o->upstream_proxy, 0, 0, NULL, "URL",
         "for https upstreams; the environment's proxies are not used"},
        {"max-queue", CONFIG_INT, &o->max_queue, 1, ITEMS_MAX, NULL, NULL,
         "requests that may wait; beyond, clients hear 429"},
        {"max-seqs", CONFIG_INT, &o->max_seqs, 1, CLUSTER_SEQS_MAX, NULL, NULL,
         "sequences that a group computes at once"},
        {"max-step-tokens", CONFIG_INT, &o->max_step_tokens, 1, CLUSTER_STEP_TOKENS_MAX, NULL, NULL,
         "rows of one step: larger is faster for long prompts, smaller is smoother for answers"},
        {"block-tokens", CONFIG_INT, &o->block_tokens, 1, CLUSTER_BLOCK_TOKENS_MAX, NULL, NULL,
         "tokens of a KV block, the unit of memory and of prefix reuse"},
        {"max-context", CONFIG_INT, &o->max_context, 0, CLUSTER_CONTEXT_MAX, NULL, NULL,
         "longest sequence; 0: the model's own. Within a model's original context, long RoPE "
         "(Phi-3) "
         "takes its short factors, else the long ones"},
        {"request-timeout", CONFIG_DURATION, &o->request_timeout_ns, ms, day, NULL, NULL,
         "deadline of a request that names none"},
        {"max-request-timeout", CONFIG_DURATION, &o->request_timeout_most_ns, ms, day, NULL, NULL,
         "no request may take longer"},
        {"no-group-wait", CONFIG_DURATION, &o->no_group_wait_ns, 0, day, NULL, NULL,
         "how long requests wait while their model has no group"},
        {"heartbeat", CONFIG_DURATION, &o->heartbeat_ns, ms, 60e9, NULL, NULL,
         "how often every rank is to report"},
        {"heartbeat-timeout", CONFIG_DURATION, &o->heartbeat_timeout_ns, ms, 600e9, NULL, NULL,
         "silence of a rank after which its group is lost"},
        {"start-timeout", CONFIG_DURATION, &o->start_timeout_ns, ms, day, NULL, NULL,
         "from a group's registration to each rank's first report"},
        {"step-timeout", CONFIG_DURATION, &o->step_timeout_ns, ms, day, NULL, NULL,
         "least time that a step gets before its group is lost"},
        {"drain-timeout", CONFIG_DURATION, &o->drain_timeout_ns, 0, day, NULL, NULL,
         "how long running requests may go on after SIGTERM"},
        {"http-threads", CONFIG_INT, &o->http_threads, 2, 64, NULL, NULL,
         "threads that move HTTP bytes"},
        {"http-workers", CONFIG_INT, &o->http_workers, 1, 64, NULL, NULL,
         "threads that parse, render and tokenise"},
        {"http-connections", CONFIG_INT, &o->http_connections, 1, ITEMS_MAX, NULL, NULL,
         "HTTP connections open at once"},
        {"http-body-max", CONFIG_BYTES, &o->http_body_max, 1024, 1 << 30, NULL, NULL,
         "largest body of a request"},
        {"log-level", CONFIG_CHOICE, &o->log_level_name, 0, 0, "debug|info|warn|error", NULL,
         "least important lines to write"},
    };
    const config_program program = {.name = "octant-coordinator",
                                    .section = "coordinator",
                                    .synopsis = "[options]",
                                    .about = about,
                                    .options = table,
                                    .option_count = sizeof table / sizeof *table};
    const char **words = arena_alloc_array(memory, (size_t)argc + 1, sizeof *words);
    if (!words) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the options");
    int word_count = 0;
    config_action action;
    TRY(config_parse(&program, argc, argv, memory, words, &word_count, &action));
    *exit_now = action == CONFIG_EXIT;
    if (!o->routing) o->routing = config_file_of(argc, argv);
    return *exit_now ? status_ok() : check(o, word_count, words);
}

core_options options_for_core(const options *o) {
    core_options core = core_default_options();
    core.max_queue = (int)o->max_queue;
    core.max_seqs = (int)o->max_seqs;
    core.max_step_tokens = (int)o->max_step_tokens;
    core.block_tokens = (int)o->block_tokens;
    core.max_context = (int)o->max_context;
    core.heartbeat_ms = (int)(o->heartbeat_ns / CLOCK_MS);
    core.heartbeat_timeout_ns = o->heartbeat_timeout_ns;
    core.start_timeout_ns = o->start_timeout_ns;
    core.step_timeout_ns = o->step_timeout_ns;
    core.no_group_wait_ns = o->no_group_wait_ns;
    // Milliseconds of the calendar: larger than any epoch of an earlier process on this machine.
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    core.first_epoch = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / CLOCK_MS;
    if (getrandom(&core.hash_seed, sizeof core.hash_seed, 0) != sizeof core.hash_seed)
        core.hash_seed = (uint64_t)clock_now_ns(); // still unknown outside
    return core;
}
