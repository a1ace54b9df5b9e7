// test_jinja_interpreter: what templates compute, one feature a line, expected as Jinja 3.1 gives
// it. The long list, compared with Jinja itself, is tests/golden/template_cases.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/model/chat_template.h"

typedef struct example {
    const char *source, *want;
} example;

static void check(const example *examples, size_t count) {
    json_t *messages = json_loads("[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
                                  "\"content\":\"Yo\"}]",
                                  0, NULL);
    for (size_t i = 0; i < count; i++) {
        chat_template *t;
        buf out = buf_make(1 << 16);
        status s = chat_template_parse(examples[i].source, strlen(examples[i].source), &t);
        if (s.code == STATUS_OK)
            s = chat_template_render(t, messages, NULL, NULL, true, "<s>", "</s>", 0, &out);
        if (s.code != STATUS_OK) fail_msg("%s: %s", examples[i].source, s.message);
        assert_string_equal(buf_string(&out), examples[i].want);
        buf_free(&out);
        chat_template_free(t);
    }
    json_decref(messages);
}

#define CHECK(...)                                                                                 \
    do {                                                                                           \
        const example examples[] = {__VA_ARGS__};                                                  \
        check(examples, sizeof examples / sizeof *examples);                                       \
    } while (0)

static void white_space(void **state) {
    (void)state;
    CHECK({"a\n{% if true %}\n  b\n{% endif %}\nc\n", "a\n  b\nc"},
          {"  {% if true %}x{% endif %}  \n y", "x  \n y"},
          {"a {%- if true -%} b {%- endif -%} c", "abc"},
          {" {%+ if true %}a{% endif +%}\nb", " a\nb"}, {"{# c #}\n x {#- y -#} z", " xz"},
          {"{% raw %}{{ x }}{% endraw %}\ny", "{{ x }}y"}, {"{{- 1 -}} \n x", "1x"},
          {"  {{ 1 }}\n", "  1"}, {"x\n  {% set a = 1 %}  \ny", "x\n  \ny"});
}

static void operators(void **state) {
    (void)state;
    CHECK(
        {"{{ 1 ~ 2 * 3 }} {{ 1 + 2 * 3 }}", "16 7"}, {"{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}", "64 4"},
        {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 1 / 2 }} {{ 0.1 + 0.2 }}", "-4 2 0.5 0.30000000000000004"},
        {"{{ 1 < 2 < 3 }} {{ not 1 == 2 }} {{ 'a' in 'abc' }} {{ 1 not in [1] }}",
         "True True True False"},
        {"{{ 0 or 'x' }} {{ 0 and 1 }} {{ 1 if false }}|", "x 0 |"},
        {"{{ 1e16 }} {{ 1e-5 }} {{ 5.0 }}", "1e+16 1e-05 5.0"},
        {"{{ '\xc3\xa4\xe2\x82\xac!'[::-1] }} {{ 'abc'[-2:] }} {{ [1,2,3][::2] }}",
         "!\xe2\x82\xac\xc3\xa4 bc [1, 3]"},
        {"{{ ('<a>'|safe) + '<b>' }} {{ '%s-%03d' % ('x', 7) }}", "<a>&lt;b&gt; x-007"},
        {"{{ [none, true, 'it\\'s', (1,), {'k': 1.5}] }}",
         "[None, True, \"it's\", (1,), {'k': 1.5}]"});
}

static void filters_and_methods(void **state) {
    (void)state;
    CHECK(
        {"{{ {'b': [1, '\xc3\xa9<'], 'a': none}|tojson }}",
         "{\"b\": [1, \"\xc3\xa9<\"], \"a\": null}"},
        {"{{ {'b': [1]}|tojson(indent=2) }}", "{\n  \"b\": [\n    1\n  ]\n}"},
        {"{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('|') }}",
         "Hi"},
        {"{{ [3, 1, 2]|sort }} {{ {'b': 1, 'A': 2}|dictsort }}", "[1, 2, 3] [('A', 2), ('b', 1)]"},
        {"{{ 'a,b,c'.split(',', 1) }} {{ ' x '.strip() }}|", "['a', 'b,c'] x|"},
        {"{{ 'a\nb'|indent(2) }}", "a\n  b"}, {"{{ '{} {x[0]}'.format(1, x=[2]) }}", "1 2"},
        {"{{ x|default('d') }}{{ ''|d('e', true) }}", "de"},
        {"{{ {'items': 1}['items'] }} {{ {'a': 1}.get('b', 2) }}", "1 2"},
        {"{{ '3.9'|int }} {{ 2.5|round }}", "3 2.0"});
}

static void loops_and_scopes(void **state) {
    (void)state;
    CHECK({"{% for i in [1,2,3] %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }} {% endfor %}",
           "1False 2False1 3True2 "},
          {"{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"},
          {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
          {"{% for i in range(9) if i is odd %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% "
           "endfor %}",
           "1:1/4 2:3/4 3:5/4 4:7/4 "},
          {"{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break "
           "%}{% endif %}{{ i }}{% endfor %}",
           "02"},
          {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
          {"{% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor "
           "%}{{ ns.x }}",
           "4"},
          {"{% if true %}{% set y = 5 %}{% endif %}{{ y }}", "5"},
          {"{% set x %} a{{ 1 }}{% endset %}[{{ x }}]", "[ a1]"});
}

static void macros(void **state) {
    (void)state;
    CHECK({"{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(b=5, a=4) "
           "}}",
           "121|454"},
          {"{% macro f(x) %}{{ caller(2) }}{{ x }}{% endmacro %}{% call(n) f(1) %}b{{ n }}{% "
           "endcall %}",
           "b21"},
          {"{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}",
           "(1, 2){'x': 3}"},
          {"{% macro r(n) %}{{ n }}{% if n %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(5) }}",
           "543210"},
          {"{% macro f() %}{{ v }}{% endmacro %}{% set v = 3 %}{{ f() }}", "3"},
          {"{% filter replace('a', 'b')|upper %}aac{% endfilter %}", "BBC"},
          {"{% generation %}x{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "xFalse"});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(white_space),
        cmocka_unit_test(operators),
        cmocka_unit_test(filters_and_methods),
        cmocka_unit_test(loops_and_scopes),
        cmocka_unit_test(macros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
