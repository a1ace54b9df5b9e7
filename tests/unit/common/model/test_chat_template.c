// test_chat_template: the contract of the door: what is rendered, which line an error names, and
// every bound.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/base/clock.h"
#include "common/model/chat_template.h"

enum { TEXT_MAX = 1 << 20 };

static const char hello[] = "[{\"role\":\"user\",\"content\":\"Hi\"}]";

// Parses and renders over `messages`; the text is in *out on success.
static status render_over(const char *source, const char *messages, size_t limit, buf *out) {
    chat_template *t;
    *out = buf_make(limit);
    TRY(chat_template_parse(source, strlen(source), &t));
    json_t *json = json_loads(messages, 0, NULL);
    assert_non_null(json);
    status s = chat_template_render(t, json, NULL, NULL, true, "<s>", "</s>", 0, out);
    json_decref(json);
    chat_template_free(t);
    return s;
}

static void expect_text(const char *source, const char *want) {
    buf out;
    status s = render_over(source, hello, TEXT_MAX, &out);
    if (s.code != STATUS_OK) fail_msg("%s: %s", source, s.message);
    assert_string_equal(buf_string(&out), want);
    buf_free(&out);
}

static void expect_error(const char *source, status_code code, const char *part) {
    buf out;
    status s = render_over(source, hello, TEXT_MAX, &out);
    if (s.code != code || !strstr(s.message, part))
        fail_msg("%.60s: wanted %d with '%s', got %d '%s'", source, code, part, s.code, s.message);
    assert_int_equal(out.size, 0);
    buf_free(&out);
}

static void renders_a_chat(void **state) {
    (void)state;
    expect_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}{{ bos_token + eos_token }}",
        "<|user|>Hi<|end|>\n<|assistant|>\n<s></s>");
    expect_text("", "");
    expect_text("a\r\nb\n", "a\nb");
    expect_text("{{ tools is none }}{{ documents is none }}{{ other is defined }}",
                "TrueTrueFalse");
    expect_text("{{ strftime_now('%Y') }}", "1970");
}

static void names_the_line_and_the_fault(void **state) {
    (void)state;
    const status_code bad = STATUS_INVALID_ARGUMENT;
    expect_error("a\n{{ 1 +\n }}", bad, "line 3: expected an expression");
    expect_error("a\n\n{% if x %}", bad, "line 3: expected endif");
    expect_error("{% include 'x' %}", bad, "a statement that chat templates have, got 'include'");
    expect_error("\n{{ messages[0].x.y }}", bad, "line 2: 'x' is undefined");
    expect_error("\n\n{{ 1 + 'a' }}", bad, "line 3: unsupported types for +: 'int' and 'str'");
    expect_error("{{ 1 | nope }}", bad, "there is no filter 'nope'");
    expect_error("{{ 1 is nope }}", bad, "there is no test 'nope'");
    expect_error("x{{ raise_exception('only users') }}", bad, "the template refuses: only users");
    expect_error("{{ messages.append(1) }}", bad, "'append' is undefined");
    expect_error("{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", bad, "not more than 1 arguments");
    expect_error("\xff", bad, "not UTF-8");
}

