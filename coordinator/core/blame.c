#include "coordinator/core/blame.h"

#include "coordinator/core/request.h"

// Past where it died: a token may be computed in a prompt there where it was a step of its own
// here, and two steps of a wave are under way at once.
enum { CLEARED_TOKENS = 2 * CORE_PIPELINE };

static bool is_cleared(const sequence *s) {
    return s->computed >= s->cleared_at;
}

static void move_place(sequence *s) {
    int place = sequence_known(s) + (s->answer_count > 0 ? CLEARED_TOKENS : 0);
    if (place > s->cleared_at) s->cleared_at = place;
}

void blame_death(group *g) {
    sequence *last = NULL;
    int suspects = 0;
    for (sequence *s = g->running.first; s; s = s->next) {
        if (s->planned == s->computed) continue;
        if (!is_cleared(s)) {
            s->suspected = true;
            suspects++;
            last = s;
        }
        move_place(s);
    }
    if (suspects == 1) last->kills++;
}

void blame_numbers(sequence *s) {
    s->suspected = true;
    s->kills++;
    move_place(s);
}

void blame_computed(sequence *s) {
    if (!is_cleared(s)) return;
    s->suspected = false;
    s->kills = 0;
    if (s->group->suspect == s) s->group->suspect = NULL;
}
