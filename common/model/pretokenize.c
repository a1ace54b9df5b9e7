// The steps run depth first: as soon as one has cut a piece off, the next one cuts that piece. So
// nothing is ever listed, and the memory needed does not grow with the text.
//
// The expressions come from files that were written for Oniguruma. Where PCRE2 reads the same
// letters another way they are translated: \s is White_Space (PCRE2's has U+180E too), \w has marks
// and connectors.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/model/pretokenize.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"

enum { JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 8 << 20, PATTERN_DEPTH_MAX = 50 };

void pretokenizer_free(pretokenizer *p) {
    for (int i = 0; i < p->count; i++) pcre2_code_free(p->steps[i].code);
    *p = (pretokenizer){0};
}

// Appends what PCRE2 writes for the escape \c.
static void translate_escape(char c, bool in_class, buf *out) {
    switch (c) {
    case 's':
        buf_append_string(out, "\\p{White_Space}");
        break;
    case 'S':
        buf_append_string(out, "\\P{White_Space}");
        break;
    case 'w':
        buf_append_string(out, in_class ? "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}"
                                        : "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]");
        break;
    default:
        buf_append_char(out, '\\');
        buf_append_char(out, c);
    }
}

static void translate(const char *pattern, size_t size, buf *out) {
    bool in_class = false;
    for (size_t i = 0; i < size; i++) {
        if (pattern[i] == '\\' && i + 1 < size) {
            translate_escape(pattern[++i], in_class, out);
            continue;
        }
        if (pattern[i] == '[') {
            // A bracket inside a class is literal to PCRE2 and nested to Oniguruma; only literal
            // ones are ever meant.
            in_class = true;
        } else if (pattern[i] == ']') {
            in_class = false;
        }
        buf_append_char(out, pattern[i]);
    }
}

static status compile(const char *pattern, size_t size, pcre2_code **out) {
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a regular expression");
    pcre2_set_parens_nest_limit(context, PATTERN_DEPTH_MAX);
    int error;
    PCRE2_SIZE offset;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    *out = pcre2_compile((PCRE2_SPTR)pattern, size, options, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (!*out) {
        char text[160];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        return status_error(STATUS_INVALID_ARGUMENT,
                            "pre_tokenizer: regular expression '%.*s' fails at byte %zu: %s",
                            (int)(size < 80 ? size : 80), pattern, offset, text);
    }
    // Without JIT (a hardened kernel may forbid it) the interpreter does the same, slower.
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return status_ok();
}

static status add_step(pretokenizer *p, const char *pattern, size_t size, split_behavior behavior,
                       bool invert) {
    if (p->count == PRETOKENIZE_STEPS_MAX)
        return status_error(STATUS_UNIMPLEMENTED, "pre_tokenizer: more than %d steps",
                            PRETOKENIZE_STEPS_MAX);
    pcre2_code *code = NULL;
    TRY(compile(pattern, size, &code));
    p->steps[p->count++] = (struct pretokenize_step){code, behavior, invert};
    return status_ok();
}

status pretokenizer_add(pretokenizer *p, const char *pattern, size_t size, split_behavior behavior,
                        bool invert) {
    if (size == 0 || size > PRETOKENIZE_PATTERN_MAX)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "pre_tokenizer: a regular expression of %zu bytes; 1 to %d are possible", size,
            PRETOKENIZE_PATTERN_MAX);
    buf translated = buf_make(32 * (size_t)PRETOKENIZE_PATTERN_MAX);
    translate(pattern, size, &translated);
    status s = translated.failed
                   ? status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a regular expression")
                   : add_step(p, buf_string(&translated), translated.size, behavior, invert);
    buf_free(&translated);
    return s;
}

status pretokenizer_add_literal(pretokenizer *p, const char *text, size_t size,
                                split_behavior behavior, bool invert) {
    if (size == 0 || size > PRETOKENIZE_PATTERN_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "pre_tokenizer: a pattern of %zu bytes; 1 to %d are possible", size,
                            PRETOKENIZE_PATTERN_MAX);
    buf quoted = buf_make(2 * (size_t)PRETOKENIZE_PATTERN_MAX);
    for (size_t i = 0; i < size; i++) {
        bool plain = (text[i] & 0x80) || (text[i] >= '0' && text[i] <= '9') || text[i] == '_' ||
                     ((text[i] | 0x20) >= 'a' && (text[i] | 0x20) <= 'z');
        if (!plain) buf_append_char(&quoted, '\\');
        buf_append_char(&quoted, text[i]);
    }
    status s = quoted.failed ? status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a pattern")
                             : add_step(p, buf_string(&quoted), quoted.size, behavior, invert);
    buf_free(&quoted);
    return s;
}

