#include "tests/sim/sim_upstreams.h"

#include <string.h>

#include "tests/sim/sim_script.h"
#include "tests/sim/sim_world.h"

enum { CALLS_MAX = 4096 };

typedef struct call {
    uint64_t id, request;
    int upstream;
    bool failover, cancelled, ended;
    bool probe; // began while the breaker was half open
    char public_id[40], client[16];
    sim_script script;
    bool named; // its tool call was
    int said;   // pieces
} call;

typedef struct target {
    rng random;
    int calls;          // so far: they have numbers
    int open;           // without an end
    bool disabled;      // its account was refused
    bool fault_now;     // the end that is being told is a fault
    int64_t breaker_ns; // it opened then; 0: it is closed
    int probes;         // calls since then without an end
    int64_t not_before; // back-pressure asks for silence until then
} target;

struct sim_upstreams {
    bool timid;
    upstream_policy policies[SIM_UPSTREAMS_MAX];
    target targets[SIM_UPSTREAMS_MAX];
    int count;
    call *calls[CALLS_MAX];
    int call_count;
    sim_call_counts counts;
};

static void draw_policy(rng *r, upstream_policy *p, int index) {
    static const char *const names[SIM_UPSTREAMS_MAX] = {"u0", "u1", "u2", "u3"};
    *p = (upstream_policy){.name = names[index],
                           .api = (upstream_api)sim_below(r, 4),
                           .base_url = "https://sim",
                           .model = "m",
                           .takes_prefill = sim_below(r, 2),
                           .takes_tools = true,
                           .takes_json = true,
                           .concurrency = sim_below(r, 2) ? 0 : 1 + sim_below(r, 6),
                           .connect_ns = 100 * CLOCK_MS,
                           .first_content_ns = (50 + sim_below(r, 400)) * CLOCK_MS,
                           .between_chunks_ns = (20 + sim_below(r, 200)) * CLOCK_MS,
                           .total_ns = 2 * CLOCK_SECOND,
                           .drain_ns = (20 + sim_below(r, 300)) * CLOCK_MS,
                           .breaker_window = 4 + sim_below(r, 8),
                           .breaker_least = 2 + sim_below(r, 3),
                           .breaker_share = 0.5,
                           .breaker_open_ns = (50 + sim_below(r, 1000)) * CLOCK_MS};
    if (sim_below(r, 6) == 0) p->requests_per_minute = 5 + sim_below(r, 60);
    if (sim_below(r, 6) == 0) p->tokens_per_minute = 500 + sim_below(r, 20000);
}

sim_upstreams *sim_upstreams_create(uint64_t seed, bool timid, upstreams_policy *out) {
    sim_upstreams *u = calloc(1, sizeof *u);
    SIM_CHECK(u, "no memory");
    rng r = rng_make(seed);
    u->timid = timid;
    u->count = sim_below(&r, SIM_UPSTREAMS_MAX + 1);

    for (int i = 0; i < u->count; i++) {
        draw_policy(&r, &u->policies[i], i);
        u->targets[i].random = rng_make(rng_next(&r));
    }
    *out = (upstreams_policy){.items = u->policies,
                              .count = u->count,
                              .return_after_ns = sim_below(&r, 2) * sim_below(&r, 800) * CLOCK_MS,
                              .max_attempts = 1 + sim_below(&r, 4)};
    return u;
}

void sim_upstreams_destroy(sim_upstreams *u) {
    for (int i = 0; i < u->call_count; i++) {
        sim_script_free(&u->calls[i]->script);
        free(u->calls[i]);
    }
    free(u);
}

static call *find(const sim_upstreams *u, uint64_t id, int *index) {
    for (int i = 0; i < u->call_count; i++)
        if (u->calls[i]->id == id) {
            if (index) *index = i;
            return u->calls[i];
        }
    return NULL;
}

static void next_at(world *w, const call *c, int64_t after_ns) {
    sim_queue_push(
        &w->queue,
        (sim_item){.at_ns = sim_here->now_ns + after_ns, .kind = SIM_CALL, .epoch = c->id});
}

