// local_child: a program that is to run as long as octant does: started, watched, and started again
// when it ends, after pauses that grow (0.2 s to 10 s) while it does not come to serve in between.
#ifndef OCTANT_CLIENT_LOCAL_CHILD_H
#define OCTANT_CLIENT_LOCAL_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "client/process.h"
#include "common/base/status.h"

// So many ends in a row, and whoever owns it may call it hopeless.
enum { LOCAL_CHILD_ENDS_MAX = 8 };

typedef struct local_child {
    process process;
    char label[24]; // "the coordinator", "group 2", "spare 1": for messages
    char log[24];   // its log's name, in the cluster's folder
    bool serves;    // its owner has seen it at work since it was last started
    bool ended;     // seen to have ended, not yet started again
    int64_t started_ns, away_since_ns;
    int ends_in_a_row; // without having served in between
} local_child;

// Starts argv with its output appended to `log_path`. A failure counts as an end.
status local_child_start(local_child *c, char *const argv[], const char *log_path);

// Call some times a second. True when it has ended and its pause is over: start it again. The end
// itself is logged once.
bool local_child_is_due(local_child *c);

// It serves, or not for the moment; `away_since_ns` counts from the first time that it did not.
void local_child_set_serves(local_child *c, bool serves);

// Why it ended: what it said itself; else how, below the last lines of its log.
status local_child_why_ended(const local_child *c, const char *log_path);

#endif
