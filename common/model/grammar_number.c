// grammar_number: the numbers within bounds, digit by digit: a walk along a bound's digits is
// "tight" while all digits so far are the bound's, and free as soon as one is inside of it. No
// exponents here, so that the order of texts is that of numbers. As many digits behind the point as
// a double tells apart beside the bounds: who parses an answer into doubles finds it within them,
// too.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/grammar_parts.h"

enum { PRECISE_DIGITS = 15 };
static const int64_t WHOLE_MOST = INT64_C(9999999999999999); // GRAMMAR_DIGITS_MAX digits
static const double BOUND_MOST = 1e15;

// A number >= 0 in decimal digits.
typedef struct decimal {
    int64_t whole;
    char part[PRECISE_DIGITS + 1]; // digits behind the point, none of them a last zero
    int digits;
    bool exclusive;
} decimal;

typedef struct magnitudes { // [least, most]
    decimal least, most;
    bool bounded; // else most is as large as numbers get
} magnitudes;

static bool to_decimal(grammar_builder *b, double value, bool exclusive, decimal *out) {
    char text[64];
    *out = (decimal){.exclusive = exclusive};
    for (int digits = 0; digits <= PRECISE_DIGITS && value <= BOUND_MOST; digits++) {
        snprintf(text, sizeof text, "%.*f", digits, value);
        if (strtod(text, NULL) != value) continue;
        out->whole = (int64_t)strtoll(text, NULL, 10);
        const char *point = strchr(text, '.');
        out->digits = point ? (int)strlen(point + 1) : 0;
        memcpy(out->part, point ? point + 1 : "", (size_t)out->digits);
        return true;
    }
    grammar_refuse(b, "the bound %.17g is larger than 1e15 or has more than %d digits", value,
                   PRECISE_DIGITS);
    return false;
}

// ---- whole numbers

static int digits_of(int64_t n) {
    int count = 1;
    for (; n >= 10; n /= 10) count++;
    return count;
}

// All of [least, most], both >= 0, without leading zeros.
static void whole_within(grammar_builder *b, int32_t from, int64_t least, int64_t most,
                         int32_t to) {
    for (int64_t low = least; low <= most && grammar_fine(b);) {
        char first[GRAMMAR_SEQUENCE_MAX], last[GRAMMAR_SEQUENCE_MAX];
        int count = digits_of(low);
        snprintf(first, sizeof first, "%" PRId64, low);
        int64_t high = 9;
        for (int i = 1; i < count; i++) high = high * 10 + 9;
        if (high > most) high = most;
        snprintf(last, sizeof last, "%" PRId64, high);
        grammar_sequences(b, from, first, last, count, '0', '9', to);
        low = high + 1;
    }
}

// ---- digits behind the point

typedef struct fraction {
    grammar_builder *b;
    const decimal *least, *most; // NULL: not this side
    int places;
    int32_t to;
} fraction;

static int digit_at(const decimal *d, int place) {
    return place < d->digits ? d->part[place] - '0' : 0;
}

// Whether the number may end where `place` digits were the bound's.
static bool may_end(const decimal *least, const decimal *most, int place) {
    bool low = !least || (place >= least->digits && !least->exclusive);
    bool high = !most || !most->exclusive || place < most->digits;
    return low && high;
}

static void go_on(const fraction *f, int32_t from, int place, const decimal *least,
                  const decimal *most);

static void take_digits(const fraction *f, int32_t from, int low, int high, int place,
                        const decimal *least, const decimal *most) {
    if (low > high) return;
    int32_t next = grammar_state_beside(f->b, from);
    grammar_bytes(f->b, from, '0' + low, '0' + high, next);
    if (may_end(least, most, place + 1)) grammar_empty(f->b, next, f->to);
    go_on(f, next, place + 1, least, most);
}

