#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/route/detectors.h"

enum { EMAIL, PHONE, CARD, IBAN, SSN, BUILT_IN };

static detectors *all_on(void) {
    detectors *d = detectors_create();
    assert_non_null(d);
    assert_int_equal(detectors_count(d), BUILT_IN);
    for (int i = 0; i < BUILT_IN; i++) detectors_set(d, detectors_name(d, i), DETECTOR_REDACT);
    return d;
}

static void redacts(const detectors *d, const char *text, const char *want) {
    buf out = buf_make(1 << 20);
    assert_true(detectors_redact(d, text, strlen(text), &out));
    if (strcmp(buf_string(&out), want) != 0)
        fail_msg("'%s' became '%s', not '%s'", text, buf_string(&out), want);
    buf_free(&out);
}

static void only(int which, const char *const *found, const char *const *other) {
    detectors *d = detectors_create();
    for (int i = 0; i < BUILT_IN; i++)
        detectors_set(d, detectors_name(d, i), i == which ? DETECTOR_REDACT : DETECTOR_OFF);
    for (; *found; found++) {
        detector_findings f = {0};
        detectors_scan(d, *found, strlen(*found), &f);
        if (f.found[which] != 1) fail_msg("found %u times in '%s'", f.found[which], *found);
        assert_int_equal(f.limits, 0);
    }
    for (; *other; other++) {
        detector_findings f = {0};
        detectors_scan(d, *other, strlen(*other), &f);
        if (f.found[which]) fail_msg("found in '%s'", *other);
    }
    detectors_destroy(d);
}

static void emails(void **state) {
    (void)state;
    only(EMAIL,
         (const char *const[]){"jane@example.com", "Mail: <a.b+c_d@sub.example.co.uk>.",
                               "mailto:o'neil@example.org?subject=x", "jürgen@müller.de",
                               "x@xn--bcher-kva.example", "用户@例子.公司", NULL},
         (const char *const[]){"@home", "a@b", "git@", "user@host:22", "foo @ example.com",
                               "decorator @app.route", NULL});
}

static void phones(void **state) {
    (void)state;
    only(PHONE,
         (const char *const[]){"+49 30 1234567", "+1 (555) 123-4567", "0049-30-1234567",
                               "(555) 123-4567", "555-123-4567", "call 030 1234567 now",
                               "0171/2345678", "01712345678", "+442071838750",
                               "tel:+33.1.23.45.67.89", "020 7183 8750", NULL},
         (const char *const[]){"2026-11-24", "1,234,567.89", "192.168.100.200", "version 10.20.30",
                               "12345678", "0.123456789", "id 0", "3.14159265358979", "0x12345678",
                               NULL});
}

static void cards(void **state) {
    (void)state;
    only(CARD,
         (const char *const[]){
             "4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "340000000000009",
             "order 12 4111 1111 1111 1111 12 pieces", "6011000000000004", "30000000000004",
             "3530111333300000", "2223003122003222", "6200000000000005",
             "4111\xc2\xa0"
             "1111\xc2\xa0"
             "1111\xc2\xa0"
             "1111",
             "5018000000000009", "4111.1111.1111.1111", "4111_1111_1111_1111",
             "4111/1111/1111/1111", "3400.000000.00009", "4111 - 1111 - 1111 - 1111",
             "4111111111111111EUR", "x4111111111111111",
             // full-width, Arabic-Indic, Devanagari and mathematical digits
             "\uff14\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11"
             "\uff11\uff11\uff11\uff11\uff11\uff11",
             "\u0664\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 "
             "\u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661",
             "\u096a111111111111111", "\U0001d7d2111111111111111",
             // zero-width space and joiners, a soft hyphen, a byte order mark
             "4\u200b1\u200c1\u200d1\u2060 1111\ufeff1111\u00ad1111",
             // every kind of blank and dash
             "4111\u20021111\u30001111\u00a01111", "4111\u20121111\u22121111\uff0d1111", NULL},
         (const char *const[]){"4111111111111112", "1234567890123456", "41111111111111111111",
                               "0000000000000000", "9999999999999995", "4111", "4.111111111111111",
                               "4111.11.11.11111111", "411111111111111a1", NULL});
}

