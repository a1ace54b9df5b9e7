#include "tests/sim/sim_clients.h"

#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/upstream/upstream_prompt.h"
#include "tests/sim/sim_away.h"
#include "tests/sim/sim_check.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/sim_traffic.h"

enum {
    ALIVE_MAX = 4096,
    PROMPTS = 5,
    KILLS_MAX = 4, // groups that one request may take with it: among others, twice, then alone
};

typedef struct heard {
    int32_t tokens[SIM_CONTEXT + 1];
    int token_count, prompt_told;
    buf text;
    answer_finish finish;
    bool foreseen;
    sim_answer expected; // once it is asked for: many requests are refused
} heard;

typedef struct asked {
    core_request *request;
    bool cancelled, quarantined;
    int kills;
    int64_t asked_ns;
    uint64_t salt;  // of the model as it was then
    int max_tokens; // as the client said
    int model;      // of the site
    sim_away away;
    heard answers[SIM_N_MAX];
} asked;

struct sim_clients {
    rng random;    // for who is picked
    uint64_t seed; // each request draws from its own numbers
    rng own;       // of the request being made
    uint64_t next_id;
    const sim_site *site;
    asked *alive[ALIVE_MAX];
    int count;
    sim_blames blames;
    int32_t prompts[PROMPTS][SIM_CONTEXT]; // beginnings that many requests share
};

sim_clients *sim_clients_create(uint64_t seed, const sim_site *site) {
    sim_clients *c = calloc(1, sizeof *c);
    SIM_CHECK(c, "no memory");
    c->random = rng_make(seed);
    c->seed = seed;
    c->site = site;
    c->next_id = 1;
    for (int i = 0; i < PROMPTS; i++)
        for (int k = 0; k < SIM_CONTEXT; k++)
            c->prompts[i][k] = 1 + (int32_t)rng_below(&c->random, SIM_VOCAB - 1);
    return c;
}

static int below(sim_clients *c, int bound) {
    return (int)rng_below(&c->own, (uint64_t)bound);
}

static bool one_in(sim_clients *c, int n) {
    return below(c, n) == 0;
}

static void make_prompt(sim_clients *c, core_request *r) {
    int shared = below(c, 70), own = 1 + below(c, one_in(c, 4) ? 60 : 8);
    if (one_in(c, 50)) own += SIM_CONTEXT; // longer than the context
    int32_t *prompt = arena_alloc_array(r->memory, (size_t)(shared + own), sizeof *prompt);
    const int32_t *base = c->prompts[below(c, PROMPTS)];
    for (int i = 0; i < shared; i++) prompt[i] = base[i];
    for (int i = 0; i < own; i++) prompt[shared + i] = 1 + below(c, SIM_VOCAB - 1);
    r->prompt = prompt;
    r->prompt_count = shared + own;
}

static void make_stops(sim_clients *c, core_request *r) {
    static const char *const words[] = {"END", "stop", "##", "\xe2\x82\xac", "no", "ab ", "\n"};
    while (r->stop_count < 4 && one_in(c, 3)) {
        const char *word = words[below(c, 7)];
        r->stop[r->stop_count++] = (core_stop){.bytes = word, .size = strlen(word)};
    }
}

// Where the router says that it may go. What leaves has one answer, and nobody asked for numbers
// that an upstream does not have.
static void make_route(sim_clients *c, core_request *r, bool served) {
    static const upstream_prompt prompt = {.messages = "[]"};
    core_route *route = &r->route;
    int have = c->site->upstreams.count;
    *route = (core_route){.privacy = (privacy_class)below(c, 3), .local = true, .rule = "sim"};
    if (route->privacy == PRIVACY_LOCAL_ONLY || have == 0) return;
    bool listed[SIM_UPSTREAMS_MAX] = {false};
    for (int want = below(c, have + 1); route->upstream_count < want;) {
        int u = below(c, have);
        if (!listed[u]) route->upstreams[route->upstream_count++] = (uint8_t)u;
        listed[u] = true;
    }
    if (route->upstream_count == 0) return;
    route->local = served ? !one_in(c, 8) : one_in(c, 2);
    route->upstream_first = one_in(c, 5);
    route->midstream = (midstream_policy)below(c, 6);
    if (route->midstream > MIDSTREAM_ERROR) route->midstream = MIDSTREAM_CONTINUE;
    route->may_continue = !one_in(c, 4);
    if (one_in(c, 2)) route->spill_ns = (1 + below(c, 300)) * CLOCK_MS;
    if (one_in(c, 6)) route->cost_limit = 1 + below(c, 3000);
    route->prompt = &prompt;
}

