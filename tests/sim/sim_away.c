#include "tests/sim/sim_away.h"

#include <string.h>

#include "tests/sim/sim_check.h"

void sim_away_begin(sim_away *a, const core_request *r) {
    *a = (sim_away){.route = r->route,
                    .asked = r,
                    .exact = true,
                    .text = buf_make(1 << 16),
                    .tool = buf_make(1 << 16)};
}

void sim_away_free(sim_away *a) {
    buf_free(&a->text);
    buf_free(&a->tool);
}

// Nothing leaves that may not, nor to where it may not.
static void check_leave(const sim_away *a, const core_request *r, int upstream) {
    unsigned long long id = (unsigned long long)r->id;
    bool listed = false;
    for (int i = 0; i < a->route.upstream_count; i++)
        listed = listed || a->route.upstreams[i] == upstream;
    SIM_CHECK(a->route.privacy != PRIVACY_LOCAL_ONLY, "request %llu is local-only and leaves", id);
    SIM_CHECK(listed, "request %llu goes to upstream %d, which its route does not list", id,
              upstream);
    SIM_CHECK(a->call == 0, "request %llu has two calls", id);
}

static void check_attempts(const sim_away *a, const core_request *r, const upstreams_policy *policy,
                           const core_effect *e) {
    unsigned long long id = (unsigned long long)r->id;
    int u = e->call.upstream;
    int most = 1 + a->busy[u] + (a->refused_prefill[u] && e->call.mode != UPSTREAM_PREFILL);
    SIM_CHECK(a->tried[u] < most, "request %llu tries upstream %d twice", id, u);
    SIM_CHECK(policy->max_attempts == 0 || a->attempts < policy->max_attempts,
              "request %llu: attempt %d of %d", id, a->attempts + 1, policy->max_attempts);
    SIM_CHECK(a->route.cost_limit == 0 || a->spent < a->route.cost_limit,
              "request %llu has used up its money", id);
    SIM_CHECK(e->call.deadline_ns <= r->deadline_ns, "request %llu: a call outlives it", id);
    SIM_CHECK(!(a->outcomes >> UPSTREAM_OK & 1), "request %llu: a call after a full answer", id);
}

// A partial answer is handed on whole, once, and only where the route says so.
static void check_partial(const sim_away *a, const core_request *r, const upstreams_policy *policy,
                          const core_effect *e, const buf *heard) {
    unsigned long long id = (unsigned long long)r->id;
    if (e->call.mode == UPSTREAM_FRESH) {
        SIM_CHECK(heard->size == 0, "request %llu begins anew after %zu bytes", id, heard->size);
        SIM_CHECK(e->call.partial_size == 0, "request %llu: fresh, with a partial answer", id);
        return;
    }
    SIM_CHECK(a->route.midstream == MIDSTREAM_CONTINUE && a->route.may_continue,
              "request %llu goes on elsewhere against its route", id);
    SIM_CHECK(a->route.privacy == PRIVACY_MAY_LEAVE || a->attempts > 0,
              "request %llu: our groups' words leave, although it must be redacted", id);
    SIM_CHECK(!a->continued, "request %llu is handed on twice", id);
    SIM_CHECK(e->call.partial_size == heard->size && heard->size > 0 &&
                  memcmp(e->call.partial, heard->data, heard->size) == 0,
              "request %llu: the partial answer '%.*s' is not what the client has, '%s'", id,
              (int)e->call.partial_size, e->call.partial, buf_string(heard));
    SIM_CHECK(e->call.mode != UPSTREAM_PREFILL || policy->items[e->call.upstream].takes_prefill,
              "request %llu: prefill for upstream %d, which takes none", id, e->call.upstream);
}

