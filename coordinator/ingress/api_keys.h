// api_keys: who may ask. A file with one key a line, "KEY" or "NAME KEY"; '#' starts a comment.
// Only SHA-256 digests stay in memory; a key is compared with all of them in constant time.
#ifndef OCTANT_COORDINATOR_INGRESS_API_KEYS_H
#define OCTANT_COORDINATOR_INGRESS_API_KEYS_H

#include <stdbool.h>

#include "common/base/status.h"

enum { API_KEYS_MAX = 4096, API_KEY_BYTES_MIN = 8, API_KEY_BYTES_MAX = 256, API_KEY_NAME_MAX = 63 };

typedef struct api_keys api_keys;

// INVALID_ARGUMENT with the line; NOT_FOUND when the file cannot be read.
status api_keys_open(const char *path, api_keys **out);
void api_keys_close(api_keys *k); // NULL is allowed

// The name that the file gives the key (or "key-" and its line number); NULL when it is not in the
// file. Lives as long as `k`.
const char *api_keys_find(const api_keys *k, const char *key);

// The key in an Authorization header ("Bearer KEY"), or NULL. Points into `header`.
const char *api_key_from_header(const char *header);

#endif