static void make_sampling(sim_clients *c, core_request *r, bool calm) {
    r->sampling.temperature = one_in(c, 2) ? 0 : 1;
    r->sampling.seed = rng_next(&c->own) % 3;
    r->sampling.presence_penalty = one_in(c, 6) ? 0.5f : 0;
    r->sampling.logprobs = one_in(c, 5) ? 2 : -1;
    r->prompt_logprobs = one_in(c, 20);
    r->n = one_in(c, 5) ? 1 + below(c, SIM_N_MAX) : 1;
    if (!calm && c->site->mood != SIM_TIMID && one_in(c, c->site->mood == SIM_POISONED ? 12 : 60)) {
        r->sampling.seed = SIM_POISON + r->id;
        r->n = 1;
    }
    if (r->route.upstream_count == 0) return;
    r->n = 1;
    r->prompt_logprobs = false;
    r->sampling.logprobs = -1;
}

static const sim_answer *expected(asked *a, int index) {
    const core_request *r = a->request;
    heard *h = &a->answers[index];
    int left = SIM_CONTEXT - r->prompt_count, limit = a->max_tokens < left ? a->max_tokens : left;
    if (!h->foreseen) sim_expect(r, a->salt, index, limit < 0 ? 0 : limit, &h->expected);
    h->foreseen = true;
    return &h->expected;
}

static int64_t draw_deadline(sim_clients *c, int64_t now_ns, bool calm) {
    bool near = !calm && one_in(c, 6);
    return now_ns + (near ? below(c, 2000) * CLOCK_MS : 600 * CLOCK_SECOND);
}

core_request *sim_clients_ask(sim_clients *c, int64_t now_ns, bool calm) {
    static const char *const names[SIM_CLIENTS] = {"flood", "a", "b", "c", "d", "e"};
    uint64_t id = c->next_id++;
    if (!sim_client(id)) return NULL;
    c->own = rng_make(c->seed ^ id << 20);
    core_request *r = core_request_create();
    asked *a = calloc(1, sizeof *a);
    SIM_CHECK(r && a && c->count < ALIVE_MAX, "no memory");
    r->id = id;
    snprintf(r->public_id, sizeof r->public_id, "sim-%llu", (unsigned long long)id);
    r->client = names[one_in(c, 2) ? 0 : below(c, SIM_CLIENTS)];
    a->model = below(c, c->site->model_count);
    if (!c->site->served[a->model] && !one_in(c, 3)) a->model = below(c, c->site->model_count);
    r->model = c->site->models[a->model];
    r->vocabulary = sim_vocabulary();
    make_route(c, r, c->site->served[a->model]);
    make_sampling(c, r, calm);
    if (r->route.local) make_prompt(c, r);
    make_stops(c, r);
    r->max_tokens = one_in(c, 6) ? INT32_MAX : below(c, 40);
    r->ignore_eos = one_in(c, 3);
    r->deadline_ns = draw_deadline(c, now_ns, calm);
    r->sink = a;
    a->request = r;
    a->asked_ns = now_ns;
    a->salt = sim_salt(r->model, c->site->versions[a->model]);
    a->max_tokens = r->max_tokens;
    sim_away_begin(&a->away, r);
    for (int i = 0; i < SIM_N_MAX; i++) a->answers[i].text = buf_make(1 << 16);
    c->alive[c->count++] = a;
    return r;
}

static asked *look(const sim_clients *c, uint64_t id, int *index) {
    for (int i = 0; i < c->count; i++)
        if (c->alive[i]->request->id == id) {
            if (index) *index = i;
            return c->alive[i];
        }
    return NULL;
}

static asked *find(sim_clients *c, uint64_t id, int *index) {
    asked *a = look(c, id, index);
    SIM_CHECK(a, "request %llu does not live: a piece or an end too many", (unsigned long long)id);
    return a;
}

bool sim_clients_lives(const sim_clients *c, uint64_t id) {
    return look(c, id, NULL) != NULL;
}

uint64_t sim_clients_pick(sim_clients *c) {
    return c->count ? c->alive[rng_below(&c->random, (uint64_t)c->count)]->request->id : 0;
}

void sim_clients_cancelled(sim_clients *c, uint64_t id) {
    find(c, id, NULL)->cancelled = true;
}

