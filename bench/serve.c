// serve: load on any OpenAI-compatible server, and what its clients feel: TTFT, ITL, throughput.
//
// Closed loop (--concurrency N): N clients, each sends its next request when its last has ended.
// Open loop (--rate R): requests arrive by a Poisson process whatever the server does, which is how
// users arrive; a server that falls behind shows it here and not there. Streams over HTTP/1.1 by
// libcurl's multi interface on one thread; times are taken when bytes reach this process. A token
// is one SSE event with text; the server's own usage is reported beside it.
#include <curl/curl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/stats.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/rng.h"

enum { CONCURRENCY_MAX = 20000, REQUESTS_MAX = 10000000, LINE_MAX_BYTES = 1 << 20 };

typedef struct options {
    const char *url, *model, *json_path;
    int concurrency, requests, prompt_words, max_tokens;
    double rate, timeout_seconds, temperature;
    uint64_t seed;
    bool ignore_eos, shared_prefix;
} options;

typedef struct client {
    CURL *easy;
    buf line, body;
    int64_t sent_ns, last_token_ns;
    int tokens;
    bool busy, failed_event;
} client;

typedef struct bench {
    options o;
    CURLM *multi;
    struct curl_slist *headers;
    client *clients;
    rng random;
    stats ttft_ms, itl_ms, total_ms;
    int started, ended, errors;
    long long events, usage_completion, usage_prompt;
    char first_error[STATUS_MESSAGE_MAX];
} bench;

// The bench that a client belongs to travels beside it through curl's one pointer.
typedef struct transfer {
    bench *b;
    client *c;
} transfer;

static void note_error(bench *b, const char *what) {
    if (!b->first_error[0]) snprintf(b->first_error, sizeof b->first_error, "%s", what);
}

static void handle_event(bench *b, client *c, const char *data) {
    if (strcmp(data, "[DONE]") == 0) return;
    json_t *event;
    status s = json_parse(data, strlen(data), &event);
    if (!status_is_ok(&s)) {
        c->failed_event = true;
        note_error(b, s.message);
        return;
    }
    if (json_object_get(event, "error")) {
        c->failed_event = true;
        note_error(b, data);
    }
    json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    json_t *text = json_object_get(json_object_get(choice, "delta"), "content");
    if (!text) text = json_object_get(choice, "text");
    if (json_string_length(text) > 0) {
        int64_t now = clock_now_ns();
        bool first = c->tokens++ == 0;
        int64_t since = first ? c->sent_ns : c->last_token_ns;
        stats_add(first ? &b->ttft_ms : &b->itl_ms, (double)(now - since) / 1e6);
        c->last_token_ns = now;
        b->events++;
    }
    json_t *usage = json_object_get(event, "usage");
    b->usage_completion += json_integer_value(json_object_get(usage, "completion_tokens"));
    b->usage_prompt += json_integer_value(json_object_get(usage, "prompt_tokens"));
    json_decref(event);
}

static size_t on_bytes(char *bytes, size_t size, size_t count, void *user) {
    transfer *l = user;
    buf *line = &l->c->line;
    if (!buf_append(line, bytes, size * count)) return 0; // aborts the transfer
    size_t start = 0;
    for (char *end; (end = memchr(line->data + start, '\n', line->size - start));
         start = (size_t)(end + 1 - line->data)) {
        *end = 0;
        if (end > line->data + start && end[-1] == '\r') end[-1] = 0;
        if (strncmp(line->data + start, "data: ", 6) == 0)
            handle_event(l->b, l->c, line->data + start + 6);
    }
    buf_consume(line, start);
    return size * count;
}

// Words that hardly repeat, so that no prefix cache helps unless --shared-prefix asks for it.
static void append_prompt(bench *b, buf *out) {
    static const char *const words[] = {"river", "engine", "paper", "seven",  "cloud",
                                        "table", "green",  "north", "ticket", "window",
                                        "stone", "field",  "light", "market"};
    if (!b->o.shared_prefix) buf_printf(out, "%llx ", (unsigned long long)rng_next(&b->random));
    for (int i = 0; i < b->o.prompt_words; i++)
        buf_printf(out, "%s ",
                   words[b->o.shared_prefix ? (uint64_t)i % 14 : rng_below(&b->random, 14)]);
    if (b->o.shared_prefix) buf_printf(out, "%llx ", (unsigned long long)rng_next(&b->random));
    buf_append_string(out, "Tell a long story about this.");
}