static void ibans(void **state) {
    (void)state;
    only(IBAN,
         (const char *const[]){"DE89370400440532013000", "DE89 3704 0044 0532 0130 00 PLEASE",
                               "gb82 west 1234 5698 7654 32 thanks a lot",
                               "FR14 2004 1010 0505 0001 3M02 606", "NO9386011117947",
                               "IBAN:MT84MALT011000012345MTLCAST001S",
                               "DE89.3704.0044.0532.0130.00", "DE89-3704-0044-0532-0130-00",
                               "DE89370400440532013000now", "ZZ22370400440532013000",
                               "\uff24\uff2589370400440532013000",
                               "DE89\u200b3704 0044 0532 0130 \u0660\u0660", NULL},
         (const char *const[]){"DE88370400440532013000", "DE89", "DE863704004405320130",
                               "AB12CD34EF56GH78IJ90", "XDE89370400440532013000",
                               "DE893704004405320130001", "MK002035d5ec4125c445", NULL});
}

static void social_security_numbers(void **state) {
    (void)state;
    only(SSN,
         (const char *const[]){"123-45-6789", "SSN 123 45 6789", "ssn: 123456789",
                               "Social Security number is 123456789", "123.45.6789", "123/45/6789",
                               "\uff11\uff12\uff13-45-6789",
                               "123\u2011"
                               "45\u2011"
                               "6789",
                               "1\u200b2\u200b3-45-6789", NULL},
         (const char *const[]){"000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567",
                               "123-45-0000", "123456789", "1123-45-6789", "123-45-67890",
                               "123.45/6789", NULL});
}

static void findings_are_replaced(void **state) {
    (void)state;
    detectors *d = all_on();
    redacts(d, "", "");
    redacts(d, "nothing here", "nothing here");
    redacts(d, "a@b.cd", "[email]");
    redacts(d, "I am jane@example.com, call +49 30 1234567 or write joe@example.com!",
            "I am [email], call [phone] or write [email]!");
    redacts(d, "pay 4111 1111 1111 1111 from DE89 3704 0044 0532 0130 00 now",
            "pay [card] from [iban] now");
    redacts(d,
            "a@b.cd\xff"
            "e@f.gh\xc3",
            "[email]\xff[email]\xc3"); // not UTF-8
    redacts(d, "x\xc3\xa4@b.cd", "[email]");
    // a number that only stands alone once its neighbour is gone
    redacts(d, "4111111111111111+49 30 1234567", "[card][phone]");
    detectors_set(d, "email", DETECTOR_OFF);
    redacts(d, "jane@example.com", "jane@example.com");
    detectors_destroy(d);
}

// What is found in the text as it is read is replaced in the text as it is written.
static void written_otherwise(void **state) {
    (void)state;
    detectors *d = all_on();
    redacts(d, "caf\u00e9 jane\uff20example\uff0ecom \u2014 bye", "caf\u00e9 [email] \u2014 bye");
    redacts(d, "to jane\u200b@exam\u00adple.com\u200b!", "to [email]\u200b!");
    redacts(d, "\u300c\uff14111 1111 1111 111\uff11\u300d", "\u300c[card]\u300d");
    redacts(d, "\xff \u06f4111\u2009111\u06f1 1111 1111\xc3", "\xff [card]\xc3");
    redacts(d, "nothing\u00a0here, \uff11\uff12\uff13", "nothing\u00a0here, \uff11\uff12\uff13");
    detectors_destroy(d);
}

