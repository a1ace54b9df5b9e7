// address: may the coordinator talk to this base URL? https:// always; http:// only to this
// machine, or where the operator has said so for the target. Checked at start, so that a typing
// error is a line on the terminal and not a fault at three in the morning.
#ifndef OCTANT_COORDINATOR_UPSTREAM_ADDRESS_H
#define OCTANT_COORDINATOR_UPSTREAM_ADDRESS_H

#include <stdbool.h>

#include "common/base/status.h"
#include "coordinator/core/policy.h"

// INVALID_ARGUMENT, NOT_FOUND (ca_file): one line, with the target's name.
status upstream_address_check(const upstream_policy *u);

// http:// (then to this machine, or allowed).
bool upstream_address_is_plain(const upstream_policy *u);

#endif
