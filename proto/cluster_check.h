// cluster_check: the checks that cluster_msg.c and cluster_step.c share. For these two alone.
#ifndef OCTANT_PROTO_CLUSTER_CHECK_H
#define OCTANT_PROTO_CLUSTER_CHECK_H

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/status.h"
#include "common/base/utf8.h"

// INVALID_ARGUMENT unless least <= value <= most.
static inline status cluster_check_range(const char *field, int64_t value, int64_t least,
                                         int64_t most) {
    if (value >= least && value <= most) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "%s is %" PRId64 "; %" PRId64 " to %" PRId64 " are valid", field, value,
                        least, most);
}

// A text of at most `most` bytes, valid UTF-8.
static inline status cluster_check_text(const char *field, const char *text, size_t most) {
    size_t size = strlen(text);
    if (size > most)
        return status_error(STATUS_INVALID_ARGUMENT, "%s has %zu bytes; at most %zu are valid",
                            field, size, most);
    if (!utf8_is_valid(text, size))
        return status_error(STATUS_INVALID_ARGUMENT, "%s is not valid UTF-8", field);
    return status_ok();
}

// The same, copied into an array of `room` bytes.
static inline status cluster_copy_text(const char *field, const char *text, char *out,
                                       size_t room) {
    TRY(cluster_check_text(field, text, room - 1));
    memcpy(out, text, strlen(text) + 1);
    return status_ok();
}

#endif
