#include "coordinator/core/lane.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/core/failover.h"
#include "coordinator/core/request.h"

static sequence *sequence_of(fair_item *item) {
    return (sequence *)((char *)item - offsetof(sequence, turn));
}

lane *lane_find(const core *c, const char *model) {
    lane *l = c->lanes;
    while (l && strcmp(l->model, model) != 0) l = l->next;
    return l;
}

lane *lane_open(core *c, const char *model) {
    lane *l = lane_find(c, model);
    if (l) return l;
    l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->fairness = fairness_create();
    if (!l->fairness) {
        free(l);
        return NULL;
    }
    snprintf(l->model, sizeof l->model, "%s", model);
    l->no_group_since_ns = c->now_ns;
    l->ready_since_ns = -1;
    l->guarded = c->options.upstreams.count > 0;
    l->next = c->lanes;
    c->lanes = l;
    return l;
}

void lane_free(lane *l) {
    fairness_destroy(l->fairness);
    free(l);
}

// A request is where the last of its sequences began to wait.
static void begin_to_wait(core *c, lane *l, request *r) {
    r->waits++;
    r->waiting_since_ns = c->now_ns;
    waiters_remove(&l->patience, &r->patience);
    waiters_append(&l->patience, &r->patience, r);
    failover_note(c, r);
}

void lane_push(core *c, lane *l, sequence *s, bool front) {
    assert(s->state == SEQUENCE_HELD);
    s->state = SEQUENCE_WAITING;
    fairness_push(l->fairness, s->request->client, &s->turn, front);
    begin_to_wait(c, l, s->request);
}

void lane_put_back(core *c, lane *l, sequence *s) {
    assert((s->state == SEQUENCE_RUNNING && !s->group) || s->state == SEQUENCE_AWAY);
    s->state = SEQUENCE_PUT_BACK;
    sequence_list_insert(&l->put_back, s);
    begin_to_wait(c, l, s->request);
}

void lane_remove(core *c, lane *l, sequence *s) {
    request *r = s->request;
    if (s->state == SEQUENCE_WAITING)
        fairness_remove(l->fairness, &s->turn);
    else if (s->state == SEQUENCE_PUT_BACK)
        sequence_list_remove(&l->put_back, s);
    else
        return;
    if (--r->waits > 0) return;
    waiters_remove(&l->patience, &r->patience);
    failover_forget(c, r);
}

sequence *lane_first(const lane *l) {
    if (l->put_back.first) return l->put_back.first;
    fair_item *item = fairness_first(l->fairness);
    return item ? sequence_of(item) : NULL;
}

void lane_release_held(core *c, request *r) {
    for (int i = r->asked->n - 1; i > 0; i--) // the last pushed to the front is the first
        if (r->sequences[i].state == SEQUENCE_HELD) lane_push(c, r->lane, &r->sequences[i], true);
}

int lane_waiting(const lane *l) {
    return l->put_back.count + fairness_waiting(l->fairness);
}

int lane_groups(const core *c, const lane *l, group_state state) {
    int count = 0;
    for (int i = 0; i < c->group_count; i++)
        count += c->groups[i]->lane == l && c->groups[i]->state == state;
    return count;
}

bool lane_feeds(const core *c, const group *g) {
    if (g->state != GROUP_READY) return false;
    for (int i = 0; g->spare && i < c->group_count; i++)
        if (c->groups[i]->lane == g->lane && c->groups[i]->state == GROUP_READY &&
            !c->groups[i]->spare)
            return false;
    return true;
}

bool lane_has_hope(const core *c, const lane *l) {
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i]->lane == l) return true;
    return false;
}

// Why it waited in vain; `since_ns`: how long there has been no group.
status lane_no_group(const lane *l, const request *r, int64_t waited_ns) {
    bool stays = r->asked->route.privacy == PRIVACY_LOCAL_ONLY && l->guarded;
    return status_error(STATUS_UNAVAILABLE,
                        "no worker group of %s for %lld s%s%.300s%s%s%s; try again once one has "
                        "registered",
                        l->model, (long long)(waited_ns / 1000000000),
                        l->last_loss[0] ? "; the last one was lost: " : "", l->last_loss,
                        stays ? "; the request is local-only and may not leave" : "",
                        r->last_reason[0] ? "; the last upstream: " : "", r->last_reason);
}

int64_t lane_expires(const core *c, const lane *l) {
    const waiter *w = l->patience.first;
    if (!w || lane_has_hope(c, l)) return INT64_MAX;
    int64_t since = w->request->waiting_since_ns;
    if (l->no_group_since_ns > since) since = l->no_group_since_ns;
    return since + c->options.no_group_wait_ns;
}

void lane_expire(core *c, lane *l) {
    while (lane_expires(c, l) <= c->now_ns) {
        request *r = l->patience.first->request;
        request_fail(r, c, lane_no_group(l, r, c->options.no_group_wait_ns));
    }
}

void lane_clear(core *c, lane *l, status why) {
    while (l->patience.first) request_fail(l->patience.first->request, c, why);
}
