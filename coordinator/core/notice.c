// notice: the names by which the event log, metrics and status tell what happened.
#include "coordinator/core/core.h"

const char *core_notice_name(core_notice_kind kind) {
    static const char *const names[] = {
        "group-registered", "group-ready",  "group-draining", "group-drained",     "group-lost",
        "request-poison",   "breaker-open", "breaker-closed", "upstream-disabled", "traffic-left",
        "traffic-back",     "device-hot",   "device-cool"};
    _Static_assert(sizeof names / sizeof *names == NOTICE_KINDS, "a name for each");
    return names[kind];
}

const char *loss_reason_name(loss_reason r) {
    static const char *const names[] = {"none",    "stream-closed", "silent",   "overdue", "device",
                                        "numbers", "checksum",      "protocol", "memory"};
    _Static_assert(sizeof names / sizeof *names == LOSS_MEMORY + 1, "a name for each");
    return names[r];
}
