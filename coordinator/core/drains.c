#include "coordinator/core/drains.h"

#include "common/base/log.h"
#include "coordinator/core/deadlines.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/group.h"
#include "coordinator/core/membership.h"
#include "coordinator/core/request.h"

static int running_in(const core *c, uint64_t epoch) {
    int count = 0;
    for (int i = 0; i < c->group_count; i++)
        if (epoch == 0 || c->groups[i]->epoch == epoch) count += c->groups[i]->running.count;
    return count;
}

static void answer(core *c, const drain *d, bool drained, int running) {
    if (!d->reply) return;
    core_effect *e = effects_add(c->out, CORE_DRAIN_REPLY);
    e->drained.reply = d->reply;
    e->drained.drained = drained;
    e->drained.running = running;
}

void membership_drain(core *c, const core_event *e) {
    drain d = {.epoch = e->epoch, .deadline_ns = e->drain.deadline_ns, .reply = e->drain.reply};
    group *g = d.epoch ? group_find(c, d.epoch) : NULL;
    if (c->drain_count == DRAINS_MAX || (d.epoch && !g)) { // gone already, or too many who ask
        answer(c, &d, d.epoch && !g, running_in(c, d.epoch));
        return;
    }
    c->drains[c->drain_count++] = d;
    if (!d.epoch) {
        c->draining = true;
        effects_log(c->out, LOG_INFO, "core", "draining: %d requests to finish", c->request_count);
    } else if (g->state != GROUP_DRAINING) {
        g->state = GROUP_DRAINING;
        g->drain_deadline_ns = d.deadline_ns;
        membership_notice(c, g, NOTICE_GROUP_DRAINING, LOSS_NONE, -1, "asked to drain");
        effects_log(c->out, LOG_INFO, "group", "%s of %s DRAINING", g->id, g->lane->model);
    }
}

// Out of time: what still lives gets its end.
static void end_all(core *c) {
    for (request *r; (r = deadlines_first(&c->deadlines));)
        request_fail(r, c,
                     status_error(STATUS_UNAVAILABLE,
                                  "the server shut down before the answer was complete"));
}

static bool settle(core *c, const drain *d) {
    bool empty = d->epoch ? !group_find(c, d->epoch) : c->request_count == 0;
    if (!empty && c->now_ns < d->deadline_ns) return false;
    answer(c, d, empty, running_in(c, d->epoch));
    if (!d->epoch && !empty) end_all(c);
    return true;
}

void drains_tick(core *c) {
    for (int i = 0; i < c->drain_count;) {
        if (!settle(c, &c->drains[i])) {
            i++;
            continue;
        }
        c->drains[i] = c->drains[--c->drain_count];
    }
}

int64_t drains_next(const core *c) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < c->drain_count; i++)
        if (c->drains[i].deadline_ns < next) next = c->drains[i].deadline_ns;
    return next;
}