void pretokenize_scratch_free(pretokenize_scratch *s) {
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    pcre2_jit_stack_free(s->jit_stack);
    *s = (pretokenize_scratch){0};
}

static status prepare(pretokenize_scratch *s) {
    if (s->match_data) return status_ok();
    s->match_data = pcre2_match_data_create(1, NULL);
    s->match_context = pcre2_match_context_create(NULL);
    if (!s->match_data || !s->match_context)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to match a regular expression");
    pcre2_set_match_limit(s->match_context, PRETOKENIZE_MATCH_MAX);
    return status_ok();
}

// The next match at or after `from`; begin == end == size when there is none.
static status next_match(const pcre2_code *code, pretokenize_scratch *s, const char *text,
                         size_t size, size_t from, size_t *begin, size_t *end) {
    int rc;
    for (;;) {
        rc = pcre2_match(code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                         s->match_data, s->match_context);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT || s->jit_stack) break;
        s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
        if (!s->jit_stack) break;
        pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    }
    if (rc >= 0) {
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(s->match_data);
        // \K in a lookahead may put the start past the end, or before `from`.
        if (found[0] >= from && found[1] > found[0]) {
            *begin = found[0];
            *end = found[1];
            return status_ok();
        }
        rc = PCRE2_ERROR_NOMATCH;
    }
    *begin = *end = size;
    if (rc == PCRE2_ERROR_NOMATCH) return status_ok();
    char message[160];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)message, sizeof message);
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "the tokenizer's regular expression gives up at byte %zu of a text: %s",
                        from, message);
}

typedef struct cutting {
    const pretokenizer *p;
    pretokenize_scratch *scratch;
    pretokenize_word *word;
    void *user;
} cutting;

static status cut(const cutting *c, int step, const char *text, size_t size);

// What a step has cut off and not handed on, since the next segment may belong to it.
typedef struct pending {
    const char *begin;
    size_t size;
    bool is_match;
} pending;

static status flush(const cutting *c, int step, pending *held) {
    size_t size = held->size;
    held->size = 0;
    return size ? cut(c, step + 1, held->begin, size) : status_ok();
}

// Takes the next segment of a step, a match or what lies between two.
static status take(const cutting *c, int step, pending *held, const char *begin, size_t size,
                   bool is_match) {
    const struct pretokenize_step *rule = &c->p->steps[step];
    is_match ^= rule->invert;
    if (size == 0) return status_ok();
    bool joins = false;
    switch (rule->behavior) {
    case SPLIT_ISOLATED:
        break;
    case SPLIT_REMOVED:
        if (is_match) return flush(c, step, held);
        break;
    case SPLIT_WITH_PREVIOUS:
        joins = is_match && !held->is_match;
        break;
    case SPLIT_WITH_NEXT:
        joins = !is_match && held->is_match;
        break;
    case SPLIT_CONTIGUOUS:
        joins = is_match == held->is_match;
        break;
    }
    if (held->size && joins) {
        held->size += size;
        held->is_match = is_match;
        return status_ok();
    }
    TRY(flush(c, step, held));
    *held = (pending){begin, size, is_match};
    return status_ok();
}

static status cut(const cutting *c, int step, const char *text, size_t size) {
    if (step == c->p->count) return c->word(c->user, text, size);
    pending held = {0};
    size_t at = 0, begin, end;
    while (at < size) {
        TRY(next_match(c->p->steps[step].code, c->scratch, text, size, at, &begin, &end));
        TRY(take(c, step, &held, text + at, begin - at, false));
        TRY(take(c, step, &held, text + begin, end - begin, true));
        at = end;
    }
    return flush(c, step, &held);
}

status pretokenize(const pretokenizer *p, pretokenize_scratch *s, const char *text, size_t size,
                   pretokenize_word *word, void *user) {
    if (size == 0) return status_ok();
    TRY(prepare(s));
    const cutting c = {p, s, word, user};
    return cut(&c, 0, text, size);
}