static void redacted_text_has_no_findings(void **state) {
    (void)state;
    static const char *const texts[] = {
        "a@b.cd c@d.ef 4111111111111111 5500000000000004 123-45-6789 +49301234567 0301234567",
        "4111 1111 1111 1111 4111 1111 1111 1111", "DE89370400440532013000DE89370400440532013000",
        "jane@example.com4111111111111111", "+49 30 1234567 +49 30 1234567 555-123-4567"};
    detectors *d = all_on();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buf out = buf_make(1 << 16);
        assert_true(detectors_redact(d, texts[i], strlen(texts[i]), &out));
        detector_findings f = {0};
        detectors_scan(d, buf_string(&out), out.size, &f);
        for (int k = 0; k < BUILT_IN; k++)
            if (f.found[k]) fail_msg("%s is left in '%s'", detectors_name(d, k), buf_string(&out));
        buf_free(&out);
    }
    detectors_destroy(d);
}

static void patterns_are_added(void **state) {
    (void)state;
    detectors *d = all_on();
    status s = detectors_add(d, "ticket", "TCK-[0-9]{6}", CHECK_NONE, DETECTOR_REDACT);
    assert_int_equal(s.code, STATUS_OK);
    s = detectors_add(d, "member", "\\b\\d{8}\\b", CHECK_LUHN, DETECTOR_REDACT);
    assert_int_equal(s.code, STATUS_OK);
    redacts(d, "TCK-123456 and TCK-12345", "[ticket] and TCK-12345");
    redacts(d, "of 12345674, not 12345678", "of [member], not 12345678");
    static const struct {
        const char *name, *regex, *why;
    } wrong[] = {
        {"x", "(", "the regex is wrong at its character 2"},
        {"x", "a*", "matches the empty text"},
        {"ticket", "a", "there is a detector 'ticket' already"},
        {"", "a", "name has 1 to"},
        {"x", "\\C", "the regex is wrong"},
        {"word", "(?i)word", "also finds '[word]'"},
        {"x", "mail", "also finds '[email]'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        s = detectors_add(d, wrong[i].name, wrong[i].regex, CHECK_NONE, DETECTOR_REDACT);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        if (!strstr(s.message, wrong[i].why)) fail_msg("%s", s.message);
    }
    assert_false(detectors_set(d, "nothing", DETECTOR_OFF));
    detectors_destroy(d);
}

// A pattern that explodes, a look-ahead that matches nothing, more candidates than are looked at:
// nobody knows what is there, so it counts as found and is not redacted.
static void limits_close_the_door(void **state) {
    (void)state;
    static const char *const regexes[] = {"(a+)+$", "(?=y)"};
    for (int i = 0; i < 2; i++) {
        detectors *d = all_on();
        status s = detectors_add(d, "bad", regexes[i], CHECK_NONE, DETECTOR_REDACT);
        assert_int_equal(s.code, STATUS_OK);
        const char *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay";
        detector_findings f = {0};
        detectors_scan(d, text, strlen(text), &f);
        assert_int_equal(f.limits, 1);
        buf out = buf_make(1 << 16);
        assert_false(detectors_redact(d, text, strlen(text), &out));
        buf_free(&out);
        detectors_destroy(d);
    }
    detectors *d = all_on();
    enum { SIZE = 2 << 20 };
    char *many = malloc(SIZE);
    for (int i = 0; i < SIZE; i++) many[i] = i % 2 ? ' ' : '4';
    detector_findings f = {0};
    detectors_scan(d, many, SIZE, &f);
    assert_true(f.limits > 0);
    free(many);
    detectors_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emails),
        cmocka_unit_test(phones),
        cmocka_unit_test(cards),
        cmocka_unit_test(ibans),
        cmocka_unit_test(social_security_numbers),
        cmocka_unit_test(findings_are_replaced),
        cmocka_unit_test(written_otherwise),
        cmocka_unit_test(redacted_text_has_no_findings),
        cmocka_unit_test(patterns_are_added),
        cmocka_unit_test(limits_close_the_door),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
