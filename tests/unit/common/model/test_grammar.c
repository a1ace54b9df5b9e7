// Texts that grammars take and texts that they do not, byte by byte; sources that are refused, with
// the place.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/model/grammar_matcher.h"
#include "unit/common/model/byte_tokenizer.h"

static grammar_vocab *open_vocab(tokenizer **t, const char *without) {
    grammar_vocab *v = NULL;
    *t = byte_tokenizer_open(without);
    assert_non_null(*t);
    status s = grammar_vocab_create(*t, BYTE_TOKENIZER_SIZE, &v);
    assert_true(status_is_ok(&s));
    return v;
}

static bool goes_on(grammar_matcher *x, const char *text) {
    bool good = true;
    for (; good && *text; text++) good = grammar_matcher_take(x, (unsigned char)*text);
    return good;
}

// Whether a text is an answer: each of its bytes may come, and the end.
static bool is_answer(grammar_masks *m, const char *text) {
    grammar_matcher *x = grammar_matcher_create(m);
    assert_non_null(x);
    bool good = goes_on(x, text) && grammar_matcher_may_end(x) &&
                grammar_matcher_take(x, BYTE_TOKENIZER_END);
    grammar_matcher_destroy(x);
    return good;
}

static status compile(const grammar_vocab *v, grammar_kind kind, const char *text, grammar **out) {
    grammar_source source = {kind, text, strlen(text)};
    return grammar_compile(&source, &v->alphabet, out);
}

typedef struct text_case {
    grammar_kind kind;
    const char *source;
    const char *taken[8], *refused[10];
} text_case;

#define SCHEMA GRAMMAR_SCHEMA

