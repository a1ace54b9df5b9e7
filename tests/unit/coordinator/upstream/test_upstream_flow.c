// The way of many calls: what may not leave, what is kept back, given up, drained, stopped, shared.
#include "edge_fixture.h"
#include "scripted_server.h"

#include <fcntl.h>

#include "common/base/log.h"

enum { WORDS = 3000 }; // of the long answer

static scripted_server server;
static fixture f;
static atomic_llong flooded; // bytes

// ---- scripts ----

static bool ok(scripted_server *s, int fd) {
    (void)s;
    return server_begin(fd) && server_say(fd, "Hello") && server_finish(fd);
}

static bool silent(scripted_server *s, int fd) {
    server_hang(s, fd);
    return false;
}

// Begins; goes on to the end when the test says so.
static bool gated(scripted_server *s, int fd) {
    server_begin(fd);
    server_say(fd, "Hello");
    server_wait_for_go(s);
    return server_say(fd, " again") && server_finish(fd);
}

static bool stall(scripted_server *s, int fd) {
    server_begin(fd);
    server_say(fd, "Hello");
    server_hang(s, fd);
    return false;
}

// Far more than anybody wants to drain.
static bool flood(scripted_server *s, int fd) {
    char text[4000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    server_begin(fd);
    while (server_say(fd, text) && !atomic_load(&s->stopping))
        atomic_fetch_add(&flooded, sizeof text);
    return false;
}

static bool long_answer(scripted_server *s, int fd) {
    (void)s;
    server_begin(fd);
    for (int i = 0; i < WORDS; i++) {
        char word[64];
        snprintf(word, sizeof word, "word-%d-and-some-more-of-it ", i);
        if (!server_say(fd, word)) return false;
    }
    return server_finish(fd);
}

// A good first answer; whoever comes again on the same connection finds it closing.
static bool once(scripted_server *s, int fd) {
    if (atomic_load(&s->requests) == 1) return ok(s, fd);
    return false;
}

static bool no_key(scripted_server *s, int fd) {
    (void)s;
    return server_text(fd, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
}

static const server_entry SCRIPTS[] = {{"no-key", no_key},    {"ok", ok},       {"silent", silent},
                                       {"gated", gated},      {"stall", stall}, {"flood", flood},
                                       {"long", long_answer}, {"once", once},   {NULL, NULL}};

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

// ---- what may not leave ----

static void refuse(fixture_call c, upstream_outcome outcome, const char *reason) {
    upstream_end end = fixture_wait(&f, fixture_send(&f, c));
    assert_ended(&end, outcome, reason);
    assert_true(end.usage.known && !end.usage.input_tokens && !end.cost_microdollars);
}

static void test_may_not_leave(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    fixture_call c = fixture_ask(0);
    c.privacy = PRIVACY_LOCAL_ONLY;
    refuse(c, UPSTREAM_CLIENT, "local-only");
    c = fixture_ask(0);
    c.listed = false;
    refuse(c, UPSTREAM_CLIENT, "does not list");
    c = fixture_ask(0);
    c.messages = "not JSON";
    refuse(c, UPSTREAM_CLIENT, "");
    assert_int_equal(f.leaves, 0);
    fixture_set(&f, &f.books_fail, true);
    refuse(fixture_ask(0), UPSTREAM_BUSY, "no audit row, so nothing was sent");
    fixture_stop(&f);
    assert_int_equal(atomic_load(&server.connections), 0);
}

static void test_starts_that_cannot_work(void **state) {
    (void)state;
    upstream_policy *u = fixture_target(&f, "http", server.port, "ok");
    u->base_url = "http://192.0.2.1/v1";
    status s = fixture_open(&f, NULL);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "plain-http"));
    upstream_metrics_destroy(f.metrics);
    u->base_url = f.urls[0];
    u->key_file = "/nonexistent/key";
    assert_int_equal(fixture_open(&f, NULL).code, STATUS_NOT_FOUND);
    upstream_edge_options without_books = {.policy = &f.policy, .core = &f, .post = fixture_post};
    assert_int_equal(upstream_edge_create(&without_books, &f.edge).code,
                     STATUS_FAILED_PRECONDITION);
}

