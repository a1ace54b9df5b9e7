// status: the one result type of everything that can fail for a reason outside the program.
//
// A status is a value: a code and one line that says what failed, where, and how to mend it. Nothing
// to free, nothing shared. The codes are gRPC's canonical ones (same numbers), so that an error keeps its
// meaning from the file that was truncated to the client that asked; HTTP codes are derived at the ingress.
// A bug in Octant is an assert, never a status. The library codes of MPI, gRPC, CUDA ... end at
// the wrapper that owns them.
#ifndef OCTANT_BASE_STATUS_H
#define OCTANT_BASE_STATUS_H

#include <stdbool.h>

typedef enum status_code {
    STATUS_OK = 0,
    STATUS_CANCELLED = 1,
    STATUS_UNKNOWN = 2,
    STATUS_INVALID_ARGUMENT = 3,
    STATUS_DEADLINE_EXCEEDED = 4,
    STATUS_NOT_FOUND = 5,
    STATUS_ALREADY_EXISTS = 6,
    STATUS_PERMISSION_DENIED = 7,
    STATUS_RESOURCE_EXHAUSTED = 8,
    STATUS_FAILED_PRECONDITION = 9,
    STATUS_ABORTED = 10,
    STATUS_OUT_OF_RANGE = 11,
    STATUS_UNIMPLEMENTED = 12,
    STATUS_INTERNAL = 13,
    STATUS_UNAVAILABLE = 14,
    STATUS_DATA_LOSS = 15,
    STATUS_UNAUTHENTICATED = 16,
} status_code;

enum { STATUS_MESSAGE_MAX = 508 };

typedef struct status {
    status_code code;
    char message[STATUS_MESSAGE_MAX]; // one line, no newline; empty when code is STATUS_OK
} status;

// The success value. Only the code and the first byte are written: cheap to return.
static inline status status_ok(void) {
    status s;
    s.code = STATUS_OK;
    s.message[0] = 0;
    return s;
}

static inline bool status_is_ok(const status *s) {
    return s->code == STATUS_OK;
}

// An error; `code` must not be STATUS_OK. A message that is too long is cut and ends in "...".
// Control bytes that came in with names from outside are shown as '?', so that a message stays one line.
status status_error(status_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "context: " before the message of an error; an OK status passes through unchanged.
status status_context(status inner, const char *format, ...) __attribute__((format(printf, 2, 3)));

// "INVALID_ARGUMENT" and so on, as gRPC spells them.
const char *status_code_name(status_code code);

// Returns the error of `expression` to the caller, if it is one. For functions that return status and
// have nothing to undo; where there is something, write the ladder.
#define TRY(expression)                                                                            \
    do {                                                                                           \
        status try_status_ = (expression);                                                         \
        if (try_status_.code != STATUS_OK) return try_status_;                                     \
    } while (0)

#endif