static void start(bench *b, client *c, transfer *l) {
    buf_clear(&c->line);
    buf_clear(&c->body);
    buf prompt = buf_make(64 << 20);
    append_prompt(b, &prompt);
    buf_append_string(&c->body, "{\"model\":");
    json_append_string(&c->body, b->o.model, strlen(b->o.model));
    buf_append_string(&c->body, ",\"messages\":[{\"role\":\"user\",\"content\":");
    json_append_string(&c->body, prompt.data, prompt.size);
    buf_printf(&c->body,
               "}],\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":%d,"
               "\"temperature\":",
               b->o.max_tokens);
    json_append_number(&c->body, b->o.temperature);
    buf_printf(&c->body, ",\"seed\":%d%s}", b->started,
               b->o.ignore_eos ? ",\"ignore_eos\":true" : "");
    buf_free(&prompt);
    curl_easy_setopt(c->easy, CURLOPT_URL, b->o.url);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, b->headers);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, buf_string(&c->body));
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, (long)c->body.size);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, l);
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, l);
    curl_easy_setopt(c->easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)(b->o.timeout_seconds * 1000));
    c->tokens = 0;
    c->busy = true;
    c->failed_event = false;
    c->sent_ns = clock_now_ns();
    b->started++;
    curl_multi_add_handle(b->multi, c->easy);
}

static void finish(bench *b, CURLMsg *message) {
    transfer *l;
    long http = 0;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &l);
    curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &http);
    client *c = l->c;
    bool good =
        message->data.result == CURLE_OK && http == 200 && c->tokens > 0 && !c->failed_event;
    if (good) {
        stats_add(&b->total_ms, (double)(clock_now_ns() - c->sent_ns) / 1e6);
    } else {
        char text[256];
        snprintf(text, sizeof text, "HTTP %ld, %s: %.120s", http,
                 curl_easy_strerror(message->data.result), buf_string(&c->line));
        note_error(b, text);
        b->errors++;
    }
    b->ended++;
    c->busy = false;
    curl_multi_remove_handle(b->multi, c->easy);
}

static void run(bench *b, transfer *links) {
    int64_t next_arrival = clock_now_ns();
    while (b->ended < b->o.requests) {
        int64_t now = clock_now_ns();
        for (int i = 0; i < b->o.concurrency && b->started < b->o.requests; i++) {
            if (b->clients[i].busy) continue;
            if (b->o.rate > 0) {
                if (now < next_arrival) break;
                next_arrival += (int64_t)(-log(1 - rng_uniform(&b->random)) / b->o.rate * 1e9);
            }
            start(b, &b->clients[i], &links[i]);
        }
        int running, left;
        curl_multi_perform(b->multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(b->multi, &left));)
            finish(b, message);
        int wait_ms = 20;
        if (b->o.rate > 0 && b->started < b->o.requests) {
            int64_t until = (next_arrival - clock_now_ns()) / CLOCK_MS;
            wait_ms = until < 0 ? 0 : until < wait_ms ? (int)until : wait_ms;
        }
        curl_multi_poll(b->multi, NULL, 0, wait_ms, NULL);
    }
}

static void append_distribution(buf *out, const char *name, stats *s) {
    buf_printf(out, ",\"%s\":{\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}",
               name, stats_mean(s), stats_percentile(s, 50), stats_percentile(s, 90),
               stats_percentile(s, 99), stats_percentile(s, 100));
}

static void print_distribution(const char *name, stats *s) {
    printf("%-10s mean %9.2f   p50 %9.2f   p90 %9.2f   p99 %9.2f   max %9.2f ms\n", name,
           stats_mean(s), stats_percentile(s, 50), stats_percentile(s, 90), stats_percentile(s, 99),
           stats_percentile(s, 100));
}

static int report(bench *b, double seconds) {
    double tokens = b->usage_completion > 0 ? (double)b->usage_completion : (double)b->events;
    printf(
        "%d requests in %.2f s, %d errors: %.2f requests/s, %.1f tokens/s out, %.1f tokens/s in\n",
        b->ended, seconds, b->errors, b->ended / seconds, tokens / seconds,
        (double)b->usage_prompt / seconds);
    print_distribution("TTFT", &b->ttft_ms);
    print_distribution("ITL", &b->itl_ms);
    print_distribution("end to end", &b->total_ms);
    if (b->errors) fprintf(stderr, "serve: first error: %s\n", b->first_error);
    if (b->o.json_path) {
        buf out = buf_make(1 << 16);
        buf_printf(
            &out,
            "{\"requests\":%d,\"errors\":%d,\"seconds\":%.4f,\"concurrency\":%d,\"rate\":%.4f",
            b->ended, b->errors, seconds, b->o.rate > 0 ? 0 : b->o.concurrency, b->o.rate);
        buf_printf(&out,
                   ",\"completion_tokens\":%.0f,\"prompt_tokens\":%lld,\"tokens_per_second\":%.3f",
                   tokens, b->usage_prompt, tokens / seconds);
        append_distribution(&out, "ttft_ms", &b->ttft_ms);
        append_distribution(&out, "itl_ms", &b->itl_ms);
        append_distribution(&out, "total_ms", &b->total_ms);
        buf_append_string(&out, "}\n");
        FILE *file = strcmp(b->o.json_path, "-") == 0 ? stdout : fopen(b->o.json_path, "w");
        if (!file || fwrite(out.data, 1, out.size, file) != out.size) perror(b->o.json_path);
        if (file && file != stdout) fclose(file);
        buf_free(&out);
    }
    return b->errors ? 1 : 0;
}

