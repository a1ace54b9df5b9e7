#include "tests/sim/sim_script.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "tests/sim/sim_check.h"
#include "tests/sim/sim_world.h"

// Whatever is shorter may stand there by chance; it is not taken for an overlap.
enum { OVERLAP_LEAST = 8 };

typedef enum trouble {
    REFUSED,
    HANGS_FIRST,
    HANGS_LATER,
    BUSY,
    BUSY_LATER,
    CLIENT,
    OTHER_TARGET,
    ACCOUNT,
    NO_PREFILL,
    EARLY_END,
    SLOW,
    TROUBLES
} trouble;

// The end of the partial answer, whole characters; empty when none that counts fits.
static size_t draw_overlap(rng *r, const core_effect *e, buf *text) {
    size_t size = e->call.partial_size;
    if (e->call.mode != UPSTREAM_USER_TURN || size < OVERLAP_LEAST || sim_below(r, 3) == 0)
        return 0;
    size_t length = OVERLAP_LEAST + (size_t)sim_below(r, (int)(size - OVERLAP_LEAST) + 1);
    const char *start = e->call.partial + size - length;
    while (start > e->call.partial && ((unsigned char)*start & 0xc0) == 0x80) start--;
    length = (size_t)(e->call.partial + size - start);
    buf_append(text, start, length);
    return length;
}

// Begins with a letter that stands nowhere else: where an overlap ends is never in doubt.
static void draw_words(rng *r, int upstream, buf *text) {
    static const char *const words[] = {
        "one ", "two", "\xc3\xa9t\xc3\xa9 ", "\n", "\xf0\x9f\x98\x80", "three, ", "aaa", "b"};
    const char letter[] = {(char)0xce, (char)(0x91 + upstream), 0};
    buf_append_string(text, letter);
    for (int left = sim_below(r, 12); left > 0; left--)
        buf_append_string(text, words[sim_below(r, 8)]);
}

static void draw_cuts(rng *r, sim_script *s, int most_ms) {
    size_t size = s->text.size;
    for (int i = 0; i <= SIM_PIECES_MAX; i++)
        s->wait_ns[i] = (1 + sim_below(r, most_ms)) * CLOCK_MS;
    if (size == 0) return;
    s->pieces = 1 + sim_below(r, SIM_PIECES_MAX);
    for (int i = 1; i < s->pieces; i++) {
        size_t cut = (size_t)sim_below(r, (int)size + 1);
        while (cut > 0 && cut < size && ((unsigned char)s->text.data[cut] & 0xc0) == 0x80) cut--;
        s->cuts[i] = cut < s->cuts[i - 1] ? s->cuts[i - 1] : cut;
    }
    s->cuts[s->pieces] = size;
}

static void no_words(sim_script *s) {
    s->pieces = 0;
}

static void fewer_words(rng *r, sim_script *s) {
    if (s->pieces) s->pieces = sim_below(r, s->pieces) + (s->pieces == 1);
}

static void end_with(sim_script *s, upstream_outcome outcome, int status, const char *reason) {
    s->end.outcome = outcome;
    s->end.http_status = status;
    snprintf(s->end.reason, sizeof s->end.reason, "%s", reason);
}

static void refuse(sim_script *s, upstream_outcome outcome, int status, const char *reason) {
    no_words(s);
    end_with(s, outcome, status, reason);
}

static void break_later(rng *r, sim_script *s, upstream_outcome outcome, const char *reason) {
    fewer_words(r, s);
    end_with(s, outcome, 200, reason);
}

static void spoil(sim_script *s, rng *r, const upstream_policy *p, const core_effect *e) {
    switch ((trouble)sim_below(r, TROUBLES)) {
    case HANGS_FIRST: // the edge's clock ends it
        refuse(s, UPSTREAM_FAULT, 200, "no first content");
        s->wait_ns[0] = p->first_content_ns;
        break;
    case HANGS_LATER:
        break_later(r, s, UPSTREAM_FAULT, "stalled");
        s->wait_ns[s->pieces] = s->pieces ? p->between_chunks_ns : p->first_content_ns;
        break;
    case BUSY:
        refuse(s, UPSTREAM_BUSY, 429, "slow down");
        if (sim_below(r, 3)) s->end.retry_after_ms = 1 + sim_below(r, 1500);
        break;
    case BUSY_LATER:
        break_later(r, s, UPSTREAM_BUSY, "overloaded");
        break;
    case CLIENT:
        refuse(s, UPSTREAM_CLIENT, 400, "bad request");
        break;
    case OTHER_TARGET:
        refuse(s, UPSTREAM_CLIENT, 413, "too long");
        s->end.other_target = true;
        break;
    case ACCOUNT:
        if (sim_below(r, 3))
            refuse(s, UPSTREAM_FAULT, 500, "oops");
        else
            refuse(s, UPSTREAM_ACCOUNT, 401, "bad key");
        break;
    case NO_PREFILL:
        if (e->call.mode == UPSTREAM_PREFILL) {
            refuse(s, UPSTREAM_CLIENT, 400, "no prefill");
            s->end.other_target = s->end.prefill_refused = true;
        } else {
            refuse(s, UPSTREAM_FAULT, 500, "oops");
        }
        break;
    case EARLY_END:
        break_later(r, s, UPSTREAM_FAULT, "closed without an end");
        break;
    case SLOW:
        break_later(r, s, UPSTREAM_FAULT, "too slow");
        for (int i = 0; i <= s->pieces; i++) s->wait_ns[i] = p->between_chunks_ns - CLOCK_MS;
        break;
    default:
        refuse(s, UPSTREAM_FAULT, 0, "refused");
        break;
    }
}

static void draw_usage(rng *r, sim_script *s) {
    upstream_usage *u = &s->end.usage;
    u->known = sim_below(r, 3) > 0;
    u->input_tokens = 1 + sim_below(r, 200);
    u->cached_tokens = sim_below(r, u->input_tokens + 1);
    u->output_tokens = s->pieces;
    s->end.cost_microdollars = sim_below(r, 8) ? sim_below(r, 1000) : -1;
}

void sim_script_draw(sim_script *s, rng *r, const upstream_policy *p, int upstream,
                     const core_effect *e, bool fault) {
    *s = (sim_script){.text = buf_make(1 << 16)};
    s->end.finish = sim_below(r, 4) ? ANSWER_STOP : ANSWER_LENGTH;
    s->end.http_status = 200;
    if (sim_below(r, 12)) {
        s->overlap = draw_overlap(r, e, &s->text);
        draw_words(r, upstream, &s->text);
    }
    draw_cuts(r, s, 15);
    s->tool_from = s->pieces;
    if (e->call.mode == UPSTREAM_FRESH && sim_below(r, 6) == 0) {
        s->tool_from = sim_below(r, s->pieces + 1);
        if (s->tool_from < s->pieces) s->end.finish = ANSWER_TOOLS;
    }
    if (fault) spoil(s, r, p, e);
    draw_usage(r, s);
    if (sim_below(r, 15) == 0) s->end.hold_ms = 1 + sim_below(r, 800);
    s->end.first_content_ns = s->pieces ? s->wait_ns[0] : -1;
    for (int i = 0; i <= s->pieces; i++) s->end.total_ns += s->wait_ns[i];
}

void sim_script_cancel(sim_script *s) {
    end_with(s, UPSTREAM_CANCELLED, 0, "cancelled");
    s->end.retry_after_ms = 0;
}

void sim_script_free(sim_script *s) {
    buf_free(&s->text);
}
