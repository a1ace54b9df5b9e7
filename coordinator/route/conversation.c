#include "coordinator/route/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "coordinator/route/contents.h"

enum {
    TEXT_MAX = 64 << 20, // of one run, also redacted
    ROUNDS_MAX = 5,      // what stood beside a finding may be one once that is replaced
};

// What may stand at a seam: where whoever reads on sees no break, a word's end, a line's end.
static const char *const separators[] = {"", " ", "\n"};
enum { SEPARATORS = sizeof separators / sizeof *separators };

// One text: a part of a message's content.
typedef struct piece {
    size_t message;
    bool joined; // a line break parts it from the piece before, in the same content
    buf text;
} piece;

// Pieces that stand beside one another.
typedef struct run {
    piece *items;
    size_t count, room;
    bool failed; // no memory
} run;

// ---- runs ----

static void run_clear(run *r) {
    for (size_t i = 0; i < r->count; i++) buf_free(&r->items[i].text);
    r->count = 0;
}

static void run_free(run *r) {
    run_clear(r);
    free(r->items);
}

static void add_piece(run *r, size_t message, bool joined, const char *text, size_t size) {
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 16;
        piece *grown = realloc(r->items, room * sizeof *grown);
        if (!grown) {
            r->failed = true;
            return;
        }
        r->items = grown;
        r->room = room;
    }
    piece *p = &r->items[r->count++];
    *p = (piece){.message = message, .joined = joined, .text = buf_make(TEXT_MAX)};
    r->failed |= !buf_append(&p->text, text, size);
}

static const json_t *content_of(const json_t *messages, size_t i) {
    return json_object_get(json_array_get(messages, i), "content");
}

static void add_message(run *r, const json_t *messages, const json_t *seams, size_t i) {
    const json_t *content = content_of(messages, i), *places = json_array_get(seams, i);
    const char *text = json_string_value(content);
    size_t size = json_string_length(content), begin = 0;
    if (!text) return;
    for (size_t k = 0; k < json_array_size(places); k++) {
        json_int_t place = json_integer_value(json_array_get(places, k));
        bool inside = place >= (json_int_t)begin && place < (json_int_t)size;
        if (!inside || text[place] != '\n') continue;
        add_piece(r, i, begin > 0, text + begin, (size_t)place - begin);
        begin = (size_t)place + 1;
    }
    add_piece(r, i, begin > 0, text + begin, size - begin);
}

static const char *role_of(const json_t *messages, size_t i) {
    const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    return role ? role : "";
}

static bool is_system(const json_t *messages, size_t i) {
    return strcmp(role_of(messages, i), "system") == 0;
}

static void take_system(run *r, const json_t *messages, const json_t *seams) {
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (is_system(messages, i)) add_message(r, messages, seams, i);
}

// Messages of one role in a row, from *at on, which moves behind them.
static void take_row(run *r, const json_t *messages, const json_t *seams, size_t *at) {
    const char *role = role_of(messages, *at);
    for (; *at < json_array_size(messages) && strcmp(role_of(messages, *at), role) == 0; (*at)++)
        add_message(r, messages, seams, *at);
}

typedef struct task {
    const detectors *d;
    detector_findings *f; // scanning: where findings are counted; NULL: redacting
    json_t *messages;     // redacting: whose contents are replaced
} task;

// What is done with a run that has seams.
typedef bool (*run_user)(const task *t, run *r);

static bool each_run(const task *t, const json_t *messages, const json_t *seams, run_user use) {
    run r = {0};
    take_system(&r, messages, seams);
    bool good = !r.failed && (r.count < 2 || use(t, &r));
    for (size_t at = 0; good && at < json_array_size(messages);) {
        run_clear(&r);
        if (is_system(messages, at))
            at++;
        else
            take_row(&r, messages, seams, &at);
        good = !r.failed && (r.count < 2 || use(t, &r));
    }
    run_free(&r);
    return good;
}

// ---- across the seams ----

// A run as one text.
typedef struct joint {
    buf text;
    size_t *begins; // of each piece, and where the last ends
    size_t *after;  // of each piece: the next that is not empty
} joint;

static void joint_free(joint *j) {
    buf_free(&j->text);
    free(j->begins);
    free(j->after);
}

static bool join(const run *r, const char *separator, joint *out) {
    *out = (joint){.text = buf_make(TEXT_MAX)};
    out->begins = malloc((r->count + 1) * sizeof *out->begins);
    out->after = malloc(r->count * sizeof *out->after);
    if (!out->begins || !out->after) return false;
    for (size_t i = 0; i < r->count; i++) {
        if (i) buf_append_string(&out->text, separator);
        out->begins[i] = out->text.size;
        buf_append(&out->text, buf_string(&r->items[i].text), r->items[i].text.size);
    }
    out->begins[r->count] = out->text.size;
    for (size_t i = r->count, next = r->count; i-- > 0;) {
        out->after[i] = next;
        if (r->items[i].text.size) next = i;
    }
    return !out->text.failed;
}

