// sim: the coordinator's core against simulated clients, worker groups, upstreams and clock, from a
// seed.
//
//   sim_core [--seed S] [--seeds N] [--events E] [--jobs J] [--canary BUG] [--progress yes]
//             [--trace yes]
//       seeds S to S + N - 1, E events each, then calm
//   SEED=42 FAULTS=1002,7001 CLIENTS=3 EVENTS=400 sim_core
//       one seed, only these faults and clients; what a failure prints
//
// Clients ask, leave and run out of time; groups load, answer, die, hang, fall silent, are cut off,
// answer nonsense and come back; upstreams refuse, stall, break off; the coordinator stands still.
// Some runs have no faults at all, some have requests that kill what computes them and nothing
// else. After every event the core's books are gone through; every piece is compared with the
// answer that the request must get. Then the weather turns calm: everything that lives must end
// with a full answer, all blocks must be free again and every call be in the books.
#include <inttypes.h>
#include <malloc.h>
#include <string.h>

#include "tests/sim/canary.h"
#include "tests/sim/sim_runner.h"

static uint64_t number(const char *text) {
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end) {
        fprintf(stderr, "sim_core: '%s' is not a number\n", text);
        exit(2);
    }
    return value;
}

static uint64_t number_from(const char *variable, uint64_t otherwise) {
    const char *text = getenv(variable);
    return text && *text ? number(text) : otherwise;
}

static void set_from(const char *variable, sim_set *out) {
    const char *text = getenv(variable);
    if (sim_set_parse(text && *text ? text : "all", out)) return;
    fprintf(stderr, "sim_core: %s=%s: give all, none, or numbers with commas\n", variable, text);
    exit(2);
}

static void take(sim_orders *o, const char **canary, const char *name, const char *value) {
    if (strcmp(name, "--seed") == 0)
        o->seed = number(value);
    else if (strcmp(name, "--seeds") == 0)
        o->seeds = number(value);
    else if (strcmp(name, "--events") == 0)
        o->events = number(value);
    else if (strcmp(name, "--jobs") == 0)
        o->jobs = (int)number(value);
    else if (strcmp(name, "--progress") == 0)
        o->progress = strcmp(value, "yes") == 0;
    else if (strcmp(name, "--trace") == 0)
        o->trace = strcmp(value, "yes") == 0;
    else if (strcmp(name, "--canary") == 0)
        *canary = value;
    else {
        fprintf(stderr, "sim_core: %s is no option; see the head of tests/sim/sim.c\n", name);
        exit(2);
    }
}

static void print_sums(const sim_sums *s) {
    printf("%" PRIu64 " events, %" PRIu64 " requests, %" PRIu64 " full answers, %" PRIu64
           " steps, %" PRIu64 " cached tokens, %" PRIu64 " preemptions, %" PRIu64
           " groups lost, %" PRIu64 " replays\n",
           s->events, s->core.requests, s->core.ended_ok, s->core.steps, s->core.cached_tokens,
           s->core.preemptions, s->core.groups_lost, s->core.replays);
    printf("%" PRIu64 " calls, %" PRIu64 " with a fault, %" PRIu64
           " with a partial answer, %" PRIu64 " cancelled\n",
           s->calls.calls, s->calls.faults, s->calls.continued, s->calls.cancelled);
    printf("%" PRIu64 " requests quarantined, %" PRIu64 " of them by bad luck\n",
           s->blames.quarantined, s->blames.unlucky);
}

int main(int argc, char **argv) {
    static sim_orders o;
    o = (sim_orders){.seed = number_from("SEED", 1), .seeds = 1, .jobs = 1, .tries = 600};
    o.events = number_from("EVENTS", 300);
    set_from("FAULTS", &o.faults);
    set_from("CLIENTS", &o.clients);
    const char *canary = NULL;
    for (int i = 1; i < argc; i += 2) take(&o, &canary, argv[i], i + 1 < argc ? argv[i + 1] : "");
    if (canary && !canary_set(canary)) {
        fprintf(stderr, "sim_core: no canary is called '%s'\n", canary);
        return 2;
    }
    if (canary) o.tries = 30;
    mallopt(M_TRIM_THRESHOLD, 1 << 28); // worlds come and go: their memory stays
    mallopt(M_MMAP_THRESHOLD, 1 << 28);
    sim_sums sums = {0};
    bool fine = sim_runner_run(&o, &sums);
    if (canary) {
        printf(fine ? "canary %s was NOT found\n" : "canary %s was found\n", canary);
        return fine;
    }
    if (!fine) return 1;
    print_sums(&sums);
    printf("%" PRIu64 " seeds, 0 violations\n", o.seeds);
    return 0;
}
