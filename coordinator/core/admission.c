#include "coordinator/core/admission.h"

#include <assert.h>

#include "coordinator/core/effects.h"
#include "coordinator/core/failover.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/request.h"

enum { RETRY_MS_MIN = 1000, RETRY_MS_MAX = 60000 };

// When a place in the queue may be free: how long the queue takes at its recent speed.
static int64_t retry_after_ms(const core *c) {
    double ms = c->ns_per_admission * c->queued / 1e6;
    return ms < RETRY_MS_MIN ? RETRY_MS_MIN : ms > RETRY_MS_MAX ? RETRY_MS_MAX : (int64_t)ms;
}

static void refuse(core *c, core_request *asked, status why) {
    c->counters.rejected++;
    core_effect *e = effects_add(c->out, CORE_END);
    e->end.request = asked;
    e->end.end = (answer_end){
        .why = why, .usage = {.prompt_tokens = asked->prompt_count, .seed = asked->sampling.seed}};
    if (why.code == STATUS_RESOURCE_EXHAUSTED) e->end.end.retry_after_ms = retry_after_ms(c);
    if (why.code == STATUS_UNAVAILABLE) e->end.end.retry_after_ms = RETRY_MS_MIN;
}

static status check_ids(const core_request *asked, int vocab) {
    for (int i = 0; i < asked->prompt_count; i++)
        if (asked->prompt[i] < 0 || asked->prompt[i] >= vocab)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "prompt token %d is %d; the model's ids are 0 to %d", i,
                                asked->prompt[i], vocab - 1);
    return status_ok();
}

static status check(const core *c, const core_request *asked, const lane *l) {
    if (c->draining)
        return status_error(STATUS_UNAVAILABLE, "the server is shutting down; try another");
    if (!l || (l->vocab == 0 && asked->route.local))
        return status_error(STATUS_NOT_FOUND, "no worker group has registered the model '%s'",
                            asked->model);
    if (!asked->route.local && !failover_is_possible(c, asked))
        return status_error(STATUS_UNAVAILABLE,
                            "no group of ours may serve this request, and its route lets it go to "
                            "no upstream");
    if (asked->prompt_count < 1 && asked->route.local)
        return status_error(STATUS_INVALID_ARGUMENT, "the prompt has no tokens");
    if (asked->route.local && asked->prompt_count >= l->context + (asked->max_tokens == 0))
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "the prompt has %d tokens and the model's context is %d: nothing is left "
            "for the answer",
            asked->prompt_count, l->context);
    if (asked->route.local) TRY(check_ids(asked, l->vocab));
    if (asked->deadline_ns <= c->now_ns)
        return status_error(STATUS_DEADLINE_EXCEEDED, "the deadline had passed on arrival");
    if (c->queued >= c->options.max_queue)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "%d requests wait already (--max-queue); try again later", c->queued);
    return status_ok();
}

void admission_take(core *c, core_request *asked) {
    assert(asked->id && asked->n >= 1 && asked->n <= CORE_N_MAX && asked->max_tokens >= 0);
    assert(asked->stop_count <= CORE_STOP_MAX && !request_find(c, asked->id));
    c->counters.requests++;
    lane *l = lane_find(c, asked->model);
    // Names that only upstreams know are the policy's: there are few.
    if (!l && !asked->route.local && failover_is_possible(c, asked)) l = lane_open(c, asked->model);
    status why = check(c, asked, l);
    if (!status_is_ok(&why)) {
        refuse(c, asked, why);
        return;
    }
    int left = l->context - asked->prompt_count;
    if (asked->route.local && asked->max_tokens > left) asked->max_tokens = left;
    fair_client *client = fairness_enter(l->fairness, asked->client);
    request *r = client ? request_open(c, asked, l, client) : NULL;
    if (!r) {
        if (client) fairness_leave(l->fairness, client);
        refuse(c, asked, status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the request"));
        return;
    }
    c->counters.prompt_tokens += (uint64_t)asked->prompt_count;
    if (asked->route.local)
        lane_push(c, l, &r->sequences[0], false);
    else
        failover_enter(c, r);
}
