#include "common/model/grammar_walk.h"

#include <stdlib.h>
#include <string.h>

bool walk_open(walk *w, const grammar *g) {
    *w = (walk){.g = g, .frame_count = 1, .limit = GRAMMAR_DEPTH_MAX};
    w->frames = calloc(WALK_FRAMES_MAX, sizeof *w->frames);
    w->visited = calloc(WALK_VISITS_MAX, sizeof *w->visited);
    w->seen = calloc((size_t)g->state_count, sizeof *w->seen);
    return w->frames && w->visited && w->seen;
}

void walk_close(walk *w) {
    free(w->frames);
    free(w->visited);
    free(w->seen);
    *w = (walk){0};
}

void walk_clear(walk *w, walk_set *to) {
    w->visited_count = 0;
    if (++w->round == 0) { // around its end: what is marked was long ago
        memset(w->seen, 0, (size_t)w->g->state_count * sizeof *w->seen);
        w->round = 1;
    }
    to->count = 0;
    to->left = false;
}

// Frames may be made twice; what counts is what they say.
static bool same_frame(const walk *w, int32_t a, int32_t b) {
    while (a != b) {
        const walk_frame *x = &w->frames[a], *y = &w->frames[b];
        if (a == 0 || b == 0 || x->to != y->to || x->count != y->count || x->depth != y->depth)
            return false;
        a = x->parent;
        b = y->parent;
    }
    return true;
}

// False: it was visited before, or there is no room for more.
static bool visit(walk *w, walk_place place) {
    bool seen = w->seen[place.state] == w->round;
    for (int32_t i = 0; seen && i < w->visited_count; i++)
        if (w->visited[i].state == place.state && w->visited[i].count == place.count &&
            same_frame(w, w->visited[i].frame, place.frame))
            return false;
    if (w->visited_count == WALK_VISITS_MAX) return false;
    w->visited[w->visited_count++] = place;
    w->seen[place.state] = w->round;
    return true;
}

static void call(walk *w, walk_set *to, const grammar_edge *e, int32_t frame, int32_t count) {
    const grammar_state *behind = &w->g->states[e->to];
    int32_t entry = w->g->rules[e->rule].entry;
    if (behind->ends) { // its end is this rule's
        walk_add(w, to, entry, frame, 0);
        return;
    }
    int32_t depth = w->frames[frame].depth;
    if (depth + behind->height > w->limit || w->frame_count == WALK_FRAMES_MAX) return;
    int32_t added = w->frame_count++;
    w->frames[added] = (walk_frame){e->to, frame, count, depth + 1};
    walk_add(w, to, entry, added, 0);
}

static void follow(walk *w, walk_set *to, const grammar_edge *e, int32_t frame, int32_t count) {
    const grammar_rule *r = &w->g->rules[w->g->states[e->to].rule];
    switch ((grammar_edge_kind)e->kind) {
    case GRAMMAR_BYTES:
        break;
    case GRAMMAR_EMPTY:
        walk_add(w, to, e->to, frame, count);
        break;
    case GRAMMAR_CALL:
        call(w, to, e, frame, count);
        break;
    case GRAMMAR_AGAIN:
        if (count < 0) // as before: neither bound is near
            walk_add(w, to, e->to, frame, count);
        else if (count < r->most) // where there is no most, what is above the least is all the same
            walk_add(w, to, e->to, frame,
                     r->most == GRAMMAR_UNBOUNDED && count >= r->least ? count : count + 1);
        break;
    case GRAMMAR_ENOUGH:
        if (count == WALK_FREE || (count >= 0 && count >= r->least))
            walk_add(w, to, e->to, frame, count);
        break;
    }
}

void walk_return(walk *w, walk_set *to, int32_t frame) {
    const walk_frame *f = &w->frames[frame];
    if (frame == 0)
        to->left = true;
    else
        walk_add(w, to, f->to, f->parent, f->count);
}

void walk_add(walk *w, walk_set *to, int32_t state, int32_t frame, int32_t count) {
    const grammar_state *s = &w->g->states[state];
    walk_place place = {state, frame, count};
    if (w->frames[frame].depth + s->height > w->limit || to->count == WALK_PLACES_MAX ||
        !visit(w, place))
        return;
    if (s->reads) to->places[to->count++] = place;
    if (s->accepts) walk_return(w, to, frame);
    for (int32_t e = s->first; e >= 0; e = w->g->edges[e].next)
        follow(w, to, &w->g->edges[e], frame, count);
}

bool walk_byte(walk *w, const walk_set *from, uint8_t byte, walk_set *to) {
    walk_clear(w, to);
    for (int32_t i = 0; i < from->count; i++) {
        const walk_place *p = &from->places[i];
        for (int32_t e = w->g->states[p->state].first; e >= 0; e = w->g->edges[e].next) {
            const grammar_edge *edge = &w->g->edges[e];
            if (edge->kind == GRAMMAR_BYTES && edge->low <= byte && byte <= edge->high)
                walk_add(w, to, edge->to, p->frame, p->count);
        }
    }
    return to->count > 0 || to->left;
}

void walk_bytes(const walk *w, const walk_set *s, bool may_come[256]) {
    memset(may_come, 0, 256 * sizeof *may_come);
    for (int32_t i = 0; i < s->count; i++)
        for (int32_t e = w->g->states[s->places[i].state].first; e >= 0; e = w->g->edges[e].next) {
            const grammar_edge *edge = &w->g->edges[e];
            if (edge->kind == GRAMMAR_BYTES)
                memset(may_come + edge->low, 1, (size_t)(edge->high - edge->low) + 1);
        }
}

void walk_tidy(walk *w, walk_set *s) {
    int32_t *number = calloc((size_t)w->frame_count, sizeof *number);
    if (!number) return;                   // it stays as it is
    for (int32_t i = 0; i < s->count; i++) // 1: stood on
        for (int32_t f = s->places[i].frame; f > 0 && !number[f]; f = w->frames[f].parent)
            number[f] = 1;
    int32_t kept = 1;
    for (int32_t f = 1; f < w->frame_count; f++) { // parents come before their children
        if (!number[f]) continue;
        w->frames[kept] = w->frames[f];
        w->frames[kept].parent = number[w->frames[f].parent];
        number[f] = kept++;
    }
    for (int32_t i = 0; i < s->count; i++) s->places[i].frame = number[s->places[i].frame];
    w->frame_count = kept;
    free(number);
}