static void check_target(const sim_upstreams *u, const core_effect *e) {
    const target *t = &u->targets[e->call.upstream];
    const upstream_policy *p = &u->policies[e->call.upstream];
    SIM_CHECK(!t->disabled, "%s is called, and its account was refused", p->name);
    SIM_CHECK(sim_here->now_ns >= t->not_before, "%s is called %lld ms too early", p->name,
              (long long)((t->not_before - sim_here->now_ns) / CLOCK_MS));
    if (t->breaker_ns) {
        SIM_CHECK(sim_here->now_ns >= t->breaker_ns + p->breaker_open_ns,
                  "%s is called while its breaker is open", p->name);
        SIM_CHECK(t->probes == 0, "%s has two probes", p->name);
    }
    double minutes = (double)(sim_here->now_ns - CLOCK_SECOND) / 60e9;
    SIM_CHECK(p->requests_per_minute == 0 ||
                  t->calls + 1 <= p->requests_per_minute * (1 + minutes) + 0.001,
              "%s: %d calls in %.1f minutes", p->name, t->calls + 1, minutes);
    SIM_CHECK(p->concurrency == 0 || t->open < p->concurrency, "%s: %d calls at once", p->name,
              t->open + 1);
}

void sim_upstreams_call(world *w, const core_effect *e) {
    sim_upstreams *u = w->upstreams;
    sim_clients_called(w->clients, e, &w->traffic, sim_here->now_ns);
    check_target(u, e);
    SIM_CHECK(e->call.call && !find(u, e->call.call, NULL), "a call's number comes twice");
    SIM_CHECK(u->call_count < CALLS_MAX, "%d calls are open", u->call_count);
    call *c = calloc(1, sizeof *c);
    SIM_CHECK(c, "no memory");
    *c = (call){.id = e->call.call,
                .request = e->call.request->id,
                .upstream = e->call.upstream,
                .failover = e->call.failover};
    snprintf(c->public_id, sizeof c->public_id, "%s", e->call.request->public_id);
    snprintf(c->client, sizeof c->client, "%s", e->call.request->client);
    target *t = &u->targets[c->upstream];
    int number = t->calls++;
    bool fault = w->mood != SIM_TIMID && !w->quiet && sim_below(&t->random, 2);
    fault = fault && sim_fault(SIM_SOURCE_UPSTREAM + c->upstream, number);
    sim_script_draw(&c->script, &t->random, &u->policies[c->upstream], c->upstream, e, fault);
    t->open++;
    c->probe = t->breaker_ns != 0;
    t->probes += c->probe;
    u->calls[u->call_count++] = c;
    u->counts.calls++;
    u->counts.faults += fault;
    u->counts.continued += e->call.mode != UPSTREAM_FRESH;
    next_at(w, c, c->script.wait_ns[0]);
}

void sim_upstreams_cancel(world *w, const core_effect *e) {
    sim_upstreams *u = w->upstreams;
    call *c = find(u, e->call.call, NULL);
    SIM_CHECK(c && !c->ended && !c->cancelled, "a call is cancelled that is over");
    c->cancelled = true;
    u->counts.cancelled++;
    sim_clients_call_cancelled(w->clients, c->request, c->id);
}

void sim_upstreams_notice(world *w, const core_notice *n) {
    sim_upstreams *u = w->upstreams;
    for (int i = 0; i < u->count; i++) {
        target *t = &u->targets[i];
        if (strcmp(n->upstream, u->policies[i].name) != 0) continue;
        SIM_CHECK(n->kind != NOTICE_BREAKER_OPEN || t->fault_now,
                  "the breaker of %s opens without a fault", n->upstream);
        SIM_CHECK(n->kind != NOTICE_UPSTREAM_DISABLED || t->disabled, "%s is disabled for nothing",
                  n->upstream);
        if (n->kind == NOTICE_BREAKER_OPEN) t->breaker_ns = sim_here->now_ns, t->probes = 0;
        if (n->kind == NOTICE_BREAKER_CLOSED) t->breaker_ns = 0;
    }
}

// What the core tells the books is what the edge told the core.
void sim_upstreams_done(world *w, const core_effect *e) {
    sim_upstreams *u = w->upstreams;
    int index;
    call *c = find(u, e->call_done.call, &index);
    SIM_CHECK(c && c->ended, "a call is done that is open, or was done before");
    const upstream_end *said = &c->script.end, *told = &e->call_done.end;
    SIM_CHECK(e->call_done.upstream == &u->policies[c->upstream], "a call of another upstream");
    SIM_CHECK(e->call_done.failover == c->failover, "a call that was %s a failover",
              c->failover ? "" : "not");
    SIM_CHECK(strcmp(e->call_done.public_id, c->public_id) == 0 &&
                  strcmp(e->call_done.client, c->client) == 0,
              "a call of %s for %s, not %s for %s", e->call_done.public_id, e->call_done.client,
              c->public_id, c->client);
    SIM_CHECK(told->outcome == said->outcome &&
                  told->cost_microdollars == said->cost_microdollars &&
                  told->usage.input_tokens == said->usage.input_tokens &&
                  told->usage.cached_tokens == said->usage.cached_tokens &&
                  told->usage.written_tokens == said->usage.written_tokens &&
                  told->usage.output_tokens == said->usage.output_tokens &&
                  told->usage.known == said->usage.known,
              "the books hear of another usage than the call had");
    sim_script_free(&c->script);
    free(c);
    u->calls[index] = u->calls[--u->call_count];
}

