// A name server that does not answer holds up the calls that wait for it, until their clock, and
// nothing else: neither other calls nor the end.
#include <dlfcn.h>
#include <netdb.h>

#include "edge_fixture.h"
#include "scripted_server.h"

static atomic_bool answered;
static atomic_int waiting;

// Instead of the C library's, for libcurl too.
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out) {
    typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (name && !strcmp(name, "slow.invalid")) {
        atomic_fetch_add(&waiting, 1);
        for (int i = 0; i < FIXTURE_WAIT_S * 100 && !atomic_load(&answered); i++)
            clock_sleep_until(clock_now_ns() + 10 * CLOCK_MS);
        atomic_fetch_sub(&waiting, 1);
        return EAI_AGAIN;
    }
    resolver *real = (resolver *)dlsym(RTLD_NEXT, "getaddrinfo");
    return real(name, service, hints, out);
}

static bool ok(scripted_server *s, int fd) {
    (void)s;
    return server_begin(fd) && server_say(fd, "Hello") && server_finish(fd);
}

static const server_entry SCRIPTS[] = {{"ok", ok}, {NULL, NULL}};

static void test_slow_names(void **state) {
    (void)state;
    static fixture f;
    static scripted_server server;
    server_start(&server, SCRIPTS);
    fixture_init(&f);
    upstream_policy *slow = fixture_target(&f, "https", 1, "slow");
    slow->base_url = "https://slow.invalid/v1";
    slow->connect_ns = 200 * CLOCK_MS;
    fixture_target(&f, "http", server.port, "ok");
    fixture_start(&f);
    uint64_t a = fixture_send(&f, fixture_ask(0));
    upstream_end end = fixture_wait(&f, a);
    assert_ended(&end, UPSTREAM_FAULT, "clock: connect");
    assert_true(atomic_load(&waiting) > 0); // still
    end = fixture_wait(&f, fixture_send(&f, fixture_ask(1)));
    assert_ended(&end, UPSTREAM_OK, "");
    uint64_t b = fixture_send(&f, fixture_ask(0));
    fixture_stop(&f);
    assert_int_equal(f.heard[b].ends, 1);
    assert_true(atomic_load(&waiting) > 0);
    atomic_store(&answered, true);
    while (atomic_load(&waiting)) clock_sleep_until(clock_now_ns() + CLOCK_MS);
    clock_sleep_until(clock_now_ns() + 100 * CLOCK_MS); // libcurl's thread frees what is its own
    fixture_free(&f);
    server_stop(&server);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_slow_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
