// What becomes of a call when its upstream behaves, and in each way of misbehaving: the outcome,
// the reason, exactly one end (fixture_stop), within the clock that the test has made short.
#include "edge_fixture.h"
#include "scripted_server.h"

static scripted_server server;
static fixture f;

// ---- scripts ----

static bool ok(scripted_server *s, int fd) {
    (void)s;
    return server_begin(fd) && server_say(fd, "Hello ") && server_say(fd, "there \\u00fc") &&
           server_finish(fd);
}

static bool tools(scripted_server *s, int fd) {
    (void)s;
    return server_begin(fd) &&
           server_chunk(fd,
                        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
                        "\"id\":\"call_9\",\"type\":\"function\",\"function\":{\"name\":\"look\","
                        "\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n") &&
           server_chunk(fd,
                        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
                        "\"function\":{\"arguments\":\":1}\"}}]}}]}\n\n") &&
           server_chunk(fd, "data: {\"choices\":[{\"index\":0,\"delta\":{},"
                            "\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n") &&
           server_text(fd, "0\r\n\r\n");
}

static bool reset(scripted_server *s, int fd) {
    (void)s;
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    return false;
}

static bool silent(scripted_server *s, int fd) {
    server_hang(s, fd);
    return false;
}

static bool pings(scripted_server *s, int fd) {
    server_begin(fd);
    while (server_chunk(fd, ": ping\n\n") && server_wait(s, 5)) {
    }
    return false;
}

static bool stall(scripted_server *s, int fd) {
    server_begin(fd);
    server_say(fd, "a part");
    while (server_chunk(fd, ": ping\n\n") && server_wait(s, 5)) {
    }
    return false;
}

static bool drip(scripted_server *s, int fd) {
    server_begin(fd);
    while (server_say(fd, "x") && server_wait(s, 20)) {
    }
    return false;
}

static bool half_event(scripted_server *s, int fd) {
    (void)s;
    server_begin(fd);
    server_say(fd, "a part");
    server_chunk(fd, "data: {\"choices\":[{\"index\":0,\"del");
    return false;
}

static bool early_close(scripted_server *s, int fd) {
    (void)s;
    server_begin(fd);
    server_say(fd, "a part");
    return server_text(fd, "0\r\n\r\n");
}

static bool nonsense(scripted_server *s, int fd) {
    (void)s;
    return server_begin(fd) && server_chunk(fd, "data: {\"choices\": 7}\n\n") &&
           server_text(fd, "0\r\n\r\n");
}

static bool not_http(scripted_server *s, int fd) {
    (void)s;
    server_text(fd, "SSH-2.0-OpenSSH_9.2\r\n");
    return false;
}

static bool reply(int fd, const char *status, const char *headers, const char *body) {
    char text[2048];
    snprintf(text, sizeof text,
             "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
             status, headers, strlen(body), body);
    return server_text(fd, text);
}

static bool busy(scripted_server *s, int fd) {
    (void)s;
    return reply(fd, "429 Too Many Requests", "Retry-After: 7\r\n",
                 "{\"error\":{\"type\":\"rate_limit_exceeded\",\"message\":\"slow down\"}}");
}

static bool bad_request(scripted_server *s, int fd) {
    (void)s;
    return reply(fd, "400 Bad Request", "",
                 "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"the question\"}}");
}

static bool no_key(scripted_server *s, int fd) {
    (void)s;
    return reply(fd, "401 Unauthorized", "", "{\"error\":{\"code\":\"invalid_api_key\"}}");
}

static bool broken(scripted_server *s, int fd) {
    (void)s;
    return reply(fd, "500 Internal Server Error", "", "<html>");
}

// Its minute's requests are used up, of 60: the next is welcome in a second.
static bool used_up(scripted_server *s, int fd) {
    (void)s;
    return server_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                           "x-ratelimit-limit-requests: 60\r\n"
                           "x-ratelimit-remaining-requests: 0\r\n"
                           "x-ratelimit-reset-requests: 1m0s\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n") &&
           server_say(fd, "Hello") && server_finish(fd);
}

// A status that counts although its body never comes.
static bool cut_busy(scripted_server *s, int fd) {
    (void)s;
    server_text(fd, "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 100\r\n\r\n{\"err");
    return false;
}

