// The HTTP server from outside, over real sockets, with a core that makes tokens up.
#include "coordinator/ingress/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/observe/metrics.h"
#include "coordinator/route/policy_file.h"
#include "unit/coordinator/ingress/fake_core.h"
#include "unit/coordinator/ingress/tiny_model.h"

typedef struct fixture {
    fake_core core;
    ingress in;
    http_server *server;
    int port;
} fixture;

static void start(fixture *f, void (*change)(http_server_options *o)) {
    memset(f, 0, sizeof *f);
    f->in = (ingress){.models = model_registry_create(),
                      .metrics = metrics_create(),
                      .core = fake_core_start(&f->core),
                      .default_timeout_ns = 60 * CLOCK_SECOND,
                      .max_timeout_ns = 600 * CLOCK_SECOND};
    tiny_model_add(f->in.models, "tiny");
    http_server_options options = http_server_default_options();
    options.port = 0;
    options.in = &f->in;
    if (change) change(&options);
    status s = http_server_start(&options, &f->server);
    if (s.code != STATUS_OK) fail_msg("%s", s.message);
    f->port = http_server_port(f->server);
}

static void stop(fixture *f) {
    http_server_stop(f->server);
    int64_t deadline = clock_now_ns() + 20 * CLOCK_SECOND;
    while (atomic_load(&f->core.open) && clock_now_ns() < deadline)
        clock_sleep_until(clock_now_ns() + CLOCK_MS);
    fake_core_stop(&f->core);
    model_registry_destroy(f->in.models);
    metrics_destroy(f->in.metrics);
}

static int dial(const fixture *f) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_return_code(connect(fd, (struct sockaddr *)&to, sizeof to), errno);
    return fd;
}

static void send_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0) return; // the server may cut us on purpose
        bytes += sent;
        size -= (size_t)sent;
    }
}

static void send_request(int fd, const char *method, const char *path, const char *headers,
                         const char *body, size_t size) {
    buf head = buf_make(1 << 16);
    buf_printf(&head,
               "%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n",
               method, path, headers, size);
    send_all(fd, head.data, head.size);
    send_all(fd, body, size);
    buf_free(&head);
}

// Everything until the server closes, or until deadline. The caller frees it.
static char *read_all(int fd, int64_t wait_ns) {
    buf all = buf_make(64 << 20);
    int64_t deadline = clock_now_ns() + wait_ns;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        int64_t left = deadline - clock_now_ns();
        if (left <= 0 || poll(&p, 1, (int)(left / CLOCK_MS) + 1) <= 0) break;
        char bytes[65536];
        ssize_t size = recv(fd, bytes, sizeof bytes, 0);
        if (size <= 0) break;
        buf_append(&all, bytes, (size_t)size);
    }
    return buf_take(&all);
}

static int status_of(const char *response) {
    int code = 0;
    return sscanf(response, "HTTP/1.1 %d", &code) == 1 ? code : 0;
}

// One request on its own connection; the whole response with its head.
static char *call(const fixture *f, const char *method, const char *path, const char *body) {
    int fd = dial(f);
    send_request(fd, method, path, "Content-Type: application/json\r\n", body, strlen(body));
    char *response = read_all(fd, 10 * CLOCK_SECOND);
    close(fd);
    return response;
}

static void expect(const fixture *f, const char *method, const char *path, const char *body,
                   int status, const char *part) {
    char *response = call(f, method, path, body);
    if (status_of(response) != status || (part && !strstr(response, part)))
        fail_msg("%s %s %s: expected %d with %s, got: %s", method, path, body, status,
                 part ? part : "anything", response);
    free(response);
}

static bool wait_for(atomic_int *value, int wanted, int64_t ns) {
    int64_t deadline = clock_now_ns() + ns;
    while (atomic_load(value) != wanted && clock_now_ns() < deadline)
        clock_sleep_until(clock_now_ns() + CLOCK_MS);
    return atomic_load(value) == wanted;
}

#define CHAT "/v1/chat/completions"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static void test_simple_pages(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    expect(&f, "GET", "/health", "", 200, "\"status\":\"ok\"");
    expect(&f, "GET", "/live", "", 200, "ok");
    expect(&f, "GET", "/v1/models", "", 200, "\"id\":\"tiny\"");
    expect(&f, "GET", "/v1/models/tiny", "", 200, "\"owned_by\":\"octant\"");
    expect(&f, "GET", "/v1/models/none", "", 404, "model_not_found");
    expect(&f, "GET", "/status", "", 200, "\"state\":\"READY\"");
    expect(&f, "GET", "/metrics", "", 200,
           "octant_time_to_first_token_seconds_bucket{le=\"+Inf\"} 0");
    expect(&f, "GET", "/nothing", "", 404, "unknown_url");
    expect(&f, "GET", CHAT, "", 405, "Allow: POST");
    expect(&f, "POST", "/v1/tokenize", "{\"prompt\":\"Hi\"}", 200, "\"tokens\":[72,105]");
    atomic_store(&f.core.no_group, true);
    expect(&f, "GET", "/health", "", 503, "no worker group has registered");
    stop(&f);
}

