// What is cut in two at a seam is found and replaced on both sides, and nothing else is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/route/contents.h"
#include "coordinator/route/conversation.h"

enum { EMAIL, PHONE, CARD, IBAN, SSN, SHOUT }; // the last is the test's own

static int setup(void **state) {
    detectors *d = detectors_create();
    status s = detectors_add(d, "shout", "HAL\\s+LO", CHECK_NONE, DETECTOR_REDACT);
    assert_int_equal(s.code, STATUS_OK);
    *state = d;
    return 0;
}

static int teardown(void **state) {
    detectors_destroy(*state);
    return 0;
}

static json_t *parse(const char *text) {
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
    if (!value) fail_msg("%s: %s", text, error.text);
    return value;
}

typedef struct talk {
    json_t *messages, *seams;
} talk;

// Roles' first letters and contents: "u", "text", "s", "text", ...; a '|' in a content is a seam.
static talk talk_of(const char *const *words) {
    talk t = {json_array(), json_array()};
    for (; *words; words += 2) {
        const char *role = **words == 'u'   ? "user"
                           : **words == 's' ? "system"
                           : **words == 't' ? "tool"
                                            : "assistant";
        char *text = strdup(words[1]);
        json_t *places = json_array();
        for (char *at = text; (at = strchr(at, '|')); *at = '\n')
            json_array_append_new(places, json_integer(at - text));
        json_array_append_new(t.seams, places);
        json_array_append_new(t.messages, json_pack("{s:s, s:s}", "role", role, "content", text));
        free(text);
    }
    return t;
}

static void talk_free(talk *t) {
    json_decref(t->messages);
    json_decref(t->seams);
}

#define TALK(...) talk_of((const char *const[]){__VA_ARGS__, NULL})

static void finds(const detectors *d, talk t, int which, uint32_t across) {
    detector_findings f = {0};
    conversation_scan(d, t.messages, t.seams, &f);
    char *text = json_dumps(t.messages, JSON_COMPACT);
    if (f.across[which] != across || f.limits)
        fail_msg("%u across, %d limits, in %s", f.across[which], f.limits, text);
    assert_true(f.found[which] >= across);
    free(text);
    talk_free(&t);
}

// The copy's contents: alternately message and the text that it must have; NULL: there is none.
static void redacts(const detectors *d, talk t, const char *const *want) {
    json_t *copy = conversation_redact(d, t.messages, t.seams);
    if (!copy != !want) fail_msg("there is %s copy", copy ? "a" : "no");
    for (size_t i = 0; want && i < json_array_size(t.messages); i++) {
        const json_t *message = json_array_get(copy, i);
        const char *got = json_string_value(json_object_get(message, "content"));
        assert_string_equal(got, want[i]);
        assert_true(json_equal(json_object_get(message, "role"),
                               json_object_get(json_array_get(t.messages, i), "role")));
    }
    json_decref(copy);
    talk_free(&t);
}

#define WANT(...) ((const char *const[]){__VA_ARGS__})

static void over_parts(void **state) {
    const detectors *d = *state;
    finds(d, TALK("u", "my card: 4111 1111|1111 1111, thanks"), CARD, 1);
    finds(d, TALK("u", "4111 1111||1111 1111"), CARD, 1); // an empty part between
    finds(d, TALK("u", "4|1|1|1|1|1|1|1|1|1|1|1|1|1|1|1"), CARD, 1);
    finds(d, TALK("u", "4111 1111|1111 1111|12 pieces"), CARD, 1);
    finds(d, TALK("t", "DE89 3704 0044|0532 0130 00"), IBAN, 1);
    finds(d, TALK("a", "ssn 123-|45-6789"), SSN, 1);
    finds(d, TALK("u", "jane@exa|mple.com"), EMAIL, 1);
    finds(d, TALK("u", "HAL|LO"), SHOUT, 1);              // a blank is wanted between
    finds(d, TALK("u", "4111 1111\n1111 1111"), CARD, 0); // lines of one text are no seam
    finds(d, TALK("u", "4111|1112|1111|1111"), CARD, 0);
    redacts(d, TALK("u", "card 4111 1111|1111 1111, thanks"), WANT("card [card]\n[card], thanks"));
    redacts(d, TALK("u", "I am jane@exa|mple.com or jo@ex.org.|And 4|111 1111|1111 1111."),
            WANT("I am [email]\n[email] or [email].\nAnd [card]\n[card]\n[card]."));
    redacts(d, TALK("u", "a||b|"), WANT("a\n\nb\n"));
}

// Cut at any place, into parts or messages, it is found, and no four characters of it stay.
static void cut_anywhere(void **state) {
    const detectors *d = *state;
    static const struct {
        int which;
        const char *text;
    } whole[] = {{EMAIL, "jane.doe@post.example.com"},
                 {PHONE, "+49 30 1234567"},
                 {CARD, "4111 1111 1111 1111"},
                 {IBAN, "DE89370400440532013000"},
                 {SSN, "123-45-6789"}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        size_t size = strlen(whole[i].text);
        for (size_t cut = 1; cut < 2 * size; cut++) {
            char first[64], second[64];
            bool parts = cut < size;
            int at = (int)(parts ? cut : cut - size);
            snprintf(first, sizeof first, "it is %.*s%s%s", at, whole[i].text, parts ? "|" : "",
                     parts ? whole[i].text + at : "");
            snprintf(second, sizeof second, "%s, ok", parts ? "" : whole[i].text + at);
            talk t = TALK("u", first, "u", second);
            detector_findings f = {0};
            conversation_scan(d, t.messages, t.seams, &f);
            if (!f.found[whole[i].which]) fail_msg("not found in '%s' '%s'", first, second);
            json_t *copy = conversation_redact(d, t.messages, t.seams);
            char *left = json_dumps(copy, JSON_COMPACT);
            for (size_t k = 0; k + 4 <= size; k++) {
                char some[5] = "";
                memcpy(some, whole[i].text + k, 4);
                if (strstr(left, some)) fail_msg("'%s' stays of '%s' '%s'", some, first, second);
            }
            free(left);
            json_decref(copy);
            talk_free(&t);
        }
    }
}