static bool elsewhere(scripted_server *s, int fd) {
    char location[128];
    snprintf(location, sizeof location, "Location: http://127.0.0.1:%d/ok/chat/completions\r\n",
             s->port);
    return reply(fd, "307 Temporary Redirect", location, "");
}

static bool long_header(scripted_server *s, int fd) {
    server_text(fd, "HTTP/1.1 200 OK\r\n");
    char line[4096];
    memset(line, 'a', sizeof line);
    memcpy(line, "X-Fill: ", 8);
    memcpy(line + sizeof line - 3, "\r\n", 3);
    while (server_text(fd, line) && !atomic_load(&s->stopping)) {
    }
    return false;
}

static const server_entry SCRIPTS[] = {{"ok", ok},
                                       {"tools", tools},
                                       {"reset", reset},
                                       {"silent", silent},
                                       {"pings", pings},
                                       {"stall", stall},
                                       {"drip", drip},
                                       {"half-event", half_event},
                                       {"early", early_close},
                                       {"nonsense", nonsense},
                                       {"ssh", not_http},
                                       {"busy", busy},
                                       {"bad", bad_request},
                                       {"no-key", no_key},
                                       {"broken", broken},
                                       {"cut-busy", cut_busy},
                                       {"elsewhere", elsewhere},
                                       {"long-header", long_header},
                                       {"used-up", used_up},
                                       {NULL, NULL}};

static int setup(void **state) {
    (void)state;
    server_start(&server, SCRIPTS);
    fixture_init(&f);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fixture_free(&f);
    server_stop(&server);
    return 0;
}

// One call of one script, as the target is set up.
static upstream_end end_of(uint64_t *call) {
    fixture_start(&f);
    *call = fixture_send(&f, fixture_ask(0));
    return fixture_wait(&f, *call);
}

// ---- well ----

static void test_ok(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_OK, "");
    assert_string_equal(buf_string(&f.heard[call].text), "Hello there \xc3\xbc");
    assert_int_equal(end.finish, ANSWER_STOP);
    assert_int_equal(end.http_status, 200);
    assert_true(end.usage.known);
    assert_int_equal(end.usage.input_tokens, 11);
    assert_int_equal(end.usage.cached_tokens, 5);
    assert_int_equal(end.usage.output_tokens, 7);
    assert_int_equal(end.cost_microdollars, 11 + 700);
    assert_true(end.first_content_ns > 0 && end.total_ns >= end.first_content_ns);
    char request[SERVER_REQUEST_MAX];
    server_last(&server, request);
    assert_non_null(strstr(request, "POST /ok/chat/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(request, "\r\nUser-Agent: octant/"));
    assert_null(strstr(request, "Expect:"));
    assert_null(strstr(request, "Authorization"));
    assert_non_null(strstr(request, "the question"));
    // On record, with the very bytes that were sent.
    assert_int_equal(f.leaves, 1);
    assert_non_null(strstr(f.left, "chatcmpl-1|key:support|ok|rule-1|may-leave|"));
    assert_string_equal(strrchr(f.left, '|') + 1, strstr(request, "\r\n\r\n") + 4);
}

static void test_tools(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "tools");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_OK, "");
    assert_int_equal(end.finish, ANSWER_TOOLS);
    assert_non_null(strstr(buf_string(&f.heard[call].text), "[0 call_9 look "));
    assert_false(end.usage.known);
}

// ---- faults of the network ----

static void test_refused(void **state) {
    (void)state;
    int port;
    close(server_listen(&port)); // nobody listens there now
    fixture_target(&f, "http", port, "gone");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "refused");
    assert_int_equal(end.http_status, 0);
    assert_int_equal(end.first_content_ns, -1);
    assert_true(end.usage.known); // of nothing
    assert_int_equal(end.cost_microdollars, 0);
}

static void test_no_such_host(void **state) {
    (void)state;
    upstream_policy *u = fixture_target(&f, "https", 1, "nowhere");
    u->base_url = "https://no-such-host.invalid/v1";
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "name");
}