void sim_away_called(sim_away *a, const core_effect *e, const upstreams_policy *policy,
                     const core_request *r, const buf *heard) {
    int u = e->call.upstream;
    SIM_CHECK(!a->tools, "request %llu goes on after a tool call", (unsigned long long)r->id);
    SIM_CHECK(u >= 0 && u < policy->count, "upstream %d", u);
    check_leave(a, r, u);
    check_attempts(a, r, policy, e);
    check_partial(a, r, policy, e, heard);
    a->call = e->call.call;
    a->upstream = u;
    a->attempts++;
    a->tried[u]++;
    a->partial = e->call.mode != UPSTREAM_FRESH;
    a->speaks = true;
    a->heard = false;
    buf_clear(&a->text);
    buf_append(&a->text, buf_string(heard), heard->size);
    a->shown = heard->size;
    a->complete = a->stopped = false;
}

// For stop texts, what several said is one text. No two of the clients' overlap.
static void cut_at_stop(sim_away *a) {
    for (int i = 0; i < a->asked->stop_count && !a->stopped; i++) {
        const core_stop *stop = &a->asked->stop[i];
        const char *at = memmem(a->text.data, a->text.size, stop->bytes, stop->size);
        if (!at) continue;
        size_t before = (size_t)(at - a->text.data);
        a->text.size = before > a->shown ? before : a->shown;
        a->stopped = a->complete = true;
        a->exact = false; // the answer is over before the call tells what it used
        a->finish = ANSWER_STOP;
    }
}

void sim_away_said(sim_away *a, uint64_t call, const char *text, size_t size) {
    if (a->call != call || a->stopped) return; // nobody waits for it any more
    buf_append(&a->text, text, size);
    if (a->text.size) cut_at_stop(a);
}

void sim_away_ending(sim_away *a, uint64_t call, const upstream_end *end) {
    if (a->call != call) return;
    bool ok = end->outcome == UPSTREAM_OK;
    if (a->heard || ok) a->tokens += end->usage.output_tokens;
    if (a->partial && !a->heard && !ok && end->first_content_ns >= 0) a->exact = false;
    a->outcomes |= 1u << end->outcome;
    if (end->cost_microdollars > 0) a->spent += end->cost_microdollars;
    if (end->prefill_refused) a->refused_prefill[a->upstream] = true;
    a->busy[a->upstream] += end->outcome == UPSTREAM_BUSY;
    a->complete = end->outcome == UPSTREAM_OK;
    a->finish = a->stopped ? ANSWER_STOP : end->finish;
    a->call = 0; // a call that the core makes now is the next
}

void sim_away_ended(sim_away *a) {
    if (a->call == 0) a->speaks = false;
}

void sim_away_called_tool(sim_away *a, uint64_t call, const char *arguments, size_t size) {
    if (a->call != call || a->stopped) return;
    buf_append(&a->tool, arguments, size);
    a->shown = a->text.size;
}

void sim_away_heard_tool(sim_away *a, const answer_tool *tool) {
    bool first = !a->tools;
    SIM_CHECK(a->speaks && tool->size == a->tool.size &&
                  memcmp(tool->arguments, buf_string(&a->tool), tool->size) == 0,
              "a tool call with '%.*s', not '%s'", (int)tool->size, tool->arguments,
              buf_string(&a->tool));
    SIM_CHECK((tool->id != NULL) == first && (tool->name != NULL) == first, "a tool's name");
    buf_clear(&a->tool);
    a->tools = a->foreign = a->heard = true;
}

void sim_away_cancelled(sim_away *a, uint64_t call) {
    if (a->call != call) return;
    a->call = 0;
    a->speaks = false;
}

void sim_away_heard(sim_away *a, const buf *heard, size_t size) {
    a->foreign = a->foreign || size > 0;
    a->heard = a->heard || size > 0;
    a->continued = a->continued || (size > 0 && a->partial);
    SIM_CHECK(heard->size <= a->text.size &&
                  memcmp(buf_string(heard), buf_string(&a->text), heard->size) == 0,
              "the client has '%s', and the upstreams said '%s'", buf_string(heard),
              buf_string(&a->text));
}