static size_t end_of(const run *r, const joint *j, size_t piece) {
    return j->begins[piece] + r->items[piece].text.size;
}

// Whether the detector finds a piece of `text` that begins where it begins and ends before it ends
// (`first`), or the other way round.
static bool has_whole(const detectors *d, int detector, const char *text, size_t size, bool first) {
    detector_span *spans;
    size_t count;
    bool found = false;
    if (!detectors_find(d, text, size, &spans, &count)) return false;
    for (size_t i = 0; i < count; i++) {
        bool whole = first ? spans[i].begin == 0 && spans[i].end < size
                           : spans[i].begin > 0 && spans[i].end == size;
        found |= whole && spans[i].detector == detector;
    }
    free(spans);
    return found;
}

// Whether what a span seems to hold of other texts is none of it: the finding is whole in its first
// or its last text, and something parts it from the seam ("jane@example.com." before "Thanks").
static bool is_chance(const detectors *d, const run *r, const joint *j, const detector_span *s,
                      size_t first) {
    size_t last = first;
    while (j->after[last] < r->count && j->begins[j->after[last]] < s->end) last = j->after[last];
    const char *text = buf_string(&j->text);
    return has_whole(d, s->detector, text + s->begin, end_of(r, j, first) - s->begin, true) ||
           has_whole(d, s->detector, text + j->begins[last], s->end - j->begins[last], false);
}

// Keeps the spans that touch two pieces or more; each once. Returns how many.
static size_t keep_across(const detectors *d, const run *r, const joint *j, detector_span *spans,
                          size_t count) {
    size_t kept = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        const detector_span s = spans[i];
        while (at < r->count && end_of(r, j, at) <= s.begin) at++;
        size_t next = at < r->count ? j->after[at] : r->count;
        if (next == r->count || j->begins[next] >= s.end) continue;
        const detector_span *last = kept ? &spans[kept - 1] : NULL;
        bool again = last && last->begin == s.begin && last->end == s.end &&
                     last->detector == s.detector; // as written and as read
        if (!again && !is_chance(d, r, j, &s, at)) spans[kept++] = s;
    }
    return kept;
}

// free(*out).
static bool find_across(const detectors *d, const run *r, const joint *j, detector_span **out,
                        size_t *count) {
    if (!detectors_find(d, buf_string(&j->text), j->text.size, out, count)) return false;
    *count = keep_across(d, r, j, *out, *count);
    return true;
}

// Spans that overlap become one, under the first's name.
static size_t merge(detector_span *spans, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept && spans[i].begin < spans[kept - 1].end) {
            if (spans[i].end > spans[kept - 1].end) spans[kept - 1].end = spans[i].end;
        } else {
            spans[kept++] = spans[i];
        }
    }
    return kept;
}

// Replaces what of the spans (merged) lies in a piece; *first: the first span that may, moves on.
static bool rewrite(const detectors *d, piece *p, size_t begin, const detector_span *spans,
                    size_t count, size_t *first) {
    size_t end = begin + p->text.size, done = begin;
    while (*first < count && spans[*first].end <= begin) (*first)++;
    if (*first == count || spans[*first].begin >= end) return true;
    buf out = buf_make(TEXT_MAX);
    const char *text = buf_string(&p->text);
    for (size_t i = *first; i < count && spans[i].begin < end; i++) {
        size_t from = spans[i].begin > begin ? spans[i].begin : begin;
        buf_append(&out, text + (done - begin), from - done);
        buf_printf(&out, "[%s]", detectors_name(d, spans[i].detector));
        done = spans[i].end < end ? spans[i].end : end;
    }
    buf_append(&out, text + (done - begin), end - done);
    buf_free(&p->text);
    p->text = out;
    return !out.failed;
}

static void count_across(detector_findings *f, const detector_span *spans, size_t count) {
    for (size_t i = 0; f && i < count; i++) {
        f->found[spans[i].detector]++;
        f->across[spans[i].detector]++;
    }
}