static void say_tool(world *w, call *c, const char *arguments, size_t size) {
    bool first = !c->named;
    c->named = true;
    answer_tool tool = {.id = first ? "call-1" : NULL,
                        .name = first ? "look" : NULL,
                        .arguments = arguments,
                        .size = size};
    core_event e = {.kind = CORE_UPSTREAM_CONTENT, .upstream.call = c->id};
    e.upstream.content.tool = &tool;
    sim_clients_called_tool(w->clients, c->request, c->id, arguments, size);
    sim_handle(w, &e);
}

static void say_text(world *w, const call *c, size_t from, size_t to) {
    const sim_script *s = &c->script;
    size_t fresh = from < s->overlap ? s->overlap : from;
    if (fresh < to)
        sim_clients_said(w->clients, c->request, c->id, s->text.data + fresh, to - fresh);
    core_event e = {.kind = CORE_UPSTREAM_CONTENT, .upstream.call = c->id};
    e.upstream.content = (upstream_content){.text = s->text.data + from, .size = to - from};
    sim_handle(w, &e);
}

static void say(world *w, call *c) {
    const sim_script *s = &c->script;
    int piece = c->said++;
    size_t from = s->cuts[piece], to = s->cuts[piece + 1];
    next_at(w, c, s->wait_ns[c->said]);
    if (from == to) return;
    if (piece < s->tool_from)
        say_text(w, c, from, to);
    else
        say_tool(w, c, s->text.data + from, to - from);
}

static void note_end(world *w, const call *c) {
    target *t = &w->upstreams->targets[c->upstream];
    const upstream_end *end = &c->script.end;
    t->open--;
    if (c->probe && t->probes > 0) t->probes--;
    t->fault_now = end->outcome == UPSTREAM_FAULT;
    if (end->outcome == UPSTREAM_ACCOUNT) t->disabled = true;
    int64_t silent_ms = end->outcome == UPSTREAM_BUSY ? end->retry_after_ms : 0;
    if (end->hold_ms > silent_ms) silent_ms = end->hold_ms;
    int64_t until = sim_here->now_ns + silent_ms * CLOCK_MS;
    if (until > t->not_before) t->not_before = until;
}

// Words about a call that is over: nobody minds them.
static void speak_late(world *w, const core_event *end) {
    core_event e = {.kind = CORE_UPSTREAM_CONTENT, .upstream.call = end->upstream.call};
    e.upstream.content = (upstream_content){.text = "late", .size = 4};
    sim_handle(w, &e);
    sim_handle(w, end);
}

static void finish(world *w, call *c) {
    int upstream = c->upstream;
    if (c->cancelled && sim_below(&w->upstreams->targets[c->upstream].random, 2))
        sim_script_cancel(&c->script);
    c->ended = true;
    uint64_t id = c->id, request = c->request;
    bool again = sim_below(&w->upstreams->targets[c->upstream].random, 20) == 0;
    core_event e = {.kind = CORE_UPSTREAM_END, .upstream.call = id};
    e.upstream.end = c->script.end;
    note_end(w, c);
    sim_clients_call_ending(w->clients, request, id, &c->script.end);
    sim_handle(w, &e);
    sim_clients_call_ended(w->clients, request);
    SIM_CHECK(!find(w->upstreams, id, NULL), "a call ended, and the books did not hear of it");
    w->upstreams->targets[upstream].fault_now = false;
    if (again) speak_late(w, &e);
}

void sim_upstreams_run(world *w, const sim_item *item) {
    call *c = find(w->upstreams, item->epoch, NULL);
    if (!c) return;
    if (c->said < c->script.pieces)
        say(w, c);
    else
        finish(w, c);
}

int sim_upstreams_open(const sim_upstreams *u) {
    return u->call_count;
}

void sim_upstreams_add(const sim_upstreams *u, sim_call_counts *sum) {
    sum->calls += u->counts.calls;
    sum->faults += u->counts.faults;
    sum->continued += u->counts.continued;
    sum->cancelled += u->counts.cancelled;
}
