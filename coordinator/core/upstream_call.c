#include "coordinator/core/upstream_call.h"

#include <stddef.h>

const char *upstream_outcome_name(upstream_outcome o) {
    switch (o) {
    case UPSTREAM_OK:
        return "ok";
    case UPSTREAM_FAULT:
        return "fault";
    case UPSTREAM_BUSY:
        return "busy";
    case UPSTREAM_CLIENT:
        return "client";
    case UPSTREAM_ACCOUNT:
        return "account";
    case UPSTREAM_CANCELLED:
        return "cancelled";
    }
    return NULL;
}
