// sim_schedule: what may go wrong in a run, each thing by a number, so that a failing run can be
// had again with fewer of them. A number says where the fault comes from and which one of there it
// is; every source draws from random numbers of its own, so that leaving one fault out changes the
// others as little as possible.
#ifndef OCTANT_TESTS_SIM_SCHEDULE_H
#define OCTANT_TESTS_SIM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SIM_PLACES_MAX = 6,
    SIM_UPSTREAMS_MAX = 4,
    SIM_OF_SOURCE = 1000, // later ones always happen; so many come in long runs only
    SIM_SOURCE_PLACE = 1, // what befalls a place: death, hang, partition ...
    SIM_SOURCE_RESULT = SIM_SOURCE_PLACE + SIM_PLACES_MAX,      // what a result says
    SIM_SOURCE_UPSTREAM = SIM_SOURCE_RESULT + SIM_PLACES_MAX,   // how a call goes wrong
    SIM_SOURCE_CLOCK = SIM_SOURCE_UPSTREAM + SIM_UPSTREAMS_MAX, // the coordinator stands still
    SIM_SOURCES,
    SIM_FAULTS_MAX = SIM_SOURCES * SIM_OF_SOURCE,
    SIM_ASKS_MAX = 4000, // clients that can be left out
};

typedef struct sim_set {
    bool limited; // false: everything is in it
    uint64_t listed[SIM_FAULTS_MAX / 64 + 1];
} sim_set;

typedef struct sim_schedule {
    sim_set faults, clients;         // that may happen
    sim_set faults_met, clients_met; // that did, in this run
} sim_schedule;

// The fault's or the client's turn has come: does it happen?
bool sim_fault(int source, int ordinal);
bool sim_client(uint64_t ordinal);

void sim_schedule_begin(void); // a new run: nothing was met

// Sets as text: "all", "none", or numbers with commas. False: not such a text.
bool sim_set_parse(const char *text, sim_set *out);
void sim_set_print(const sim_set *s, char *out, int size);
int sim_set_list(const sim_set *s, int *out, int most); // the numbers; their count
void sim_set_of(const int *numbers, int count, sim_set *out);

#endif
