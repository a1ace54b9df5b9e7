// grammar_build: the verbs that make an automaton, and the checks when it is whole.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/grammar_parts.h"

bool grammar_fine(const grammar_builder *b) {
    return b->why.code == STATUS_OK;
}

void grammar_refuse(grammar_builder *b, const char *format, ...) {
    if (!grammar_fine(b)) return;
    char line[STATUS_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    b->why = b->path[0] ? status_error(STATUS_INVALID_ARGUMENT, "at %s: %s", b->path, line)
                        : status_error(STATUS_INVALID_ARGUMENT, "%s", line);
}

// Room for one more item; false after an error.
static bool grow(grammar_builder *b, void **items, int32_t count, int32_t *room, size_t size,
                 int32_t most) {
    if (!grammar_fine(b)) return false;
    if (count < *room) return true;
    if (count >= most) {
        grammar_refuse(b, "it is too large: its automaton has more than %d parts", most);
        return false;
    }
    int32_t wanted = *room ? 2 * *room : 256;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (!grown) {
        b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
        return false;
    }
    *items = grown;
    *room = wanted;
    return true;
}

int32_t grammar_new_state(grammar_builder *b, int32_t rule) {
    grammar *g = b->g;
    if (!grow(b, (void **)&g->states, g->state_count, &g->state_room, sizeof *g->states,
              GRAMMAR_STATES_MAX))
        return 0;
    g->states[g->state_count] = (grammar_state){.first = -1, .last = -1, .rule = rule};
    return g->state_count++;
}

int32_t grammar_state_beside(grammar_builder *b, int32_t state) {
    return grammar_fine(b) ? grammar_new_state(b, b->g->states[state].rule) : 0;
}

int32_t grammar_new_rule(grammar_builder *b) {
    grammar *g = b->g;
    if (!grow(b, (void **)&g->rules, g->rule_count, &g->rule_room, sizeof *g->rules,
              GRAMMAR_RULES_MAX))
        return 0;
    int32_t rule = g->rule_count++;
    g->rules[rule] = (grammar_rule){0};
    g->rules[rule].entry = grammar_new_state(b, rule);
    return rule;
}

void grammar_count_rule(grammar_builder *b, int32_t rule, int32_t least, int32_t most) {
    if (!grammar_fine(b)) return;
    b->g->rules[rule].counts = true;
    b->g->rules[rule].least = least;
    b->g->rules[rule].most = most;
}

int32_t grammar_entry(const grammar_builder *b, int32_t rule) {
    return grammar_fine(b) ? b->g->rules[rule].entry : 0;
}

void grammar_accept(grammar_builder *b, int32_t state) {
    if (grammar_fine(b)) b->g->states[state].accepts = true;
}

static void add_edge(grammar_builder *b, int32_t from, grammar_edge edge) {
    grammar *g = b->g;
    if (!grow(b, (void **)&g->edges, g->edge_count, &g->edge_room, sizeof *g->edges,
              GRAMMAR_EDGES_MAX))
        return;
    grammar_state *s = &g->states[from];
    int32_t at = g->edge_count++;
    g->edges[at] = edge;
    g->edges[at].next = -1;
    if (s->last >= 0)
        g->edges[s->last].next = at;
    else
        s->first = at;
    s->last = at;
}

void grammar_bytes(grammar_builder *b, int32_t from, int low, int high, int32_t to) {
    add_edge(b, from,
             (grammar_edge){
                 .kind = GRAMMAR_BYTES, .low = (uint8_t)low, .high = (uint8_t)high, .to = to});
}

void grammar_empty(grammar_builder *b, int32_t from, int32_t to) {
    add_edge(b, from, (grammar_edge){.kind = GRAMMAR_EMPTY, .to = to});
}

void grammar_call(grammar_builder *b, int32_t from, int32_t rule, int32_t to) {
    add_edge(b, from, (grammar_edge){.kind = GRAMMAR_CALL, .rule = rule, .to = to});
}

void grammar_again(grammar_builder *b, int32_t from, int32_t to) {
    add_edge(b, from, (grammar_edge){.kind = GRAMMAR_AGAIN, .to = to});
}

void grammar_enough(grammar_builder *b, int32_t from, int32_t to) {
    add_edge(b, from, (grammar_edge){.kind = GRAMMAR_ENOUGH, .to = to});
}

// ---- texts

static int32_t follow_byte(const grammar *g, int32_t from, unsigned char byte) {
    for (int32_t e = g->states[from].first; e >= 0; e = g->edges[e].next)
        if (g->edges[e].kind == GRAMMAR_BYTES && g->edges[e].low == byte &&
            g->edges[e].high == byte)
            return g->edges[e].to;
    return -1;
}

int32_t grammar_text(grammar_builder *b, int32_t from, const char *bytes, size_t size) {
    for (size_t i = 0; i < size && grammar_fine(b); i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (!grammar_alphabet_has(b->alphabet, byte)) {
            grammar_refuse(b, "the model has no token for byte 0x%02x, which the text needs", byte);
            return 0;
        }
        int32_t to = follow_byte(b->g, from, byte);
        if (to < 0) {
            to = grammar_state_beside(b, from);
            grammar_bytes(b, from, byte, byte, to);
        }
        from = to;
    }
    return from;
}

void grammar_text_to(grammar_builder *b, int32_t from, const char *bytes, size_t size, int32_t to) {
    int32_t end = grammar_text(b, from, bytes, size);
    grammar_empty(b, end, to);
}

// ---- the whole

static int32_t edge_height(const grammar *g, const grammar_alphabet *alphabet,
                           const grammar_edge *e) {
    int32_t height = g->states[e->to].height;
    if (e->kind == GRAMMAR_BYTES) {
        for (int byte = e->low; byte <= e->high; byte++)
            if (grammar_alphabet_has(alphabet, byte)) return height;
        return GRAMMAR_ENDLESS;
    }
    if (e->kind == GRAMMAR_CALL) {
        const grammar_state *to = &g->states[e->to];
        int32_t within =
            g->states[g->rules[e->rule].entry].height + !(to->accepts && to->first < 0);
        if (within > height) height = within;
    }
    return height < GRAMMAR_ENDLESS ? height : GRAMMAR_ENDLESS;
}

// ---- what holds of a state by what holds of others

// Who has to be asked again when a state changes: for state i, users[start[i] .. start[i + 1]).
typedef struct dependents {
    int32_t *start, *users;
    int32_t *queue; // (states), a ring of states that changed
    uint8_t *queued;
} dependents;

// An edge's own state depends on where it leads, and on the rule that it calls.
static void for_each_dependence(const grammar *g, void put(dependents *, int32_t, int32_t),
                                dependents *d) {
    for (int32_t i = 0; i < g->state_count; i++)
        for (int32_t e = g->states[i].first; e >= 0; e = g->edges[e].next) {
            put(d, g->edges[e].to, i);
            if (g->edges[e].kind == GRAMMAR_CALL) put(d, g->rules[g->edges[e].rule].entry, i);
        }
}

static void count_user(dependents *d, int32_t on, int32_t user) {
    (void)user;
    d->start[on + 1]++;
}

static void put_user(dependents *d, int32_t on, int32_t user) {
    d->users[--d->start[on + 1]] = user;
}

static void free_dependents(dependents *d) {
    free(d->start);
    free(d->users);
    free(d->queue);
    free(d->queued);
}

static bool find_dependents(grammar_builder *b, dependents *d) {
    const grammar *g = b->g;
    size_t states = (size_t)g->state_count;
    *d = (dependents){.start = calloc(states + 2, sizeof *d->start),
                      .users = calloc(2 * (size_t)g->edge_count + 1, sizeof *d->users),
                      .queue = calloc(states, sizeof *d->queue),
                      .queued = calloc(states, sizeof *d->queued)};
    if (!d->start || !d->users || !d->queue || !d->queued) {
        b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
        free_dependents(d);
        return false;
    }
    for_each_dependence(g, count_user, d);
    for (size_t i = 0; i < states; i++) d->start[i + 1] += d->start[i];
    d->start[states + 1] = d->start[states];
    for_each_dependence(g, put_user, d); // start[i + 1] is where i's begin now
    memmove(d->start, d->start + 1, (states + 1) * sizeof *d->start);
    return true;
}

// Asks `settle` about every state whose answer may have changed, until none does. It tells whether
// the state's answer is another one now; answers only get better, so this ends.
static void settle_all(const grammar_builder *b, dependents *d,
                       bool settle(const grammar_builder *, void *, int32_t), void *context) {
    int32_t count = b->g->state_count, head = 0, waiting = count;
    for (int32_t i = 0; i < count; i++) {
        d->queue[i] = count - 1 - i; // what is built last is mostly nearest to the end
        d->queued[i] = 1;
    }
    while (waiting > 0) {
        int32_t state = d->queue[head];
        head = head + 1 == count ? 0 : head + 1;
        waiting--;
        d->queued[state] = 0;
        if (!settle(b, context, state)) continue;
        for (int32_t u = d->start[state]; u < d->start[state + 1]; u++) {
            int32_t user = d->users[u];
            if (d->queued[user]) continue;
            d->queued[user] = 1;
            d->queue[(head + waiting++) % count] = user;
        }
    }
}

static bool settle_height(const grammar_builder *b, void *context, int32_t state) {
    (void)context;
    grammar *g = b->g;
    grammar_state *s = &g->states[state];
    int32_t was = s->height, least = s->accepts ? 0 : was;
    for (int32_t e = s->first; e >= 0; e = g->edges[e].next) {
        int32_t height = edge_height(g, b->alphabet, &g->edges[e]);
        if (height < least) least = height;
    }
    s->height = least;
    return least != was;
}

static void find_heights(grammar_builder *b, dependents *d) {
    for (int32_t i = 0; i < b->g->state_count; i++) b->g->states[i].height = GRAMMAR_ENDLESS;
    settle_all(b, d, settle_height, NULL);
}

// Edges from which no end can be reached go.
static void prune(grammar_builder *b) {
    grammar *g = b->g;
    for (int32_t i = 0; i < g->state_count; i++) {
        grammar_state *s = &g->states[i];
        int32_t *link = &s->first;
        s->last = -1;
        for (int32_t e = s->first; e >= 0; e = g->edges[e].next) {
            if (edge_height(g, b->alphabet, &g->edges[e]) > GRAMMAR_DEPTH_MAX) continue;
            *link = e;
            link = &g->edges[e].next;
            s->last = e;
            if (g->edges[e].kind == GRAMMAR_BYTES) s->reads = true;
        }
        *link = -1;
        s->ends = s->accepts && s->first < 0;
    }
}

// ---- no rule comes to itself without a byte between

typedef struct left_search {
    const grammar *g;
    uint8_t *empty; // (states) the rule's end is reached from here without a byte
    uint8_t *seen;  // (states)
    int32_t *near;  // (states) of each rule those that its entry reaches without a byte: rule r's
    int32_t *begin; // (rules + 1) are near[begin[r]] to near[begin[r + 1]]
    int32_t *calls; // (rules) edges of near states that call the rule and are still to be followed
    int32_t *ready; // (rules) a stack: those that no such edge calls
} left_search;

static bool reads_nothing(const left_search *s, const grammar_edge *e) {
    return e->kind != GRAMMAR_BYTES &&
           (e->kind != GRAMMAR_CALL || s->empty[s->g->rules[e->rule].entry]);
}

static bool settle_empty(const grammar_builder *b, void *context, int32_t state) {
    (void)b;
    left_search *s = context;
    if (s->empty[state]) return false;
    bool empty = s->g->states[state].accepts;
    for (int32_t e = s->g->states[state].first; e >= 0 && !empty; e = s->g->edges[e].next)
        empty = s->empty[s->g->edges[e].to] && reads_nothing(s, &s->g->edges[e]);
    s->empty[state] = empty;
    return empty;
}

static int32_t add_near(left_search *s, int32_t state, int32_t count) {
    if (s->seen[state]) return count;
    s->seen[state] = 1;
    s->near[count] = state;
    return count + 1;
}

static void find_near(left_search *s) {
    const grammar *g = s->g;
    int32_t count = 0;
    for (int32_t r = 0; r < g->rule_count; r++) {
        s->begin[r] = count;
        count = add_near(s, g->rules[r].entry, count);
        for (int32_t i = s->begin[r]; i < count; i++)
            for (int32_t e = g->states[s->near[i]].first; e >= 0; e = g->edges[e].next) {
                if (g->edges[e].kind == GRAMMAR_CALL) s->calls[g->edges[e].rule]++;
                if (reads_nothing(s, &g->edges[e])) count = add_near(s, g->edges[e].to, count);
            }
    }
    s->begin[g->rule_count] = count;
}

// Takes away rules that no other calls at its start, until there are none: what is left then calls
// itself. A schema of a request may be as deep as it likes: nothing here recurses.
static bool has_left_recursion(left_search *s) {
    const grammar *g = s->g;
    int32_t ready = 0, left = g->rule_count;
    find_near(s);
    for (int32_t r = 0; r < g->rule_count; r++)
        if (s->calls[r] == 0) s->ready[ready++] = r;
    while (ready > 0) {
        int32_t r = s->ready[--ready];
        left--;
        for (int32_t i = s->begin[r]; i < s->begin[r + 1]; i++)
            for (int32_t e = g->states[s->near[i]].first; e >= 0; e = g->edges[e].next)
                if (g->edges[e].kind == GRAMMAR_CALL && --s->calls[g->edges[e].rule] == 0)
                    s->ready[ready++] = g->edges[e].rule;
    }
    return left > 0;
}

static void refuse_left_recursion(grammar_builder *b, dependents *d) {
    size_t states = (size_t)b->g->state_count, rules = (size_t)b->g->rule_count;
    uint8_t *flags = calloc(2, states);
    int32_t *numbers = calloc(states + 3 * rules + 1, sizeof *numbers);
    left_search s = {.g = b->g, .empty = flags, .near = numbers};
    if (flags && numbers) {
        s.seen = flags + states;
        s.begin = numbers + states;
        s.calls = s.begin + rules + 1;
        s.ready = s.calls + rules;
        settle_all(b, d, settle_empty, &s);
        if (has_left_recursion(&s))
            grammar_refuse(b, "a part of it is itself again, with nothing between");
    } else {
        b->why = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
    }
    free(flags);
    free(numbers);
}

void grammar_finish(grammar_builder *b) {
    dependents d;
    if (!grammar_fine(b) || !find_dependents(b, &d)) return;
    b->path[0] = 0;
    find_heights(b, &d);
    int32_t height = b->g->states[b->g->rules[0].entry].height;
    if (height >= GRAMMAR_ENDLESS)
        grammar_refuse(b, "no answer meets it: it asks for what never ends, contradicts itself, or "
                          "needs bytes that are no tokens of the model");
    else if (height > GRAMMAR_DEPTH_MAX)
        grammar_refuse(b, "its shortest answer is nested deeper than %d", GRAMMAR_DEPTH_MAX);
    if (grammar_fine(b)) prune(b);
    if (grammar_fine(b)) refuse_left_recursion(b, &d);
    free_dependents(&d);
}