static void test_whole_answers(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    expect(&f, "POST", CHAT, "{" HI ",\"max_tokens\":3,\"seed\":7}", 200, "\"content\":\"abc\"");
    assert_int_equal(f.core.last.sampling.seed, 7);
    assert_int_equal(f.core.last.prompt_count, (int)strlen("[user]Hi\n[assistant]"));
    expect(&f, "POST", CHAT, "{\"model\":\"tiny\"," HI ",\"max_tokens\":3,\"n\":2}", 200,
           "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"abc\"");
    expect(&f, "POST", "/v1/completions",
           "{\"prompt\":[\"x\",\"y\"],\"max_tokens\":2,\"echo\":true}", 200,
           "{\"index\":1,\"text\":\"yab\"");
    expect(&f, "POST", "/v1/completions",
           "{\"prompt\":[72,105],\"max_tokens\":1,\"logprobs\":1,\"echo\":true}", 200,
           "\"text\":\"Hia\",\"logprobs\":{\"tokens\":[\"a\"],\"token_logprobs\":[-0.5],\"top_"
           "logprobs\":[{\"a\":-0.5}]");
    expect(&f, "POST", "/v1/completions", "{\"prompt\":\"x\"}", 200,
           "\"text\":\"abcdefghijklmnop\"");
    stop(&f);
}

static void test_stream(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    char *r = call(
        &f, "POST", CHAT,
        "{" HI ",\"max_tokens\":3,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    assert_int_equal(status_of(r), 200);
    assert_non_null(strstr(r, "text/event-stream"));
    assert_non_null(strstr(r, "x-request-id: chatcmpl-"));
    const char *order[] = {"\"delta\":{\"role\":\"assistant\",\"content\":\"\"}",
                           "{\"content\":\"a\"}",
                           "{\"content\":\"b\"}",
                           "{\"content\":\"c\"}",
                           "\"finish_reason\":\"length\"",
                           "\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":3",
                           "data: [DONE]"};
    const char *at = r;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        at = strstr(at, order[i]);
        if (!at) fail_msg("%s is missing or out of order in: %s", order[i], r);
    }
    free(r);
    atomic_store(&f.core.fail_after, 2);
    r = call(&f, "POST", CHAT, "{" HI ",\"max_tokens\":5,\"stream\":true}");
    assert_non_null(strstr(r, "{\"content\":\"b\"}"));
    assert_non_null(
        strstr(r, "data: {\"error\":{\"message\":\"broke as told\",\"type\":\"server_error\""));
    assert_null(strstr(r, "[DONE]"));
    free(r);
    stop(&f);
}

static void test_errors(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    expect(&f, "POST", CHAT, "{", 400, "could not parse the JSON");
    expect(&f, "POST", CHAT, "{" HI ",\"model\":\"none\"}", 404, "\"code\":\"model_not_found\"");
    expect(&f, "POST", CHAT, "{" HI ",\"temperature\":3}", 400, "\"param\":\"temperature\"");
    expect(&f, "POST", CHAT, "{" HI ",\"max_tokens\":500}", 400, "context_length_exceeded");
    expect(&f, "POST", "/v1/completions", "{\"prompt\":[300]}", 400,
           "300 is not a token of this model");
    expect(&f, "POST", CHAT, "{" HI ",\"logit_bias\":{\"300\":1}}", 400,
           "\"param\":\"logit_bias\"");
    atomic_store(&f.core.full, true);
    expect(&f, "POST", CHAT, "{" HI "}", 429, "Retry-After: 1");
    expect(&f, "POST", CHAT, "{" HI ",\"stream\":true}", 429, "rate_limit_error");
    atomic_store(&f.core.full, false);
    atomic_store(&f.core.end_code, STATUS_RESOURCE_EXHAUSTED);
    expect(&f, "POST", CHAT, "{" HI ",\"stream\":true}", 429, "Retry-After: 3");
    atomic_store(&f.core.end_code, STATUS_UNAVAILABLE);
    expect(&f, "POST", CHAT, "{" HI "}", 503, "as told");
    atomic_store(&f.core.end_code, STATUS_DEADLINE_EXCEEDED);
    expect(&f, "POST", CHAT, "{" HI ",\"stream\":true}", 504, "\"code\":\"timeout\"");
    int fd = dial(&f);
    send_request(fd, "POST", CHAT, "Content-Type: text/plain\r\n", "{}", 2);
    char *r = read_all(fd, 20 * CLOCK_SECOND);
    assert_int_equal(status_of(r), 415);
    free(r);
    close(fd);
    stop(&f);
}