// `least` and `most` are those that the digits so far are equal to.
static void go_on(const fraction *f, int32_t from, int place, const decimal *least,
                  const decimal *most) {
    if (place >= f->places || !grammar_fine(f->b)) return;
    if (!least && !most) {
        grammar_digits(f->b, from, f->places - place, f->to);
        return;
    }
    int low = least ? digit_at(least, place) : 0, high = most ? digit_at(most, place) : 9;
    if (low == high) {
        take_digits(f, from, low, high, place, least, most);
        return;
    }
    if (least) take_digits(f, from, low, low, place, least, NULL);
    if (most) take_digits(f, from, high, high, place, NULL, most);
    take_digits(f, from, low + (least != NULL), high - (most != NULL), place, NULL, NULL);
}

// Behind a whole part that is that of the bounds given.
static void fraction_within(fraction *f, int32_t from, const decimal *least, const decimal *most) {
    if (may_end(least, most, 0)) grammar_empty(f->b, from, f->to);
    int32_t point = grammar_state_beside(f->b, from);
    grammar_bytes(f->b, from, '.', '.', point);
    go_on(f, point, 0, least, most);
}

// ---- signs

static int places_for(const magnitudes *m) {
    int64_t largest = m->bounded ? m->most.whole : m->least.whole;
    int places = PRECISE_DIGITS - digits_of(largest);
    if (places < 1) places = 1;
    if (places < m->least.digits) places = m->least.digits;
    if (m->bounded && places < m->most.digits) places = m->most.digits;
    return places;
}

static void decimals_within(grammar_builder *b, int32_t from, const magnitudes *m, int32_t to) {
    fraction f = {.b = b, .places = places_for(m), .to = to};
    int64_t low = m->least.whole, high = m->bounded ? m->most.whole : WHOLE_MOST;
    if (low > high) return;
    const decimal *most = m->bounded ? &m->most : NULL;
    int32_t at = grammar_state_beside(b, from);
    whole_within(b, from, low, low, at);
    fraction_within(&f, at, &m->least, low == high ? most : NULL);
    if (low == high) return;
    int32_t inside = grammar_state_beside(b, from), top = grammar_state_beside(b, from);
    whole_within(b, from, low + 1, high - 1, inside);
    fraction_within(&f, inside, NULL, NULL);
    whole_within(b, from, high, high, top);
    fraction_within(&f, top, NULL, most);
}

static void wholes_within(grammar_builder *b, int32_t from, const magnitudes *m, int32_t to) {
    int64_t low = m->least.whole + (m->least.digits > 0 || m->least.exclusive);
    int64_t high = WHOLE_MOST;
    if (m->bounded) high = m->most.whole - (m->most.exclusive && m->most.digits == 0);
    whole_within(b, from, low, high, to);
}

// The numbers of one sign: `inner` is the bound nearer to zero.
static void one_sign(grammar_builder *b, int32_t from, bool integer, double inner,
                     bool inner_exclusive, const grammar_bound *outer, double sign, int32_t to) {
    magnitudes m = {.bounded = outer->given};
    if (outer->given && (sign * outer->value < inner ||
                         (sign * outer->value == inner && (inner_exclusive || outer->exclusive))))
        return;
    if (!to_decimal(b, inner, inner_exclusive, &m.least)) return;
    if (m.bounded && !to_decimal(b, sign * outer->value, outer->exclusive, &m.most)) return;
    if (integer)
        wholes_within(b, from, &m, to);
    else
        decimals_within(b, from, &m, to);
}

void grammar_number_within(grammar_builder *b, int32_t from, bool integer,
                           const grammar_bound *least, const grammar_bound *most, int32_t to) {
    bool above = least->given && least->value > 0, below = most->given && most->value < 0;
    if (!below)
        one_sign(b, from, integer, above ? least->value : 0,
                 above ? least->exclusive : least->given && least->value == 0 && least->exclusive,
                 most, 1, to);
    if (least->given && least->value >= 0) return;
    int32_t minus = grammar_state_beside(b, from);
    grammar_bytes(b, from, '-', '-', minus);
    one_sign(b, minus, integer, below ? -most->value : 0, below ? most->exclusive : true, least, -1,
             to);
}