// Whatever the environment says: what a shell was left with must not decide where prompts go.
static void test_no_proxy_of_the_environment(void **state) {
    (void)state;
    const char *const names[] = {"http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"};
    for (int i = 0; i < 4; i++) setenv(names[i], "http://127.0.0.1:1", 1);
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    for (int i = 0; i < 4; i++) unsetenv(names[i]);
    assert_ended(&end, UPSTREAM_OK, "");
}

static void test_proxy(void **state) {
    (void)state;
    int port;
    close(server_listen(&port));
    char proxy[64];
    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", port);
    fixture_target(&f, "https", server.port, "far");
    fixture_target(&f, "http", server.port, "ok"); // this machine: not by way of a proxy
    assert_int_equal(fixture_open(&f, proxy).code, STATUS_OK);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_FAULT, "refused");
    assert_int_equal(atomic_load(&server.connections), 0);
    end = fixture_wait(&f, fixture_send(&f, fixture_ask(1)));
    assert_ended(&end, UPSTREAM_OK, "");
}

// The key reaches the upstream, and nothing else.
static void test_key(void **state) {
    (void)state;
    char path[] = "/tmp/octant-key-XXXXXX", log_path[] = "/tmp/octant-log-XXXXXX";
    int key = mkstemp(path), log = mkstemp(log_path), terminal = dup(STDERR_FILENO);
    assert_int_equal(write(key, "sk-very-secret\n", 15), 15);
    close(key);
    fixture_target(&f, "http", server.port, "ok")->key_file = path;
    fixture_target(&f, "http", server.port, "silent")->key_file = path;
    f.targets[1].first_content_ns = 50 * CLOCK_MS;
    log_open(LOG_DEBUG, "test");
    dup2(log, STDERR_FILENO);
    fixture_start(&f);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    char request[SERVER_REQUEST_MAX];
    server_last(&server, request);
    upstream_end fault = fixture_wait(&f, fixture_send(&f, fixture_ask(1)));
    fixture_stop(&f);
    dup2(terminal, STDERR_FILENO);
    log_open(LOG_WARN, "test");
    assert_ended(&end, UPSTREAM_OK, "");
    assert_ended(&fault, UPSTREAM_FAULT, "");
    assert_non_null(strstr(request, "\r\nAuthorization: Bearer sk-very-secret\r\n"));
    char said[65536] = "";
    assert_true(pread(log, said, sizeof said - 1, 0) > 0);
    assert_non_null(strstr(said, "first content"));
    assert_null(strstr(said, "secret"));
    assert_null(strstr(said, "the question"));
    assert_null(strstr(f.left, "secret"));
    close(log);
    close(terminal);
    unlink(path);
    unlink(log_path);
}

// A refused key that is replaced: the core hears of it without a call.
static void test_renewed_key(void **state) {
    (void)state;
    char path[] = "/tmp/octant-key-XXXXXX";
    int key = mkstemp(path);
    assert_int_equal(write(key, "sk-old\n", 7), 7);
    fixture_target(&f, "http", server.port, "no-key")->key_file = path;
    fixture_start(&f);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_ACCOUNT, "401");
    assert_int_equal(f.renewed, 0);
    assert_int_equal(pwrite(key, "sk-newer\n", 9, 0), 9);
    int64_t until = clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND;
    pthread_mutex_lock(&f.lock);
    while (!f.renewed) fixture_until(&f.changed, &f.lock, until);
    pthread_mutex_unlock(&f.lock);
    fixture_stop(&f);
    assert_int_equal(f.renewed, 1);
    close(key);
    unlink(path);
}

// ---- backpressure ----