static void hear_prompt(const core_request *r, uint64_t salt, heard *h, const answer_piece *p) {
    SIM_CHECK(h->token_count == 0 && r->prompt_logprobs && p->size == 0, "prompt logprobs late");
    for (int i = 0; i < p->token_count; i++) {
        int at = h->prompt_told++;
        SIM_CHECK(at < r->prompt_count && p->tokens[i] == r->prompt[at], "prompt token %d", at);
        uint64_t entry = salt, folded = 0;
        for (int k = 0; k < at; k++)
            folded = sim_fold(folded, entry = sim_entry(entry, r->prompt[k]));
        float expected = sim_logprob(folded, r->prompt[at]);
        SIM_CHECK(at ? p->logprobs[i].logprob == expected : isnan(p->logprobs[i].logprob),
                  "prompt logprob of token %d", at);
    }
}

// What came is the beginning of what must come. (The last piece is judged with the end: an answer
// that is cut may spell its last, incomplete character.)
static void check_text(const core_request *r, const heard *h, const sim_answer *e) {
    SIM_CHECK(h->text.size <= e->text.size &&
                  memcmp(buf_string(&h->text), buf_string(&e->text), h->text.size) == 0,
              "request %llu: text '%s' of '%s'", (unsigned long long)r->id, buf_string(&h->text),
              buf_string(&e->text));
}

void sim_clients_hear_piece(sim_clients *c, uint64_t id, const answer_piece *p) {
    asked *a = find(c, id, NULL);
    SIM_CHECK(p->index >= 0 && p->index < a->request->n, "index %d", p->index);
    heard *h = &a->answers[p->index];
    SIM_CHECK(h->finish == ANSWER_GOES_ON, "a piece after the last piece");
    if (p->prompt) {
        hear_prompt(a->request, a->salt, h, p);
        return;
    }
    if (p->tool) {
        SIM_CHECK(p->size == 0 && p->token_count == 0, "a tool call with text");
        sim_away_heard_tool(&a->away, p->tool);
        return;
    }
    buf_append(&h->text, p->text, p->size);
    h->finish = p->finish;
    if (a->away.speaks && p->token_count == 0) {
        sim_away_heard(&a->away, &h->text, p->size);
        return;
    }
    SIM_CHECK(!a->away.foreign, "request %llu: our words after an upstream's",
              (unsigned long long)id);
    const sim_answer *e = expected(a, p->index);
    if (p->finish == ANSWER_GOES_ON) check_text(a->request, h, e);
    for (int i = 0; i < p->token_count; i++) {
        SIM_CHECK(h->token_count < e->token_count && p->tokens[i] == e->tokens[h->token_count],
                  "request %llu answer %d: token %d is %d, not %d", (unsigned long long)id,
                  p->index, h->token_count, p->tokens[i],
                  h->token_count < e->token_count ? e->tokens[h->token_count] : -1);
        if (a->request->sampling.logprobs >= 0)
            SIM_CHECK(p->logprobs && p->logprobs[i].logprob == -(float)p->tokens[i], "a logprob");
        h->token_count++;
    }
}

// Texts are compared as far as the answer got: a KV store may be smaller than the context.
static void judge_answer(asked *a, int index, int least_capacity) {
    const core_request *r = a->request;
    const heard *h = &a->answers[index];
    const sim_answer *e = expected(a, index);
    SIM_CHECK(!r->prompt_logprobs || h->prompt_told == r->prompt_count, "%d of %d prompt logprobs",
              h->prompt_told, r->prompt_count);
    bool cut = h->finish == ANSWER_LENGTH && e->finish == ANSWER_STOP; // just before its end
    if (h->token_count < e->token_count || cut) {
        int fits = least_capacity - r->prompt_count;
        SIM_CHECK(h->finish == ANSWER_LENGTH && h->token_count >= fits,
                  "request %llu answer %d: %d tokens of %d, %d would fit",
                  (unsigned long long)r->id, index, h->token_count, e->token_count, fits);
        return;
    }
    SIM_CHECK(h->finish == e->finish, "request %llu answer %d: finish %d, not %d",
              (unsigned long long)r->id, index, h->finish, e->finish);
    SIM_CHECK(h->text.size == e->text.size &&
                  memcmp(buf_string(&h->text), buf_string(&e->text), e->text.size) == 0,
              "request %llu answer %d: text '%s', not '%.*s'", (unsigned long long)r->id, index,
              buf_string(&h->text), (int)e->text.size, buf_string(&e->text));
}

