// interrupt: SIGINT and SIGTERM as something to ask for, instead of something that happens in the
// middle of a call. A thread waits for them; what runs is cancelled, and the program ends by its
// own path, so that nothing it started stays.
#ifndef OCTANT_CLIENT_INTERRUPT_H
#define OCTANT_CLIENT_INTERRUPT_H

#include <stdbool.h>

#include "client/liboctant.h"
#include "common/base/status.h"

// Call first in main, before any thread starts: the signals are blocked in all of them.
status interrupt_start(void);

// How many came so far. The second one, and each later one, ends the process at once (exit 130): it
// is for someone who does not want to wait. Children die with us (client/process.h).
int interrupt_count(void);

// The client whose call is cancelled when one comes; NULL for none.
void interrupt_cancels(octant_client *client);

// In a chat, an interrupt ends the answer and not the program.
void interrupt_reset(void);

#endif
