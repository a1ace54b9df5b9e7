// Which base URLs are taken at start, and what is said about the others.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/upstream/address.h"

static status check(const char *url, bool plain) {
    return upstream_address_check(
        &(upstream_policy){.name = "frontier", .base_url = url, .plain_http = plain});
}

static void test_taken(void **state) {
    (void)state;
    const char *const good[] = {"https://api.example.com/v1",
                                "https://host:8443",
                                "HTTPS://host/v1",
                                "https://x.azure.example/openai/d?api-version=1",
                                "http://localhost:8000/v1",
                                "http://127.0.0.1:9",
                                "http://127.1.2.3/v1",
                                "http://[::1]:80/v1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_string_equal(check(good[i], false).message, "");
    assert_string_equal(check("http://10.0.0.7:8000/v1", true).message, "");
}

static void refused(const char *url, const char *word) {
    status s = check(url, false);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "upstream frontier: base-url"));
    if (!strstr(s.message, word)) fail_msg("no '%s' in: %s", word, s.message);
    assert_null(strstr(s.message, "secret"));
}

static void test_refused(void **state) {
    (void)state;
    refused("http://10.0.0.7:8000/v1", "plain-http");
    refused("http://localhost.evil.example/v1", "plain-http");
    refused("http://127.0.0.1.evil.example/v1", "plain-http");
    refused("http://[::2]/v1", "plain-http");
    refused("ftp://host/v1", "https://");
    refused("file:///etc/passwd", "https://");
    refused("https://", "URL");
    refused("", "URL");
    refused("api.example.com/v1", "URL");
    refused("https://user:secret@host/v1", "key file");
    refused("https://host/v1#part", "#");
    status s = upstream_address_check(&(upstream_policy){
        .name = "frontier", .base_url = "https://h", .ca_file = "/nonexistent/ca.pem"});
    assert_int_equal(s.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(s.message, "/nonexistent/ca.pem"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