static void refuses_what_would_never_end(void **state) {
    (void)state;
    const status_code full = STATUS_RESOURCE_EXHAUSTED;
    expect_error("{{ range(10**9) }}", STATUS_INVALID_ARGUMENT, "range has more than 100000 items");
    expect_error("{{ 'a' * 10**9 }}", full, "repetition");
    expect_error("{{ [1] * 10**9 }}", full, "repetition");
    expect_error("{{ '%1000000d' % 1 }}", full, "width");
    expect_error("{{ '{:1000000}'.format(1) }}", full, "width");
    expect_error("{{ [1]|tojson(indent=1000000) }}", full, "indent");
    char busy[1200] = "{% for a in range(90000) %}{{ a";
    for (int i = 0; i < 100; i++) strcat(busy, " and a");
    expect_error(strcat(busy, " }}{% endfor %}"), full, "steps");
    // Scanning long text is work as well.
    expect_error(
        "{% set a = 'a' * 16000000 %}{% for i in range(9999) %}{{ a == a + '' }}{% endfor %}", full,
        "more");
    expect_error("{{ ('a' * 16000000).rfind('a' * 8000000 + 'b') }}", full, "steps");
    expect_error(
        "{% set a = 'a' * 16000000 %}{% for i in range(9999) %}{{ a is lower }}{% endfor %}", full,
        "steps");
    expect_error("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                 full, "more memory");
    expect_error("{% for a in range(99999) %}0123456789ABCDEF{% endfor %}", full,
                 "longer than 1048576 bytes");
    expect_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", full, "macros call each other");
    expect_error(
        "{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x }}",
        full, "nested too deep");
    expect_error(
        "{% set ns = namespace(x='x' * 9999) %}{% for i in range(30) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}",
        full, "than");
}

static void refuses_deep_templates(void **state) {
    (void)state;
    char source[2 * 5000 + 16];
    for (size_t depth = 50; depth <= 5000; depth *= 10) {
        memset(source, '(', sizeof source);
        memcpy(source, "{{", 2);
        source[2 + depth] = '1';
        memset(source + 3 + depth, ')', depth);
        strcpy(source + 3 + 2 * depth, "}}");
        buf out;
        status s = render_over(source, hello, TEXT_MAX, &out);
        if (depth == 50) expect_text("{{ (((1))) }}", "1");
        assert_int_equal(s.code == STATUS_OK, depth <= 50);
        buf_free(&out);
    }
}

static void bounds_the_messages(void **state) {
    (void)state;
    char deep[600], *p = deep + sprintf(deep, "[{\"role\":\"user\",\"content\":");
    memset(p, '[', 200);
    memset(p + 200, ']', 200);
    strcpy(p + 400, "}]");
    buf out;
    status s = render_over("x", deep, TEXT_MAX, &out);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    s = render_over("{{ messages[0].content }}", hello, 1, &out);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(out.size, 0);
    assert_false(out.failed);
    buf_free(&out);
    s = render_over("x", "[1]", TEXT_MAX, &out);
    assert_non_null(strstr(s.message, "message 0 is not an object"));
    s = render_over("x", "{}", TEXT_MAX, &out);
    assert_non_null(strstr(s.message, "messages must be an array"));
}

static void renames_reasoning(void **state) {
    (void)state;
    buf out;
    status s =
        render_over("{{ messages[0] }}", "[{\"role\":\"a\",\"reasoning\":\"r\"}]", TEXT_MAX, &out);
    assert_int_equal(s.code, STATUS_OK);
    assert_string_equal(
        buf_string(&out),
        "{'thinking': 'r', 'role': 'a', 'reasoning': 'r', 'reasoning_content': 'r'}");
    buf_free(&out);
}

static void appends_and_takes_variables(void **state) {
    (void)state;
    static const char source[] = "{{ custom_x }}{{ bos_token is defined }}{{ tools|length }}";
    chat_template *t;
    status s = chat_template_parse(source, strlen(source), &t);
    assert_int_equal(s.code, STATUS_OK);
    json_t *messages = json_loads(hello, 0, NULL), *tools = json_pack("[{}]");
    json_t *extra = json_pack("{s:i,s:b}", "custom_x", 7, "unmentioned", 1);
    buf out = buf_make(TEXT_MAX);
    buf_append_string(&out, "before ");
    s = chat_template_render(t, messages, tools, extra, false, NULL, NULL, 0, &out);
    assert_int_equal(s.code, STATUS_OK);
    assert_string_equal(buf_string(&out), "before 7False1");
    buf_free(&out);
    json_decref(messages);
    json_decref(tools);
    json_decref(extra);
    chat_template_free(t);
    chat_template_free(NULL);
}

// A namespace that gathers 2,000 pieces costs memory in proportion to the text, not to its square.
static void gathers_long_text(void **state) {
    (void)state;
    buf out;
    status s = render_over("{% set ns = namespace(t='') %}{% for i in range(2000) %}"
                           "{% set ns.t = ns.t + '0123456789' * 40 %}{% endfor %}{{ ns.t|length }}",
                           hello, TEXT_MAX, &out);
    if (s.code != STATUS_OK) fail_msg("%s", s.message);
    assert_string_equal(buf_string(&out), "800000");
    buf_free(&out);
    // The shared block must not show the longer text in the shorter string, nor mix two
    // continuations.
    expect_text(
        "{% set a = 'x' * 600 %}{% set b = a + 'y' %}{% set c = b + '1' %}{% set d = b + '2' %}"
        "{{ a|length }} {{ b|length }} {{ c[-2:] }} {{ d[-2:] }}",
        "600 601 y1 y2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_a_chat),
        cmocka_unit_test(names_the_line_and_the_fault),
        cmocka_unit_test(refuses_what_would_never_end),
        cmocka_unit_test(refuses_deep_templates),
        cmocka_unit_test(bounds_the_messages),
        cmocka_unit_test(renames_reasoning),
        cmocka_unit_test(appends_and_takes_variables),
        cmocka_unit_test(gathers_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
