// cluster_key: the secret that a coordinator and its workers share, so that nobody else registers a
// group and is sent prompts. A file whose first line is the key; sent as an "authorization" header
// with every call of cluster.proto. The connection itself is not encrypted.
#ifndef OCTANT_PROTO_CLUSTER_KEY_H
#define OCTANT_PROTO_CLUSTER_KEY_H

#include <stdbool.h>

#include "common/base/status.h"

enum { CLUSTER_KEY_MIN = 16, CLUSTER_KEY_MAX = 256 }; // characters

typedef struct cluster_key {
    char header[CLUSTER_KEY_MAX + sizeof "Bearer "]; // "Bearer KEY"; empty: there is no key
} cluster_key;

// NOT_FOUND when the file cannot be read, INVALID_ARGUMENT when its first line is not a key of
// CLUSTER_KEY_MIN to CLUSTER_KEY_MAX printable characters without blanks. No message holds it.
status cluster_key_read(const char *path, cluster_key *out);

// Whether the header (NULL: none came) is the key's; in a time that does not tell how nearly.
// Always when there is no key.
bool cluster_key_fits(const cluster_key *key, const char *header);

#endif