static void judge_segments(const asked *a, const answer_usage *u) {
    int32_t tokens = 0;
    for (int i = 0; i < u->segment_count; i++) tokens += u->segments[i].tokens;
    SIM_CHECK(u->segment_count <= ANSWER_SEGMENTS_MAX && tokens == u->completion_tokens,
              "request %llu: %d segments of %d tokens, %d in all",
              (unsigned long long)a->request->id, u->segment_count, tokens, u->completion_tokens);
    bool away = false;
    for (int i = 0; i < u->segment_count; i++)
        away = away || strncmp(u->segments[i].by, "local/", 6) != 0;
    bool theirs = a->away.foreign || a->away.complete; // also an empty answer is somebody's
    SIM_CHECK(away == theirs || !a->away.exact, "request %llu was served by '%s'",
              (unsigned long long)a->request->id, u->segment_count ? u->segments[0].by : "nobody");
}

static void judge_usage(asked *a, const answer_usage *u) {
    int64_t completion = a->away.tokens;
    for (int i = 0; i < a->request->n; i++) {
        const heard *h = &a->answers[i];
        completion += h->token_count;
        if (h->finish == ANSWER_STOP && !a->away.complete)
            completion += expected(a, i)->sampled - expected(a, i)->token_count;
    }
    SIM_CHECK(u->completion_tokens == completion || !a->away.exact,
              "request %llu: %d completion tokens, %lld were told",
              (unsigned long long)a->request->id, u->completion_tokens, (long long)completion);
    bool tokenised = a->request->prompt_count > 0;
    SIM_CHECK(!tokenised || u->prompt_tokens == a->request->prompt_count, "prompt tokens");
    SIM_CHECK(u->cached_tokens <= u->prompt_tokens - tokenised, "cached tokens");
    SIM_CHECK(u->queue_ns >= 0 && u->queue_ns <= u->ttft_ns && u->ttft_ns <= u->total_ns, "times");
    judge_segments(a, u);
}

// The answer of an upstream: all that it said, and why it stopped.
static void judge_foreign(const asked *a) {
    const heard *h = &a->answers[0];
    SIM_CHECK(h->text.size == a->away.text.size &&
                  memcmp(buf_string(&h->text), buf_string(&a->away.text), h->text.size) == 0,
              "request %llu has '%s', and the upstreams said '%s'",
              (unsigned long long)a->request->id, buf_string(&h->text), buf_string(&a->away.text));
    SIM_CHECK(h->finish == a->away.finish, "request %llu: finish %d, not %d",
              (unsigned long long)a->request->id, h->finish, a->away.finish);
}

static void judge_ok(asked *a, const answer_end *end, int least_capacity) {
    judge_usage(a, &end->usage);
    if (a->away.complete) {
        judge_foreign(a);
        return;
    }
    SIM_CHECK(!a->away.foreign, "request %llu ends well in the middle of an upstream's answer",
              (unsigned long long)a->request->id);
    for (int i = 0; i < a->request->n; i++) judge_answer(a, i, least_capacity);
}

static void judge_end(const sim_clients *c, asked *a, const answer_end *end, int64_t now_ns,
                      const sim_weather *w) {
    const core_request *r = a->request;
    int least = c->site->least_capacity[a->model];
    uint32_t seen = a->away.outcomes;
    switch (end->why.code) {
    case STATUS_OK:
        judge_ok(a, end, least);
        return;
    case STATUS_CANCELLED:
        SIM_CHECK(a->cancelled, "cancelled by nobody");
        return;
    case STATUS_DEADLINE_EXCEEDED:
        SIM_CHECK(now_ns >= r->deadline_ns, "no deadline has passed");
        return;
    case STATUS_INVALID_ARGUMENT:
        SIM_CHECK(r->prompt_count >= (least < SIM_CONTEXT ? least : SIM_CONTEXT) ||
                      seen >> UPSTREAM_CLIENT & 1,
                  "refused: %s", end->why.message);
        return;
    case STATUS_INTERNAL:
        SIM_CHECK(a->quarantined, "%s", end->why.message);
        return;
    case STATUS_RESOURCE_EXHAUSTED:
        SIM_CHECK(end->retry_after_ms >= 1000, "no retry-after");
        return;
    case STATUS_NOT_FOUND:
        SIM_CHECK(!c->site->served[a->model] || !w->calm, "%s", end->why.message);
        return;
    case STATUS_UNAVAILABLE:
        SIM_CHECK(!w->calm || w->shutting_down || seen || !c->site->served[a->model], "%s",
                  end->why.message);
        return;
    default:
        SIM_CHECK(false, "ended with %s", end->why.message);
    }
}