// The core takes nothing for a while: not a word is lost, and the clocks do not blame the upstream.
static void test_full_core(void **state) {
    (void)state;
    upstream_policy *u = fixture_target(&f, "http", server.port, "long");
    u->between_chunks_ns = 2500 * CLOCK_MS;
    u->min_rate = 1;
    u->rate_window_ns = 2500 * CLOCK_MS;
    fixture_start(&f);
    fixture_set(&f, &f.full, true);
    uint64_t call = fixture_send(&f, fixture_ask(0));
    clock_sleep_until(clock_now_ns() + 3 * CLOCK_SECOND);
    fixture_set(&f, &f.full, false);
    upstream_end end = fixture_wait(&f, call);
    assert_ended(&end, UPSTREAM_OK, "");
    const char *at = buf_string(&f.heard[call].text);
    for (int i = 0; i < WORDS; i++) {
        char word[64];
        int size = snprintf(word, sizeof word, "word-%d-and-some-more-of-it ", i);
        assert_int_equal(strncmp(at, word, (size_t)size), 0);
        at += size;
    }
    assert_string_equal(at, "");
}

// While the core takes nothing, nothing more is read: what waits is bounded.
static void test_full_core_holds_the_upstream(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "flood")->drain_ns = 0;
    fixture_start(&f);
    fixture_set(&f, &f.full, true);
    atomic_store(&flooded, 0);
    uint64_t call = fixture_send(&f, fixture_ask(0));
    long long before = -1, now = 0;
    for (int i = 0; i < 2 * FIXTURE_WAIT_S && (now == 0 || now != before); i++) {
        before = now;
        clock_sleep_until(clock_now_ns() + 500 * CLOCK_MS);
        now = atomic_load(&flooded);
    }
    assert_true(now > 0 && now == before); // it stands still
    assert_true(now < 64 << 20);           // and not because a bound of the answer was reached
    f.port.cancel(f.port.links, call);
    fixture_set(&f, &f.full, false);
    upstream_end end = fixture_wait(&f, call);
    assert_ended(&end, UPSTREAM_CANCELLED, "");
}

// ---- given up ----

static void test_drained(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "gated");
    fixture_start(&f);
    uint64_t call = fixture_send(&f, fixture_ask(0));
    fixture_wait_for_content(&f, call);
    f.port.cancel(f.port.links, call);
    f.port.cancel(f.port.links, call);       // twice does no harm
    f.port.cancel(f.port.links, call + 100); // nor does a stranger
    clock_sleep_until(clock_now_ns() + 50 * CLOCK_MS);
    atomic_store(&server.go, true);
    upstream_end end = fixture_wait(&f, call);
    assert_ended(&end, UPSTREAM_CANCELLED, "drained");
    assert_true(end.usage.known);
    assert_int_equal(end.usage.output_tokens, 7);
    assert_int_equal(end.cost_microdollars, 711);
    assert_string_equal(buf_string(&f.heard[call].text), "Hello"); // nobody listens to the rest
}

static void test_drain_is_bounded(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "stall")->drain_ns = 50 * CLOCK_MS;
    fixture_target(&f, "http", server.port, "flood");
    fixture_start(&f);
    for (int i = 0; i < 2; i++) {
        uint64_t call = fixture_send(&f, fixture_ask(i));
        fixture_wait_for_content(&f, call);
        f.port.cancel(f.port.links, call);
        upstream_end end = fixture_wait(&f, call);
        assert_ended(&end, UPSTREAM_CANCELLED, "cut");
        assert_false(end.usage.known);
        assert_true(end.usage.input_tokens > 0 && end.usage.output_tokens > 0);
    }
}

static void test_cancelled_before_it_left(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    fixture_set(&f, &f.books_hang, true);
    uint64_t call = fixture_send(&f, fixture_ask(0));
    f.port.cancel(f.port.links, call);
    fixture_set(&f, &f.books_hang, false);
    upstream_end end = fixture_wait(&f, call);
    assert_ended(&end, UPSTREAM_CANCELLED, "");
    assert_true(end.usage.known);
    fixture_stop(&f);
    assert_int_equal(atomic_load(&server.requests), 0);
}