static void test_reset(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "reset");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "lost before an answer");
    // It may have been charged for the prompt: a guess, and marked as one.
    assert_false(end.usage.known);
    assert_true(end.usage.input_tokens > 0);
    assert_int_equal(end.cost_microdollars, end.usage.input_tokens);
}

static void test_half_event(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "half-event");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "middle of the answer");
    assert_string_equal(buf_string(&f.heard[call].text), "a part");
    assert_false(end.usage.known);
    assert_true(end.usage.output_tokens > 0);
}

static void test_early_close(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "early");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "before its end event");
}

static void test_not_http(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ssh");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "not HTTP");
}

static void test_nonsense(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "nonsense");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "form");
}

static void test_long_header(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "long-header");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "header is too long");
}

// ---- clocks ----

static void test_connect_clock(void **state) {
    (void)state;
    // TLS is begun with a server that takes the connection and says nothing.
    int port, listener = server_listen(&port);
    fixture_target(&f, "https", port, "mute")->connect_ns = 100 * CLOCK_MS;
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "clock: connect");
    assert_true(end.usage.known);
    close(listener);
}

static void test_first_content_clock(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "silent")->first_content_ns = 100 * CLOCK_MS;
    fixture_target(&f, "http", server.port, "pings")->first_content_ns = 100 * CLOCK_MS;
    fixture_start(&f);
    uint64_t a = fixture_send(&f, fixture_ask(0)), b = fixture_send(&f, fixture_ask(1));
    upstream_end end = fixture_wait(&f, a);
    assert_ended(&end, UPSTREAM_FAULT, "clock: first content");
    end = fixture_wait(&f, b);
    assert_ended(&end, UPSTREAM_FAULT, "clock: first content");
    assert_false(end.usage.known);
}

static void test_between_chunks_clock(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "stall")->between_chunks_ns = 100 * CLOCK_MS;
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "clock: between chunks");
    assert_string_equal(buf_string(&f.heard[call].text), "a part");
    assert_true(end.first_content_ns > 0);
}

static void test_rate_clock(void **state) {
    (void)state;
    upstream_policy *u = fixture_target(&f, "http", server.port, "drip");
    u->min_rate = 1000;
    u->rate_window_ns = 200 * CLOCK_MS;
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "clock: minimum rate");
}

static void test_total_clock(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "drip")->total_ns = 300 * CLOCK_MS;
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_FAULT, "clock: total");
}

// The request's deadline says nothing about the upstream: no fault.
static void test_deadline(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "silent")->drain_ns = 100 * CLOCK_MS;
    fixture_start(&f);
    fixture_call c = fixture_ask(0);
    c.deadline_ns = 100 * CLOCK_MS;
    upstream_end end = fixture_wait(&f, fixture_send(&f, c));
    assert_ended(&end, UPSTREAM_CANCELLED, "");
}

// ---- what a status says ----

static void test_statuses(void **state) {
    (void)state;
    const struct {
        const char *script;
        upstream_outcome outcome;
        int status, retry_ms;
    } cases[] = {{"busy", UPSTREAM_BUSY, 429, 7000}, {"cut-busy", UPSTREAM_BUSY, 503, 2000},
                 {"bad", UPSTREAM_CLIENT, 400, 0},   {"no-key", UPSTREAM_ACCOUNT, 401, 0},
                 {"broken", UPSTREAM_FAULT, 500, 0}, {"elsewhere", UPSTREAM_FAULT, 307, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        teardown(NULL);
        setup(NULL);
        fixture_target(&f, "http", server.port, cases[i].script);
        uint64_t call;
        upstream_end end = end_of(&call);
        assert_ended(&end, cases[i].outcome, "HTTP ");
        assert_int_equal(end.http_status, cases[i].status);
        assert_int_equal(end.retry_after_ms, cases[i].retry_ms);
        assert_int_equal(end.usage.output_tokens, 0);
        assert_null(strstr(end.reason, "question"));
        assert_int_equal(atomic_load(&server.requests), 1); // not again, and not elsewhere
    }
}

static void test_limits(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "used-up");
    uint64_t call;
    upstream_end end = end_of(&call);
    assert_ended(&end, UPSTREAM_OK, "");
    assert_int_equal(end.hold_ms, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ok, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tools, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_such_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_event, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_http, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connect_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_content_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_between_chunks_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rate_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_total_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