static void small_bodies(http_server_options *o) {
    o->body_limit = 100000;
}

static void test_large_bodies(void **state) {
    (void)state;
    fixture f;
    start(&f, small_bodies);
    size_t size = 20 << 20;
    char *body = malloc(size);
    memset(body, '[', size);
    int fd = dial(&f);
    send_request(fd, "POST", CHAT, "", body, size);
    char *r = read_all(fd, 10 * CLOCK_SECOND);
    assert_int_equal(status_of(r), 413);
    free(r);
    close(fd);
    fd = dial(&f); // asks first
    send_all(
        fd,
        "POST " CHAT
        " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
        strlen("POST " CHAT
               " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"));
    r = read_all(fd, 10 * CLOCK_SECOND);
    assert_int_equal(status_of(r), 413);
    free(r);
    close(fd);
    body[90000] = 0; // deep, but within the limit
    expect(&f, "POST", CHAT, body, 400, "maximum parsing depth");
    free(body);
    stop(&f);
}

static void with_keys(fixture *f, const char *path) {
    FILE *file = fopen(path, "w");
    fputs("# keys\nalice sk-alice-12345678\nsk-nobody-1234567\n", file);
    fclose(file);
    status s = api_keys_open(path, (api_keys **)&f->in.keys);
    assert_int_equal(s.code, STATUS_OK);
    unlink(path);
}

static void test_keys(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    with_keys(&f, "/tmp/octant-test-keys");
    expect(&f, "POST", CHAT, "{" HI "}", 401, "invalid_api_key");
    expect(&f, "GET", "/v1/models", "", 401, "WWW-Authenticate: Bearer");
    expect(&f, "GET", "/health", "", 200, NULL);
    int fd = dial(&f);
    const char *body = "{" HI ",\"max_tokens\":1,\"user\":\"u\"}";
    send_request(fd, "POST", CHAT,
                 "Authorization: Bearer sk-alice-12345678\r\nX-Request-Id: my-id\r\n", body,
                 strlen(body));
    char *r = read_all(fd, 20 * CLOCK_SECOND);
    assert_int_equal(status_of(r), 200);
    assert_non_null(strstr(r, "x-request-id: my-id"));
    free(r);
    close(fd);
    stop(&f);
    api_keys_close((api_keys *)f.in.keys);
}

static int open_stream(const fixture *f) {
    int fd = dial(f);
    const char *body = "{" HI ",\"max_tokens\":400,\"stream\":true}";
    send_request(fd, "POST", CHAT, "", body, strlen(body));
    return fd;
}

// The class that the core hears of, for these headers. Each endpoint must pass them on.
static void expect_class(fixture *f, const char *path, const char *headers, privacy_class want) {
    static const char body[] = "{\"model\":\"tiny\",\"max_tokens\":1,\"messages\":[{\"role\":"
                               "\"user\",\"content\":\"Hi\"}]}";
    char all[512];
    snprintf(all, sizeof all, "Content-Type: application/json\r\n%s", headers);
    int fd = dial(f);
    send_request(fd, "POST", path, all, body, sizeof body - 1);
    char *response = read_all(fd, 10 * CLOCK_SECOND);
    close(fd);
    if (status_of(response) != 200) fail_msg("%s: %s", path, response);
    free(response);
    if (f->core.last.route.privacy != want)
        fail_msg("%s with '%s' is %s", path, headers,
                 privacy_class_name(f->core.last.route.privacy));
    assert_int_equal(f->core.last.route.upstream_count, want ? 1 : 0);
}