// ---- bounds ----

// More calls than are made at once, while the books stand still: the rest hear so at once.
static void test_too_many(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    fixture_set(&f, &f.books_hang, true);
    for (int i = 0; i < UPSTREAM_CALLS_MAX; i++) fixture_send(&f, fixture_ask(0));
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_BUSY, "as many calls");
    for (uint64_t call = 1; call <= UPSTREAM_CALLS_MAX; call++) f.port.cancel(f.port.links, call);
    fixture_set(&f, &f.books_hang, false);
    for (uint64_t call = 1; call <= UPSTREAM_CALLS_MAX; call++) {
        end = fixture_wait(&f, call);
        assert_ended(&end, UPSTREAM_CANCELLED, "");
    }
}

// ---- the end ----

static void test_close(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "stall");
    fixture_start(&f);
    uint64_t a = fixture_send(&f, fixture_ask(0));
    fixture_wait_for_content(&f, a);
    upstream_edge_close(f.edge, clock_now_ns() + FIXTURE_WAIT_S * CLOCK_SECOND);
    assert_int_equal(f.heard[a].ends, 1);
    assert_ended(&f.heard[a].end, UPSTREAM_CANCELLED, "stops");
    assert_false(f.heard[a].end.usage.known);
    assert_true(f.heard[a].end.cost_microdollars > 0);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_CANCELLED, "stops");
}

// A core that is gone takes no end: destroying must not wait for it.
static void test_destroy_without_core(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "stall");
    fixture_start(&f);
    uint64_t call = fixture_send(&f, fixture_ask(0));
    fixture_wait_for_content(&f, call);
    fixture_set(&f, &f.full, true);
    fixture_send(&f, fixture_ask(0));
    upstream_edge_close(f.edge, clock_now_ns() + 50 * CLOCK_MS);
    upstream_edge_destroy(f.edge);
    f.edge = NULL;
    assert_int_equal(f.heard[call].ends, 0);
}

// ---- connections ----

static void test_reuse(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    for (int i = 0; i < 5; i++) {
        upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
        assert_ended(&end, UPSTREAM_OK, "");
        // The end is known a moment before the connection is free again.
        clock_sleep_until(clock_now_ns() + 100 * CLOCK_MS);
    }
    assert_true(atomic_load(&server.connections) < 5);
    assert_int_equal(atomic_load(&server.requests), 5);
}

// libcurl would send a request again when a kept connection dies under it. What the first one cost
// is not known, so a call is sent once.
static void test_never_sent_twice(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "once");
    fixture_start(&f);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_OK, "");
    clock_sleep_until(clock_now_ns() + 100 * CLOCK_MS);
    end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    assert_ended(&end, UPSTREAM_FAULT, "lost before an answer");
    assert_false(end.usage.known);
    fixture_stop(&f);
    assert_int_equal(atomic_load(&server.requests), 2);
}

static void test_many_at_once(void **state) {
    (void)state;
    fixture_target(&f, "http", server.port, "ok");
    fixture_target(&f, "http", server.port, "long");
    fixture_target(&f, "http", server.port, "stall")->between_chunks_ns = 100 * CLOCK_MS;
    fixture_start(&f);
    uint64_t calls[30];
    for (int i = 0; i < 30; i++) calls[i] = fixture_send(&f, fixture_ask(i % 3));
    for (int i = 0; i < 30; i++) {
        upstream_end end = fixture_wait(&f, calls[i]);
        assert_ended(&end, i % 3 == 2 ? UPSTREAM_FAULT : UPSTREAM_OK, "");
    }
    for (int i = 4; i < 30; i += 3)
        assert_string_equal(buf_string(&f.heard[calls[i]].text),
                            buf_string(&f.heard[calls[1]].text));
}

int main(void) {
    log_open(LOG_WARN, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_may_not_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(test_starts_that_cannot_work, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_proxy_of_the_environment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_proxy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_renewed_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_core, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_core_holds_the_upstream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled_before_it_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_without_core, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never_sent_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