void sim_clients_hear_end(sim_clients *c, core_request *request, const answer_end *end,
                          int64_t now_ns, const sim_weather *weather) {
    int index = 0;
    asked *a = find(c, request->id, &index);
    SIM_CHECK(a->request == request, "another request came back");
    judge_end(c, a, end, now_ns, weather);
    for (int i = 0; i < SIM_N_MAX; i++) {
        buf_free(&a->answers[i].text);
        if (a->answers[i].foreseen) sim_answer_free(&a->answers[i].expected);
    }
    sim_away_free(&a->away);
    c->alive[index] = c->alive[--c->count];
    free(a);
    arena_destroy(request->memory);
}

uint64_t sim_clients_killer(uint64_t seed) {
    return seed - SIM_POISON;
}

void sim_clients_killed(sim_clients *c, uint64_t seed) {
    asked *a = look(c, sim_clients_killer(seed), NULL);
    if (!a) return;
    a->kills++;
    SIM_CHECK(a->kills <= KILLS_MAX, "request %llu kills group after group: %d so far",
              (unsigned long long)a->request->id, a->kills);
}

// An innocent request may have been alone, twice, when a plug was pulled; never when a group died
// of another.
void sim_clients_quarantined(sim_clients *c, const char *public_id, bool killed) {
    for (int i = 0; i < c->count; i++) {
        asked *a = c->alive[i];
        if (strcmp(a->request->public_id, public_id) != 0) continue;
        bool innocent = a->request->sampling.seed < SIM_POISON;
        SIM_CHECK(!innocent || (!killed && c->site->mood == SIM_ROUGH),
                  "request %llu kills nothing, and is quarantined",
                  (unsigned long long)a->request->id);
        a->quarantined = true;
        c->blames.quarantined++;
        c->blames.unlucky += innocent;
    }
}

void sim_clients_add(const sim_clients *c, sim_blames *sum) {
    sum->quarantined += c->blames.quarantined;
    sum->unlucky += c->blames.unlucky;
}

// What was to be served here leaves only when nobody could, or when it has waited for too long.
static void check_reason(const asked *a, const core_effect *e, const sim_traffic *traffic,
                         int64_t now_ns) {
    const core_route *route = &a->away.route;
    bool ours = route->local && !route->upstream_first;
    SIM_CHECK(!e->call.failover || ours, "request %llu was never to be served here",
              (unsigned long long)a->request->id);
    bool spilled = route->spill_ns > 0 && now_ns - a->asked_ns >= route->spill_ns;
    if (ours && !spilled && !a->away.foreign)
        SIM_CHECK(sim_traffic_may_leave(traffic, a->model),
                  "request %llu leaves, and a group could serve it",
                  (unsigned long long)a->request->id);
}

void sim_clients_called(sim_clients *c, const core_effect *e, const sim_traffic *traffic,
                        int64_t now_ns) {
    const core_request *r = e->call.request;
    asked *a = find(c, r->id, NULL);
    SIM_CHECK(a->request == r, "a call for another request");
    check_reason(a, e, traffic, now_ns);
    sim_away_called(&a->away, e, &c->site->upstreams, r, &a->answers[0].text);
}

void sim_clients_call_cancelled(sim_clients *c, uint64_t id, uint64_t call) {
    asked *a = look(c, id, NULL);
    if (a) sim_away_cancelled(&a->away, call);
}

void sim_clients_said(sim_clients *c, uint64_t id, uint64_t call, const char *text, size_t size) {
    asked *a = look(c, id, NULL);
    if (a) sim_away_said(&a->away, call, text, size);
}

void sim_clients_called_tool(sim_clients *c, uint64_t id, uint64_t call, const char *arguments,
                             size_t size) {
    asked *a = look(c, id, NULL);
    if (a) sim_away_called_tool(&a->away, call, arguments, size);
}

void sim_clients_call_ending(sim_clients *c, uint64_t id, uint64_t call, const upstream_end *end) {
    asked *a = look(c, id, NULL);
    if (a) sim_away_ending(&a->away, call, end);
}

void sim_clients_call_ended(sim_clients *c, uint64_t id) {
    asked *a = look(c, id, NULL);
    if (a) sim_away_ended(&a->away);
}

int sim_clients_alive(const sim_clients *c) {
    return c->count;
}

void sim_clients_destroy(sim_clients *c) {
    SIM_CHECK(c->count == 0, "%d requests without an end", c->count);
    free(c);
}