// False: a limit, or no memory. *found: something was replaced.
static bool replace_across(const task *t, run *r, const char *separator, bool *found) {
    joint j;
    detector_span *spans = NULL;
    size_t count = 0, first = 0;
    bool good = join(r, separator, &j) && find_across(t->d, r, &j, &spans, &count);
    if (good && count) {
        *found = true;
        count_across(t->f, spans, count);
        count = merge(spans, count);
        for (size_t i = 0; good && i < r->count; i++)
            good = rewrite(t->d, &r->items[i], j.begins[i], spans, count, &first);
    }
    free(spans);
    joint_free(&j);
    return good;
}

// ---- one run ----

static bool redact_pieces(const task *t, run *r, bool *found) {
    for (size_t i = 0; i < r->count; i++) {
        piece *p = &r->items[i];
        buf out = buf_make(TEXT_MAX);
        detector_findings hidden = {0};
        size_t size = p->text.size;
        bool good = contents_redact_text(t->d, buf_string(&p->text), size, &out, &hidden);
        *found |= out.size != size || memcmp(buf_string(&out), buf_string(&p->text), size) != 0;
        buf_free(&p->text);
        p->text = out;
        if (!good) return false;
    }
    return true;
}

// Whether nothing shows once the escapes of the whole run are undone.
static bool is_safe_decoded(const task *t, const run *r) {
    joint j;
    buf out = buf_make(TEXT_MAX);
    detector_findings hidden = {0};
    bool good = join(r, "", &j) &&
                contents_redact_text(t->d, buf_string(&j.text), j.text.size, &out, &hidden);
    buf_free(&out);
    joint_free(&j);
    return good;
}

// Replaces, until nothing is found in any piece nor across any seam. False: that cannot be done.
static bool mend(const task *t, run *r) {
    for (int i = 0; i < ROUNDS_MAX; i++) {
        bool found = false;
        for (int k = 0; k < SEPARATORS; k++)
            if (!replace_across(t, r, separators[k], &found)) return false;
        if (!redact_pieces(t, r, &found)) return false;
        if (!found) return is_safe_decoded(t, r);
    }
    return false;
}

// Adds all that lies across seams of the texts as they came.
static bool look_across(const detectors *d, const run *r, detector_findings *f) {
    bool good = true;
    for (int k = 0; k < SEPARATORS && good; k++) {
        joint j;
        detector_span *spans = NULL;
        size_t count = 0;
        good = join(r, separators[k], &j) && find_across(d, r, &j, &spans, &count);
        if (good) count_across(f, spans, count);
        free(spans);
        joint_free(&j);
    }
    return good;
}

// Counted is what mending replaces: each once. But what it replaces under one name may be another
// detector's too, with another separator or the next text: that one must not go unseen.
static bool scan_run(const task *t, run *r) {
    detector_findings as_came = {0};
    if (!look_across(t->d, r, &as_came) || !mend(t, r)) t->f->limits++;
    for (int i = 0; i < detectors_count(t->d); i++)
        if (as_came.found[i] && !t->f->found[i]) t->f->found[i] = t->f->across[i] = 1;
    return true;
}

void conversation_scan(const detectors *d, const json_t *messages, const json_t *seams,
                       detector_findings *f) {
    contents_scan(d, messages, f);
    if (!each_run(&(task){.d = d, .f = f}, messages, seams, scan_run)) f->limits++;
}

// ---- the copy ----

// Sets the content of each message that has a piece in the run.
static bool redact_run(const task *t, run *r) {
    if (!mend(t, r)) return false;
    for (size_t i = 0, next; i < r->count; i = next) {
        buf text = buf_make(TEXT_MAX);
        for (next = i; next < r->count && r->items[next].message == r->items[i].message; next++) {
            if (r->items[next].joined) buf_append_char(&text, '\n');
            buf_append(&text, buf_string(&r->items[next].text), r->items[next].text.size);
        }
        json_t *message = json_array_get(t->messages, r->items[i].message);
        json_t *content = text.failed ? NULL : json_stringn(buf_string(&text), text.size);
        buf_free(&text);
        if (json_object_set_new(message, "content", content) != 0) return false;
    }
    return true;
}

// The messages, each a copy with the same members.
static json_t *copy_messages(const json_t *messages) {
    json_t *copy = json_array();
    bool good = copy != NULL;
    for (size_t i = 0; good && i < json_array_size(messages); i++)
        good = !json_array_append_new(copy, json_copy(json_array_get(messages, i)));
    if (good) return copy;
    json_decref(copy);
    return NULL;
}

json_t *conversation_redact(const detectors *d, const json_t *messages, const json_t *seams) {
    task t = {.d = d, .messages = copy_messages(messages)};
    bool good = t.messages && each_run(&t, messages, seams, redact_run);
    json_t *redacted = good ? contents_redact(d, t.messages) : NULL;
    json_decref(t.messages);
    return redacted;
}
