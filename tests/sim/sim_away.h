// sim_away: what may become of one request at upstreams, and what its client must hear of it. Kept
// apart from what the core keeps: the privacy class and the route as the client's own copy.
#ifndef OCTANT_TESTS_SIM_AWAY_H
#define OCTANT_TESTS_SIM_AWAY_H

#include "common/base/buf.h"
#include "coordinator/core/core.h"
#include "tests/sim/sim_schedule.h"

typedef struct sim_away {
    core_route route; // as the router decided
    const core_request *asked;
    uint64_t call; // open and wanted; 0: none
    bool speaks;   // pieces without tokens are its words
    int upstream, attempts;
    int tried[SIM_UPSTREAMS_MAX]; // calls of each
    int busy[SIM_UPSTREAMS_MAX];  // of them, those that were told to come again
    bool refused_prefill[SIM_UPSTREAMS_MAX];
    bool partial;   // the call goes on with a partial answer
    bool continued; // and was heard: the one switch is used up
    bool foreign;   // the client has heard an upstream
    buf text;       // what the client must have heard once all of it is through
    size_t shown;   // of it, what cannot be taken back when a stop text turns out to begin in it
    bool stopped;   // a stop text is complete: the rest of the call is nobody's
    buf tool;       // arguments that the client must hear next
    bool tools;     // it has heard some: nothing goes on from there
    bool complete;  // the call ended well
    answer_finish finish;
    bool heard;        // the client has words of this call
    bool exact;        // `tokens` is: no call ended that said only what the client had
    int64_t tokens;    // of the calls that it has words of
    uint32_t outcomes; // bits: how calls ended
    int64_t spent;     // microdollars
} sim_away;

void sim_away_begin(sim_away *a, const core_request *r);
void sim_away_free(sim_away *a);

// CORE_CALL_UPSTREAM, with what the client has heard so far.
void sim_away_called(sim_away *a, const core_effect *e, const upstreams_policy *policy,
                     const core_request *r, const buf *heard);

// A call said something that the client does not have yet; its overlap is taken off already.
void sim_away_said(sim_away *a, uint64_t call, const char *text, size_t size);

// The same for a part of a tool call; and when it comes to the client.
void sim_away_called_tool(sim_away *a, uint64_t call, const char *arguments, size_t size);
void sim_away_heard_tool(sim_away *a, const answer_tool *tool);

// CORE_CANCEL_UPSTREAM: from now on it speaks to nobody.
void sim_away_cancelled(sim_away *a, uint64_t call);

// Before the core hears of the end, and after.
void sim_away_ending(sim_away *a, uint64_t call, const upstream_end *end);
void sim_away_ended(sim_away *a);

// A piece of `size` bytes that an upstream must have said: `heard` has it already.
void sim_away_heard(sim_away *a, const buf *heard, size_t size);

#endif
