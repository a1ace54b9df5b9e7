#include "proto/cluster_key.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_key(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (text[i] <= ' ' || text[i] > '~') return false;
    return size >= CLUSTER_KEY_MIN && size <= CLUSTER_KEY_MAX;
}

status cluster_key_read(const char *path, cluster_key *out) {
    char line[CLUSTER_KEY_MAX + 3] = ""; // with "\r\n"
    out->header[0] = 0;
    FILE *file = fopen(path, "re");
    if (!file) return status_error(STATUS_NOT_FOUND, "cluster key %s: %s", path, strerror(errno));
    bool got = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    size_t size = strcspn(line, "\r\n");
    line[size] = 0;
    if (!got || !is_key(line, size))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "cluster key %s: the first line must be a key of %d to %d characters "
                            "without blanks, as openssl rand -hex 32 makes one",
                            path, CLUSTER_KEY_MIN, CLUSTER_KEY_MAX);
    snprintf(out->header, sizeof out->header, "Bearer %.*s", CLUSTER_KEY_MAX,
             line); // checked above
    return status_ok();
}

bool cluster_key_fits(const cluster_key *key, const char *header) {
    size_t size = strlen(key->header), came = header ? strlen(header) : 0;
    if (size == 0) return true;
    unsigned differs = came != size;
    for (size_t i = 0; i < size; i++)
        differs |= (unsigned char)key->header[i] ^ (unsigned char)(i < came ? header[i] : 0);
    return differs == 0;
}