static void test_privacy_header(void **state) {
    (void)state;
    static const char policy[] =
        "upstreams: {far: {api: gemini, base-url: 'https://h', model: m}}\n"
        "models: {other: {model: tiny}, absent: {model: none}}\n"
        "privacy: {default: may-leave}\nroutes: [{name: all, upstreams: far}]\n";
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
    static const struct {
        const char *headers;
        privacy_class want;
    } cases[] = {
        {"", PRIVACY_MAY_LEAVE},
        {"octant-privacy: may-leave\r\n", PRIVACY_MAY_LEAVE},
        {"Octant-Privacy: redact-then-leave\r\n", PRIVACY_REDACT},
        {"octant-privacy: local-only\r\n", PRIVACY_LOCAL_ONLY},
        {"octant-privacy: \r\n", PRIVACY_LOCAL_ONLY},
        {"octant-privacy: none\r\n", PRIVACY_LOCAL_ONLY},
        {"octant-privacy: may-leave\r\noctant-privacy: local-only\r\n", PRIVACY_LOCAL_ONLY},
        {"octant-privacy: local-only\r\noctant-privacy: may-leave\r\n", PRIVACY_LOCAL_ONLY},
        {"octant-privacy: may-leave, local-only, and more than fits here\r\n", PRIVACY_LOCAL_ONLY},
    };
    routing_policy *p;
    status s = policy_file_parse("f", policy, sizeof policy - 1, &p);
    if (s.code != STATUS_OK) fail_msg("%s", s.message);
    fixture f;
    start(&f, NULL);
    f.in.routing = p;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            expect_class(&f, paths[i], cases[k].headers, cases[k].want);
    expect(&f, "GET", "/v1/models", "", 200,
           "\"ready\":true},{\"id\":\"other\",\"object\":\"model\"");
    expect(&f, "GET", "/v1/models", "", 200, "\"id\":\"far\",\"object\":\"model\",\"created\":0,");
    expect(&f, "GET", "/v1/models/far", "", 200, "\"owned_by\":\"upstream\",\"ready\":false}");
    expect(&f, "GET", "/v1/models/absent", "", 404, "model_not_found");
    stop(&f);
    routing_policy_free(p);
}

static void test_client_gone(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    for (int slow = 0; slow < 2; slow++) { // busy streams, then one that waits for its next token
        atomic_store(&f.core.interval_ns, slow ? 2 * CLOCK_SECOND : 20 * CLOCK_MS);
        int fd = open_stream(&f);
        assert_true(wait_for(&f.core.open, 1, 20 * CLOCK_SECOND));
        clock_sleep_until(clock_now_ns() + 50 * CLOCK_MS);
        int before = atomic_load(&f.core.cancels);
        int64_t then = clock_now_ns();
        close(fd);
        assert_true(wait_for(&f.core.cancels, before + 1, 10 * CLOCK_SECOND));
        print_message("client gone (%s): cancelled after %.2f ms\n", slow ? "idle" : "busy",
                      (double)(clock_now_ns() - then) / 1e6);
        atomic_store(&f.core.interval_ns, CLOCK_MS);
        assert_true(wait_for(&f.core.open, 0, 20 * CLOCK_SECOND));
    }
    stop(&f);
}

static void impatient(http_server_options *o) {
    o->header_timeout_ns = o->body_timeout_ns = o->idle_timeout_ns = CLOCK_SECOND;
    o->write_timeout_ns = CLOCK_SECOND;
}

static void test_slow_senders_are_cut(void **state) {
    (void)state;
    fixture f;
    start(&f, impatient);
    const char *text =
        "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"messages\":";
    for (int whole_header = 0; whole_header < 2; whole_header++) {
        int fd = dial(&f);
        int64_t then = clock_now_ns();
        if (whole_header) send_all(fd, text, strlen(text));
        bool open = true;
        for (size_t i = 0; open && clock_now_ns() - then < 10 * CLOCK_SECOND; i++) {
            send_all(fd, whole_header ? " " : text + i % 20, 1);
            char byte;
            struct pollfd p = {fd, POLLIN, 0};
            if (poll(&p, 1, 100) > 0 && recv(fd, &byte, 1, 0) <= 0) open = false;
        }
        assert_false(open);
        assert_true(clock_now_ns() - then < 30 * CLOCK_SECOND);
        close(fd);
    }
    expect(&f, "POST", CHAT, "{" HI ",\"max_tokens\":1}", 200, NULL);
    stop(&f);
}

static bool has_cut(const fixture *f, int count) {
    char line[64];
    snprintf(line, sizeof line, "octant_clients_cut_total %d\n", count);
    buf page = buf_make(1 << 20);
    metrics_append(f->in.metrics, &page);
    bool found = strstr(page.data, line) != NULL;
    buf_free(&page);
    return found;
}

