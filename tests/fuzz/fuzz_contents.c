// Any bytes as a text, as JSON, as a conversation (and, of an array of two, one with seams): what
// was redacted holds no finding any more, decoded or not, in one text or across several, and what
// is said to hold none comes back as it was.
#include <assert.h>
#include <string.h>

#include "coordinator/route/complexity.h"
#include "coordinator/route/contents.h"
#include "coordinator/route/conversation.h"

static bool clean(const detectors *d, const detector_findings *f) {
    for (int i = 0; i < detectors_count(d); i++)
        if (f->found[i]) return false;
    return f->limits == 0;
}

static void as_text(const detectors *d, const char *text, size_t size) {
    detector_findings before = {0}, after = {0};
    buf out = buf_make(1 << 20);
    detectors_scan(d, text, size, &before);
    if (detectors_redact(d, text, size, &out)) {
        detectors_scan(d, buf_string(&out), out.size, &after);
        assert(clean(d, &after));
        if (clean(d, &before)) assert(out.size == size && (!size || !memcmp(out.data, text, size)));
    }
    buf_free(&out);
    complexity_options o = complexity_default_options();
    complexity_score s = complexity_of(&o, text, size, size, false);
    assert(s.score >= 0 && s.score <= 1);
}

static void as_conversation(const detectors *d, const json_t *messages, const json_t *seams) {
    detector_findings before = {0}, after = {0};
    conversation_scan(d, messages, seams, &before);
    json_t *copy = conversation_redact(d, messages, seams);
    if (copy && !seams) {
        conversation_scan(d, copy, NULL, &after);
        assert(clean(d, &after));
    }
    assert(!clean(d, &before) || json_equal(copy, messages));
    assert(copy || !clean(d, &before));
    json_decref(copy);
}

static void as_json(const detectors *d, const char *text, size_t size) {
    json_t *value = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!value) return;
    detector_findings before = {0}, after = {0};
    contents_scan(d, value, &before);
    json_t *copy = contents_redact(d, value);
    if (copy) {
        contents_scan(d, copy, &after);
        assert(clean(d, &after));
        assert(!clean(d, &before) || json_equal(copy, value));
    }
    if (json_is_array(value)) as_conversation(d, value, NULL);
    if (json_is_array(json_array_get(value, 0)))
        as_conversation(d, json_array_get(value, 0), json_array_get(value, 1));
    contents_measure_of(value, NULL);
    json_decref(copy);
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static detectors *d;
    if (!d) {
        d = detectors_create();
        assert(d);
        status s = detectors_add(d, "ticket", "TCK-[0-9]{3,6}", CHECK_NONE, DETECTOR_REDACT);
        assert(s.code == STATUS_OK);
    }
    as_text(d, (const char *)data, size);
    as_json(d, (const char *)data, size);
    return 0;
}