static void over_messages(void **state) {
    const detectors *d = *state;
    finds(d, TALK("u", "4111 1111", "u", "1111 1111"), CARD, 1);
    finds(d, TALK("u", "x", "u", "4111 1|111", "u", "", "u", "1111 1111"), CARD, 1);
    finds(d, TALK("u", "4111 1111", "a", "1111 1111"), CARD, 0); // another role
    finds(d, TALK("u", "4111 1111", "a", "ok", "u", "1111 1111"), CARD, 0);
    finds(d, TALK("s", "4111 1111", "u", "ok", "s", "1111 1111"), CARD, 1); // some make one of them
    redacts(
        d,
        TALK("s", "say 4111 1111", "u", "hi", "s", "1111 1111 always", "u", "jane@", "u", "a.de!"),
        WANT("say [card]", "hi", "[card] always", "[email]", "[email]!"));
}

// Half of an address may be one, too: all of it goes, and with it the word that touches it.
static void nothing_of_it_stays(void **state) {
    const detectors *d = *state;
    redacts(d, TALK("u", "I am jane.d|oe@example.com."), WANT("I am [email]\n[email]."));
    redacts(d, TALK("u", "call +49 30 12345|678"), WANT("call [phone]\n[phone]"));
    redacts(d, TALK("u", "to jane@example.com|Thanks, Joe", "u", "Jane"),
            WANT("to [email]\n[email], Joe", "Jane"));
    redacts(d, TALK("u", "to jane@example.com.|Thanks, Joe"), WANT("to [email].\nThanks, Joe"));
    finds(d, TALK("u", "nothing|to find", "u", "here"), CARD, 0);
    redacts(d, TALK("u", "nothing|to find", "u", "here"), WANT("nothing\nto find", "here"));
}

// What is found with nothing at the seams must not hide what a blank there shows: that one is
// stricter, and alone decides.
static void the_stricter_one_is_seen(void **state) {
    (void)state;
    detectors *d = detectors_create();
    status s = detectors_add(d, "glue", "1111111112", CHECK_NONE, DETECTOR_REDACT);
    assert_int_equal(s.code, STATUS_OK);
    talk t = TALK("u", "4111 1111 1111|1111|12 pieces");
    detector_findings f = {0};
    conversation_scan(d, t.messages, t.seams, &f);
    assert_int_equal(f.across[SHOUT], 1);
    assert_int_equal(f.across[CARD], 1);
    talk_free(&t);
    detectors_destroy(d);
}

static void what_cannot_be_replaced_is_a_limit(void **state) {
    const detectors *d = *state;
    talk t = TALK("u", "jane\\u00|40example.com");
    detector_findings f = {0};
    conversation_scan(d, t.messages, t.seams, &f);
    assert_int_equal(f.limits, 1);
    redacts(d, t, NULL);
}

static void limits_close_the_door(void **state) {
    (void)state;
    detectors *d = detectors_create();
    status s = detectors_add(d, "bad", "(a+)+$", CHECK_NONE, DETECTOR_REDACT);
    assert_int_equal(s.code, STATUS_OK);
    talk t = TALK("u", "yaaaaaaaaaaaaaaaaaaaaaaa|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay");
    detector_findings f = {0};
    conversation_scan(d, t.messages, t.seams, &f);
    assert_true(f.limits > 0);
    redacts(d, t, NULL);
    detectors_destroy(d);
}

static void any_seams_are_survived(void **state) {
    const detectors *d = *state;
    static const char *const seams[] = {"null",       "[]",
                                        "[null]",     "[[]]",
                                        "[7]",        "[[-1, 99999, \"x\", null, 4, 4, 2]]",
                                        "{\"a\": 1}", "[[0], [0], [0]]"};
    json_t *messages = parse("[{\"role\": \"user\", \"content\": \"4111 1111\"},"
                             "{\"role\": \"user\", \"content\": \"1111 1111\"}, 7, {}, null,"
                             "{\"role\": 1, \"content\": [\"jane@example.com\"]}]");
    for (size_t i = 0; i < sizeof seams / sizeof *seams; i++) {
        json_t *given = parse(seams[i]);
        detector_findings f = {0};
        conversation_scan(d, messages, given, &f);
        assert_int_equal(f.across[CARD], 1);
        assert_int_equal(f.found[EMAIL], 1);
        json_decref(conversation_redact(d, messages, given));
        json_decref(given);
    }
    json_decref(messages);
    detector_findings f = {0};
    conversation_scan(d, NULL, NULL, &f);
    assert_int_equal(f.limits, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_parts),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(over_messages),
        cmocka_unit_test(nothing_of_it_stays),
        cmocka_unit_test(the_stricter_one_is_seen),
        cmocka_unit_test(what_cannot_be_replaced_is_a_limit),
        cmocka_unit_test(limits_close_the_door),
        cmocka_unit_test(any_seams_are_survived),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