static const text_case CASES[] = {
    {GRAMMAR_JSON,
     "",
     {"{}", "{\"a\": [1, {\"b\":null}]}", "{\n  \"a\":1\n}", "{\"\\u00e9\":-1.5e+3}"},
     {"", "[]", "{", "{\"a\":1,}", "{}}", "{'a':1}", "{\"a\":01}", "{\"\\ud800\":1}",
      "{\"a\":\"\n\"}", "{\"a\"  :1}"}},
    {SCHEMA, "true", {"1", "\"x\"", "[]", "null"}, {"", "tru"}},
    {SCHEMA,
     "{\"type\":\"string\"}",
     {"\"\"", "\"\xc3\xa9\"", "\"\\\"\""},
     {"\"\xc3\"", "\"\xff\"", "1"}},
    {SCHEMA,
     "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"a\\nb\"", "\"\xc3\xa9\xc3\xa9\xc3\xa9\""},
     {"\"a\"", "\"abcd\"", "\"\""}},
    {SCHEMA, "{\"type\":\"string\",\"minLength\":3}", {"\"abc\"", "\"abcdefgh\""}, {"\"ab\""}},
    {SCHEMA,
     "{\"pattern\":\"^[a-c]+\\\\d{2}$\"}",
     {"\"a12\"", "\"abc00\""},
     {"\"12\"", "\"a1\"", "\"d12\""}},
    {SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"[\\\"\\\\\\\\\\n]\"}",
     {"\"\\\"\"", "\"\\\\\"", "\"\\n\""},
     {"\"\"\"", "\"\n\"", "\"a\""}},
    {SCHEMA,
     "{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2026-02-28\"", "\"2026-12-31\""},
     {"\"2026-02-30\"", "\"2026-13-01\"", "\"2026-1-1\""}},
    {SCHEMA,
     "{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":105}",
     {"-12", "-1", "0", "9", "10", "99", "104"},
     {"-13", "105", "1000", "-0", "1.0", "007", ""}},
    {SCHEMA,
     "{\"type\":\"integer\",\"minimum\":995}",
     {"995", "1000", "9999999999999999"},
     {"994", "-1", "10000000000000000"}},
    {SCHEMA,
     "{\"type\":\"number\",\"minimum\":0,\"exclusiveMaximum\":1.25}",
     {"0", "0.0", "1", "1.2", "1.2499", "0.999"},
     {"1.25", "1.250", "1.3", "2", "-0.1", "0.", "1e0"}},
    {SCHEMA,
     "{\"type\":\"number\",\"exclusiveMinimum\":-0.5,\"maximum\":-0.25}",
     {"-0.25", "-0.49", "-0.3"},
     {"-0.5", "-0.24", "0", "-0.50", "0.3"}},
    {SCHEMA,
     "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":2}",
     {"[true]", "[ true, false ]"},
     {"[]", "[true,true,true]", "[1]", "[true,]"}},
    {SCHEMA, "{\"type\":\"array\",\"items\":false}", {"[]"}, {"[1]"}},
    {SCHEMA,
     "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"minItems\":1}",
     {"[1]", "[1,2]"},
     {"[]", "[2]", "[1,2,3]"}},
    {SCHEMA,
     "{\"type\":\"array\",\"items\":[{\"const\":1}],\"additionalItems\":{\"const\":2}}",
     {"[]", "[1]", "[1,2,2]"},
     {"[2]", "[1,1]"}},
    {SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{"
     "\"const\":3}},"
     "\"required\":[\"b\"]}",
     {"{\"b\":2}", "{\"a\":1,\"b\":2}", "{\"b\": 2, \"c\": 3}", "{\"a\":1, \"b\":2,\"c\":3}"},
     {"{}", "{\"a\":1}", "{\"b\":2,\"a\":1}", "{\"b\":2,\"d\":1}", "{\"a\":1,\"c\":3}",
      "{,\"b\":2}", "{\"b\":2,}"}},
    {SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}}}",
     {"{}", "{\"a\":1}", "{ }"},
     {"{\"b\":1}"}},
    {SCHEMA,
     "{\"properties\":{\"ab\":{\"const\":1}},\"additionalProperties\":{\"const\":2}}",
     {"{}", "{\"ab\":1}", "{\"a\":2}", "{\"ab\":1,\"abc\":2,\"\":2}", "{\"x\\u0061\":2}",
      "{\"\xc3\xa9\":2}"},
     {"{\"ab\":2}", "{\"ab\":1,\"ab\":2}", "{\"\\u0061b\":2}", "{\"a\\u0062\":2}", "{\"a\":1}",
      "{\"a\":2,}"}},
    {SCHEMA,
     "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"}}",
     {"{}", "{\"q\":null}"},
     {"{\"q\":1}", "{\"q\":null,}"}},
    {SCHEMA, "{\"type\":\"object\",\"required\":[\"a\"]}", {"{\"a\":[1]}"}, {"{}", "{\"b\":1}"}},
    {SCHEMA,
     "{\"enum\":[\"x\",1,null,{\"a\":[1,2]},0.1]}",
     {"\"x\"", "1", "null", "{\"a\":[1,2]}", "0.1"},
     {"2", "\"y\"", "{\"a\":[1, 2]}"}},
    {SCHEMA, "{\"enum\":[\"x\",1,null],\"type\":[\"string\",\"null\"]}", {"\"x\"", "null"}, {"1"}},
    {SCHEMA,
     "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"title\":\"t\"}",
     {"null", "true"},
     {"1"}},
    {SCHEMA,
     "{\"type\":[\"string\",\"integer\"],\"anyOf\":[{\"minLength\":1},{\"maximum\":3}]}",
     {"\"a\"", "3"},
     {"null"}},
    {SCHEMA,
     "{\"allOf\":[{\"$ref\":\"#/definitions/"
     "a\"},{\"properties\":{\"c\":{\"const\":2}},\"required\":[\"c\"]}],"
     "\"definitions\":{\"a\":{\"type\":\"object\",\"properties\":{\"b\":{\"const\":1}},"
     "\"required\":[\"b\"]}}}",
     {"{\"b\":1,\"c\":2}"},
     {"{\"b\":1}", "{\"c\":2}"}},
    {SCHEMA,
     "{\"$ref\":\"#/$defs/l\",\"$defs\":{\"l\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
     "l\"}}}}",
     {"[]", "[[],[[]]]"},
     {"[1]"}},
    {SCHEMA, "{\"$ref\":\"#/$defs/a~1b\",\"$defs\":{\"a/b\":{\"const\":5}}}", {"5"}, {"6"}},
    {GRAMMAR_CHOICE,
     "[\"yes\",\"yes, but\",\"\xc3\xa9\"]",
     {"yes", "yes, but", "\xc3\xa9"},
     {"no", "yes,", ""}},
    {GRAMMAR_REGEX, "(?:a|bc)*|x{2,3}?", {"", "a", "abca", "xx", "xxx"}, {"x", "xxxx", "ab", "b"}},
    {GRAMMAR_REGEX, "[^a-y\\d]+[\\w-]\\.", {"z-.", "\xe3\x81\x82_."}, {"a-.", "z.", "z-", "0-."}},
    {GRAMMAR_REGEX, "(a?){3}b", {"b", "aaab"}, {"aaaab", ""}},
};

static void takes_what_it_says(void **state) {
    (void)state;
    tokenizer *t;
    grammar_vocab *v = open_vocab(&t, NULL);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const text_case *c = &CASES[i];
        grammar *g = NULL;
        grammar_masks *m = NULL;
        status s = compile(v, c->kind, c->source, &g);
        if (!status_is_ok(&s)) fail_msg("%s: %s", c->source, s.message);
        s = grammar_masks_create(g, v, &m);
        assert_true(status_is_ok(&s));
        for (size_t j = 0; j < 8 && c->taken[j]; j++)
            if (!is_answer(m, c->taken[j])) fail_msg("%s does not take %s", c->source, c->taken[j]);
        for (size_t j = 0; j < 10 && c->refused[j]; j++)
            if (is_answer(m, c->refused[j])) fail_msg("%s takes %s", c->source, c->refused[j]);
        grammar_masks_destroy(m);
        grammar_destroy(g);
    }
    grammar_vocab_destroy(v);
    tokenizer_close(t);
}

