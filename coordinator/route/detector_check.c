#include "coordinator/route/detector_check.h"

#include <ctype.h>
#include <string.h>

enum {
    SYMBOLS_MAX = 64, // letters and digits of a match that are looked at
    CARD_DIGITS_MIN = 12,
    CARD_DIGITS_MAX = 19,
    IBAN_MIN = 15, // Norway
    IBAN_MAX = 34,
    PHONE_MIN = 8,
    PHONE_MAX = 15, // E.164
};

// The letters (as capitals) and digits of a match, without what separates them.
typedef struct symbols {
    char of[SYMBOLS_MAX];
    int count;
    bool all_digits;
} symbols;

static bool luhn(const symbols *s) {
    int sum = 0;
    for (int i = 0; i < s->count; i++) {
        int digit = s->of[s->count - 1 - i] - '0';
        if (i % 2) digit = digit * 2 - (digit > 4 ? 9 : 0);
        sum += digit;
    }
    return s->count > 1 && sum % 10 == 0;
}

static int prefix(const symbols *s, int digits) {
    int value = 0;
    for (int i = 0; i < digits; i++) value = value * 10 + (s->of[i] - '0');
    return value;
}

// Networks by the first digits (ISO/IEC 7812 ranges as the networks publish them).
static bool is_card(const symbols *s) {
    if (!s->all_digits || s->count < CARD_DIGITS_MIN || s->count > CARD_DIGITS_MAX) return false;
    int two = prefix(s, 2), three = prefix(s, 3), four = prefix(s, 4), n = s->count;
    bool visa = s->of[0] == '4' && (n == 13 || n == 16 || n == 19);
    bool mastercard = n == 16 && ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720));
    bool amex = n == 15 && (two == 34 || two == 37);
    bool diners =
        n >= 14 && ((three >= 300 && three <= 305) || two == 36 || two == 38 || two == 39);
    bool jcb = n >= 16 && four >= 3528 && four <= 3589;
    bool maestro = two == 50 || (two >= 56 && two <= 69); // with Discover, UnionPay, Mir and RuPay
    bool mir = n >= 16 && four >= 2200 && four <= 2204;
    return (visa || mastercard || amex || diners || jcb || maestro || mir) && luhn(s);
}

// Lengths by country (the IBAN registry of ISO 13616).
static int iban_length(const char *country) {
    static const char lengths[][5] = {
        "NO15", "BE16", "DK18", "FI18", "FK18", "FO18", "GL18", "NL18", "SD18", "MK19",
        "SI19", "AT20", "BA20", "EE20", "KZ20", "LT20", "LU20", "MN20", "XK20", "CH21",
        "HR21", "LI21", "LV21", "BG22", "BH22", "CR22", "DE22", "GB22", "GE22", "IE22",
        "ME22", "RS22", "VA22", "AE23", "GI23", "IL23", "IQ23", "OM23", "SO23", "TL23",
        "AD24", "CZ24", "ES24", "MD24", "PK24", "RO24", "SA24", "SE24", "SK24", "TN24",
        "VG24", "LY25", "PT25", "ST25", "IS26", "TR26", "BI27", "DJ27", "FR27", "GR27",
        "IT27", "MC27", "MR27", "SM27", "AL28", "AZ28", "BY28", "CY28", "DO28", "GT28",
        "HN28", "HU28", "LB28", "NI28", "PL28", "SV28", "BR29", "EG29", "PS29", "QA29",
        "UA29", "JO30", "KW30", "MU30", "YE30", "MT31", "SC31", "LC32", "RU33"};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        if (memcmp(lengths[i], country, 2) == 0)
            return (lengths[i][2] - '0') * 10 + lengths[i][3] - '0';
    return 0; // it may have joined since
}

// ISO 7064 mod 97-10 as IBANs use it: the first four symbols count last.
static bool mod97(const symbols *s) {
    int rest = 0;
    for (int i = 0; i < s->count; i++) {
        char c = s->of[(i + 4) % s->count];
        int value = isdigit((unsigned char)c) ? c - '0' : c - 'A' + 10;
        rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
    }
    return rest == 1;
}

static bool is_iban(const symbols *s) {
    if (s->count < IBAN_MIN || s->count > IBAN_MAX) return false;
    int length = iban_length(s->of);
    return (!length || s->count == length) && mod97(s);
}

static bool is_ssn(const symbols *s) {
    symbols digits = {.all_digits = true}; // "SSN" and the like may stand before them
    for (int i = 0; i < s->count; i++)
        if (isdigit((unsigned char)s->of[i])) digits.of[digits.count++] = s->of[i];
    if (digits.count != 9) return false;
    int area = prefix(&digits, 3), serial = (prefix(&digits, 9)) % 10000,
        group = prefix(&digits, 5) % 100;
    return area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
}

static bool passes(detector_check check, const symbols *s) {
    switch (check) {
    case CHECK_NONE:
        return true;
    case CHECK_CARD:
        return is_card(s);
    case CHECK_LUHN:
        return s->all_digits && luhn(s);
    case CHECK_MOD97:
        return is_iban(s);
    case CHECK_US_SSN:
        return is_ssn(s);
    case CHECK_PHONE:
        return s->all_digits && s->count >= PHONE_MIN && s->count <= PHONE_MAX;
    }
    return true; // an unknown check leaves the match standing
}

// Whether the symbols so far can be all of it, with `next` behind them. Digits end where a letter
// begins; in an IBAN, which has both, only if its country's length says that it ends there.
static bool may_end(detector_check check, const symbols *s, unsigned char next) {
    if (!isalnum(next)) return true;
    bool turn = isdigit((unsigned char)s->of[s->count - 1]) && !isdigit(next);
    if (check == CHECK_CARD || check == CHECK_LUHN) return turn;
    return check == CHECK_MOD97 && turn && s->count >= IBAN_MIN && iban_length(s->of) == s->count;
}

size_t detector_check_run(detector_check check, const char *text, size_t matched, size_t rest) {
    if (check == CHECK_NONE) return matched;
    symbols s = {.all_digits = true};
    size_t best = 0;
    for (size_t i = 0; i < matched; i++) {
        if (!isalnum((unsigned char)text[i])) continue;
        if (s.count == SYMBOLS_MAX) break;
        s.of[s.count++] = (char)toupper((unsigned char)text[i]);
        s.all_digits &= isdigit((unsigned char)text[i]) != 0;
        unsigned char next = i + 1 == rest ? ' ' : (unsigned char)text[i + 1];
        if (may_end(check, &s, next) && passes(check, &s)) best = i + 1;
    }
    return best;
}
