// keys: the secrets by which upstreams know us. Each target names a file or an environment variable
// (or neither: no key is sent). Read at start, a file again when it has changed, so that a key can
// be rotated without a restart; a file that has become unreadable or nonsense leaves the old key in
// force and one warning in the log. An upstream that was disabled because its key was refused is
// enabled again when its file has another one (of an environment variable: at the next start).
//
// A key is never part of an error, a log line or a metric, and its bytes are wiped when they are
// no longer needed (as far as they are ours: libcurl and OpenSSL have copies while they send).
#ifndef OCTANT_COORDINATOR_UPSTREAM_KEYS_H
#define OCTANT_COORDINATOR_UPSTREAM_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "coordinator/core/policy.h"

enum { UPSTREAM_KEY_MAX = 4096 }; // [bytes]; printable ASCII without spaces

typedef struct upstream_keys upstream_keys;

// Reads all of them. INVALID_ARGUMENT, NOT_FOUND: which target's, and why. `policy` outlives it.
status upstream_keys_open(const upstreams_policy *policy, upstream_keys **out);
void upstream_keys_close(upstream_keys *k); // wipes; NULL is allowed

// Counts from 1 how often the key of target `upstream` was read well; reads it if it has changed.
uint64_t upstream_keys_version(upstream_keys *k, int upstream);

// Appends the key of target `upstream` to `out`, after `prefix`; nothing at all where it has none.
// Any thread. The caller wipes `out` (upstream_keys_wipe). *version: of what
// was appended. False: `out` has no room.
bool upstream_keys_append(upstream_keys *k, int upstream, const char *prefix, buf *out,
                          uint64_t *version);

// Overwrites and frees.
void upstream_keys_wipe(buf *b);

#endif
