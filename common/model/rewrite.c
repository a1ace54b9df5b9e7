// Steps run one after the other, each over the whole piece, between two buffers. A piece is a chat
// message or so: that is small next to what BPE does with it. Empty text stays empty: nothing is
// put before nothing.
#include "common/model/rewrite.h"

#include <string.h>

status rewrite_text_set(rewrite_text *t, const char *bytes, size_t size) {
    if (size > REWRITE_TEXT_MAX)
        return status_error(STATUS_UNIMPLEMENTED,
                            "a replacement of %zu bytes in the normalizer; at most %d are possible",
                            size, REWRITE_TEXT_MAX);
    memcpy(t->bytes, bytes, size);
    t->size = size;
    return status_ok();
}

status rewrite_add(rewrite *r, const rewrite_step *step) {
    if (r->count == REWRITE_STEPS_MAX)
        return status_error(STATUS_UNIMPLEMENTED, "more than %d normalizer steps",
                            REWRITE_STEPS_MAX);
    r->steps[r->count++] = *step;
    return status_ok();
}

static void replace(const rewrite_step *step, const char *text, size_t size, buf *out) {
    const char *end = text + size;
    while (text < end) {
        const char *hit = memmem(text, (size_t)(end - text), step->from.bytes, step->from.size);
        if (!hit) break;
        buf_append(out, text, (size_t)(hit - text));
        buf_append(out, step->to.bytes, step->to.size);
        text = hit + step->from.size;
    }
    buf_append(out, text, (size_t)(end - text));
}

// Whether the step would leave the text as it is; cheap to see for all but the normal forms.
static bool is_idle(const rewrite_step *step, const char *text, size_t size, rewrite_place place) {
    switch (step->kind) {
    case REWRITE_FORM:
        return false;
    case REWRITE_REPLACE:
        return !memmem(text, size, step->from.bytes, step->from.size);
    case REWRITE_PREPEND_MISSING:
        if (size >= step->to.size && !memcmp(text, step->to.bytes, step->to.size)) return true;
        break;
    case REWRITE_PREPEND:
        break;
    }
    return !place.opens || (step->only_at_start && !place.at_start);
}

status rewrite_apply(const rewrite *r, const char *text, size_t size, rewrite_place place,
                     buf room[2], const char **out, size_t *out_size) {
    size_t limit = size * REWRITE_GROWTH_MAX + 4096;
    for (int i = 0; i < r->count && size; i++) {
        const rewrite_step *step = &r->steps[i];
        if (is_idle(step, text, size, place)) continue;
        buf *target = text == room[0].data ? &room[1] : &room[0];
        buf_clear(target);
        target->limit = limit;
        if (step->kind == REWRITE_FORM) {
            TRY(unicode_normalize(step->form, text, size, target));
        } else if (step->kind == REWRITE_REPLACE) {
            replace(step, text, size, target);
        } else {
            buf_append(target, step->to.bytes, step->to.size);
            buf_append(target, text, size);
        }
        if (target->failed)
            return status_error(STATUS_RESOURCE_EXHAUSTED,
                                "no memory to normalise %zu bytes of text", size);
        text = buf_string(target);
        size = target->size;
    }
    *out = text;
    *out_size = size;
    return status_ok();
}