static const struct {
    grammar_kind kind;
    const char *source, *said; // a part of the message
} REFUSED[] = {
    {SCHEMA, "{", "line 1"},
    {SCHEMA, "[]", "a schema is an object"},
    {SCHEMA, "{\"properties\":{\"age\":{\"multipleOf\":5}}}", "at $.properties.age: 'multipleOf'"},
    {SCHEMA, "{\"anyOf\":[{\"type\":\"null\"},{\"not\":{}}]}", "at $.anyOf.1: 'not'"},
    {SCHEMA, "{\"items\":{\"type\":\"array\",\"uniqueItems\":true}}", "at $.items: 'uniqueItems'"},
    {SCHEMA, "{\"type\":\"text\"}", "'type' is 'text'"},
    {SCHEMA, "{\"$ref\":\"http://else.where/\"}", "only places in the same schema"},
    {SCHEMA, "{\"$ref\":\"#/$defs/none\"}", "which is not there"},
    {SCHEMA, "{\"$ref\":\"#\"}", "no answer meets it"},
    {SCHEMA,
     "{\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{\"const\":1}]}},\"$ref\":\"#/$defs/"
     "a\"}",
     "itself again"},
    {SCHEMA, "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
     "no answer meets it"},
    {SCHEMA, "false", "no answer meets it"},
    {SCHEMA, "{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", "no answer meets it"},
    {SCHEMA, "{\"minLength\":5,\"maxLength\":4}", "contradict"},
    {SCHEMA, "{\"type\":\"array\",\"minItems\":-1}", "'minItems' is no count"},
    {SCHEMA, "{\"pattern\":\"a\",\"maxLength\":4}", "'pattern' is not supported beside"},
    {SCHEMA, "{\"pattern\":\"(?=a)b\"}", "at byte"},
    {SCHEMA, "{\"enum\":[1],\"minimum\":1}", "'minimum' is not supported beside 'enum'"},
    {SCHEMA,
     "{\"properties\":{\"a\":{}},\"additionalProperties\":false,\"anyOf\":[{\"properties\":{\"b\":{"
     "}}}]}",
     "'anyOf'"},
    {SCHEMA, "{\"properties\":{},\"additionalProperties\":false,\"required\":[\"b\"]}",
     "'required' names 'b'"},
    {SCHEMA, "{\"const\":\"~\"}", "no token for byte 0x7e"},
    {GRAMMAR_CHOICE, "[]", "at least one text"},
    {GRAMMAR_CHOICE, "[\"\"]", "none empty"},
    {GRAMMAR_REGEX, "a{2,1}", "a repetition that means nothing"},
    {GRAMMAR_REGEX, "((((a{1000}){1000}){1000}){1000})", "too large"},
    {GRAMMAR_REGEX, "(a", "without its end"},
    {GRAMMAR_REGEX, "a\\1", "an escape that is not supported"},
    {GRAMMAR_REGEX, "a^b", "a sign out of place"},
};

static void says_what_it_cannot(void **state) {
    (void)state;
    tokenizer *t;
    grammar_vocab *v = open_vocab(&t, "~");
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        grammar *g = NULL;
        status s = compile(v, REFUSED[i].kind, REFUSED[i].source, &g);
        if (s.code != STATUS_INVALID_ARGUMENT || !strstr(s.message, REFUSED[i].said))
            fail_msg("%s: %s", REFUSED[i].source, s.message);
    }
    grammar_vocab_destroy(v);
    tokenizer_close(t);
}

// A source's length may cost memory and time, never the stack of the thread that compiles it.
typedef struct long_source {
    grammar_vocab *v;
    const char *text;
    status why;
    bool fits;
} long_source;

static void *compile_long(void *argument) {
    long_source *l = argument;
    grammar *g = NULL;
    grammar_masks *m = NULL;
    l->why = compile(l->v, GRAMMAR_REGEX, l->text, &g);
    if (status_is_ok(&l->why)) l->why = grammar_masks_create(g, l->v, &m);
    grammar_matcher *x = m ? grammar_matcher_create(m) : NULL;
    l->fits = x && goes_on(x, "aaaa");
    grammar_matcher_destroy(x);
    grammar_masks_destroy(m);
    grammar_destroy(g);
    return NULL;
}

static void needs_little_stack(void **state) {
    (void)state;
    enum { OPTIONAL = 14000, STACK = 512 << 10 };
    tokenizer *t;
    grammar_vocab *v = open_vocab(&t, NULL);
    char *text = malloc(2 * OPTIONAL + 2);
    assert_non_null(text);
    for (int i = 0; i < OPTIONAL; i++) memcpy(text + (ptrdiff_t)2 * i, "a?", 2);
    strcpy(text + (ptrdiff_t)2 * OPTIONAL, "b");
    long_source l = {.v = v, .text = text};
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, compile_long, &l), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    if (!status_is_ok(&l.why)) fail_msg("%s", l.why.message);
    assert_true(l.fits);
    free(text);
    grammar_vocab_destroy(v);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_it_says),
        cmocka_unit_test(says_what_it_cannot),
        cmocka_unit_test(needs_little_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