// Clients that never read: those with much to get overflow their ring, those with less are cut by
// the write deadline; others go on.
static void test_dead_readers(void **state) {
    (void)state;
    fixture f;
    start(&f, impatient);
    for (int large = 0; large < 2; large++) {
        atomic_store(&f.core.piece_bytes, large ? 16 << 10 : 600);
        // A reader keeps up with this on any machine: its ring holds 1.6 s of it.
        atomic_store(&f.core.interval_ns, large ? 100 * CLOCK_MS : CLOCK_MS);
        int dead[20];
        for (int i = 0; i < 20; i++) {
            dead[i] = dial(&f);
            int small = 4096;
            setsockopt(dead[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
            const char *body = "{" HI ",\"max_tokens\":400,\"stream\":true}";
            send_request(dead[i], "POST", CHAT, "", body, strlen(body));
        }
        // All have come; a slow machine may have cut the first ones before the last one.
        assert_true(wait_for(&f.core.submitted, 21 * large + 20, 20 * CLOCK_SECOND));
        expect(&f, "POST", CHAT, "{" HI ",\"max_tokens\":20,\"stream\":true}", 200, "[DONE]");
        assert_true(wait_for(&f.core.open, 0, 30 * CLOCK_SECOND));
        int64_t deadline = clock_now_ns() + 30 * CLOCK_SECOND;
        while (!has_cut(&f, 20 * (large + 1)) && clock_now_ns() < deadline)
            clock_sleep_until(clock_now_ns() + 10 * CLOCK_MS);
        assert_true(has_cut(&f, 20 * (large + 1)));
        for (int i = 0; i < 20; i++) close(dead[i]);
    }
    stop(&f);
}

static void lively(http_server_options *o) {
    o->keep_alive_ns = 300 * CLOCK_MS;
}

// A stream without tokens shows life, before its first one and between two.
static void test_signs_of_life(void **state) {
    (void)state;
    fixture f;
    start(&f, lively);
    atomic_store(&f.core.interval_ns, 3 * CLOCK_SECOND);
    clock_sleep_until(clock_now_ns() + 500 * CLOCK_MS); // the last tick of the old interval is over
    char *r = call(&f, "POST", CHAT, "{" HI ",\"max_tokens\":2,\"stream\":true}");
    assert_int_equal(status_of(r), 200);
    const char *life = strstr(r, ": waiting\n\n"), *first = strstr(r, "\"content\":\"a\"");
    assert_true(life && first && life < first && strstr(first, ": waiting\n\n"));
    assert_non_null(strstr(r, "[DONE]"));
    free(r);
    // Once it has begun, an error can only be told in the stream.
    atomic_store(&f.core.end_code, STATUS_UNAVAILABLE);
    r = call(&f, "POST", CHAT, "{" HI ",\"max_tokens\":2,\"stream\":true}");
    assert_int_equal(status_of(r), 200);
    assert_non_null(strstr(r, "data: {\"error\":{\"message\":\"as told\""));
    free(r);
    stop(&f);
}

static void test_stop_with_open_streams(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    atomic_store(&f.core.interval_ns, 20 * CLOCK_MS);
    int fds[50];
    for (int i = 0; i < 50; i++) fds[i] = open_stream(&f);
    assert_true(wait_for(&f.core.open, 50, 20 * CLOCK_SECOND));
    assert_false(http_server_drain(f.server, clock_now_ns() + 100 * CLOCK_MS));
    stop(&f);
    assert_int_equal(atomic_load(&f.core.ended), 50);
    for (int i = 0; i < 50; i++) close(fds[i]);
}

static void test_port_in_use(void **state) {
    (void)state;
    fixture f;
    start(&f, NULL);
    http_server_options options = http_server_default_options();
    options.in = &f.in;
    options.port = f.port;
    http_server *second = NULL;
    status s = http_server_start(&options, &second);
    assert_int_equal(s.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(s.message, "choose another port"));
    stop(&f);
}

// With an argument: serves the made-up answers on that port until standard input ends, for trying
// clients by hand.
static int serve(const char *port) {
    fixture f;
    (void)port;
    start(&f, NULL);
    atomic_store(&f.core.interval_ns, 20 * CLOCK_MS);
    printf("%d\n", f.port);
    fflush(stdout);
    while (getchar() != EOF) continue;
    stop(&f);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return serve(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple_pages),
        cmocka_unit_test(test_whole_answers),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_privacy_header),
        cmocka_unit_test(test_client_gone),
        cmocka_unit_test(test_slow_senders_are_cut),
        cmocka_unit_test(test_dead_readers),
        cmocka_unit_test(test_stop_with_open_streams),
        cmocka_unit_test(test_signs_of_life),
        cmocka_unit_test(test_port_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