static const char usage[] =
    "usage: bench-serve [options]\n"
    "  --url URL            chat completions endpoint (default "
    "http://127.0.0.1:8080/v1/chat/completions)\n"
    "  --model NAME         (default: \"\", the only one)\n"
    "  --concurrency N      closed loop: N clients (default 16); with --rate: most requests open "
    "at once\n"
    "  --rate R             open loop: R requests a second, Poisson\n"
    "  --requests N         (default 64)\n"
    "  --prompt-words N     (default 64)\n"
    "  --shared-prefix      prompts share all but their end\n"
    "  --max-tokens N       (default 64)\n"
    "  --ignore-eos         always generate --max-tokens (servers that know the parameter)\n"
    "  --temperature T      (default 0)\n"
    "  --timeout SECONDS    per request (default 600)\n"
    "  --seed N             of prompts and arrivals (default 1)\n"
    "  --json FILE          results as JSON; - is standard output\n";

static bool parse(int argc, char **argv, options *o) {
    static const struct option names[] = {
        {"url", 1, NULL, 'u'},           {"model", 1, NULL, 'm'},
        {"concurrency", 1, NULL, 'c'},   {"rate", 1, NULL, 'r'},
        {"requests", 1, NULL, 'n'},      {"prompt-words", 1, NULL, 'p'},
        {"shared-prefix", 0, NULL, 'x'}, {"max-tokens", 1, NULL, 't'},
        {"ignore-eos", 0, NULL, 'i'},    {"temperature", 1, NULL, 'T'},
        {"timeout", 1, NULL, 'o'},       {"seed", 1, NULL, 's'},
        {"json", 1, NULL, 'j'},          {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'u':
            o->url = optarg;
            break;
        case 'm':
            o->model = optarg;
            break;
        case 'c':
            o->concurrency = atoi(optarg);
            break;
        case 'r':
            o->rate = atof(optarg);
            break;
        case 'n':
            o->requests = atoi(optarg);
            break;
        case 'p':
            o->prompt_words = atoi(optarg);
            break;
        case 'x':
            o->shared_prefix = true;
            break;
        case 't':
            o->max_tokens = atoi(optarg);
            break;
        case 'i':
            o->ignore_eos = true;
            break;
        case 'T':
            o->temperature = atof(optarg);
            break;
        case 'o':
            o->timeout_seconds = atof(optarg);
            break;
        case 's':
            o->seed = strtoull(optarg, NULL, 10);
            break;
        case 'j':
            o->json_path = optarg;
            break;
        default:
            return false;
        }
    }
    if (o->rate > 0 && o->concurrency < 1024) o->concurrency = 1024;
    return optind == argc && o->concurrency >= 1 && o->concurrency <= CONCURRENCY_MAX &&
           o->requests >= 1 && o->requests <= REQUESTS_MAX && o->prompt_words >= 0 &&
           o->max_tokens >= 1 && o->timeout_seconds > 0;
}

int main(int argc, char **argv) {
    bench b = {.o = {.url = "http://127.0.0.1:8080/v1/chat/completions",
                     .model = "",
                     .concurrency = 16,
                     .requests = 64,
                     .prompt_words = 64,
                     .max_tokens = 64,
                     .timeout_seconds = 600,
                     .seed = 1}};
    if (!parse(argc, argv, &b.o)) {
        fputs(usage, stderr);
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    b.random = rng_make(b.o.seed);
    b.multi = curl_multi_init();
    b.headers = curl_slist_append(NULL, "Content-Type: application/json");
    b.clients = calloc((size_t)b.o.concurrency, sizeof *b.clients);
    transfer *links = calloc((size_t)b.o.concurrency, sizeof *links);
    if (!b.multi || !b.headers || !b.clients || !links) return perror("serve"), 1;
    for (int i = 0; i < b.o.concurrency; i++) {
        b.clients[i].easy = curl_easy_init();
        b.clients[i].line = b.clients[i].body = buf_make(LINE_MAX_BYTES * 8);
        links[i] = (transfer){&b, &b.clients[i]};
        if (!b.clients[i].easy)
            return fprintf(stderr, "serve: no memory for %d clients\n", b.o.concurrency), 1;
    }
    int64_t begin = clock_now_ns();
    run(&b, links);
    int result = report(&b, (double)(clock_now_ns() - begin) / 1e9);
    for (int i = 0; i < b.o.concurrency; i++) {
        curl_easy_cleanup(b.clients[i].easy);
        buf_free(&b.clients[i].line);
        buf_free(&b.clients[i].body);
    }
    stats_free(&b.ttft_ms), stats_free(&b.itl_ms), stats_free(&b.total_ms);
    free(b.clients), free(links);
    curl_slist_free_all(b.headers);
    curl_multi_cleanup(b.multi);
    curl_global_cleanup();
    return result;
}
