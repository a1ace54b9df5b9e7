#include "coordinator/ingress/api_keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct api_key {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char name[API_KEY_NAME_MAX + 1];
} api_key;

struct api_keys {
    int count;
    api_key keys[API_KEYS_MAX];
};

// "KEY" or "NAME KEY"; the line is cut up in place.
static status parse_line(api_keys *k, char *line, int number, const char *path) {
    line[strcspn(line, "#\r\n")] = 0;
    char *rest = NULL, *first = strtok_r(line, " \t", &rest),
         *second = strtok_r(NULL, " \t", &rest);
    if (!first) return status_ok();
    const char *key = second ? second : first;
    size_t size = strlen(key);
    if (size < API_KEY_BYTES_MIN || size > API_KEY_BYTES_MAX || strtok_r(NULL, " \t", &rest))
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "%s:%d: expected \"KEY\" or \"NAME KEY\" with a key of %d to %d characters", path,
            number, API_KEY_BYTES_MIN, API_KEY_BYTES_MAX);
    if (second && strlen(first) > API_KEY_NAME_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%s:%d: the name is longer than %d characters",
                            path, number, API_KEY_NAME_MAX);
    if (k->count == API_KEYS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%s:%d: more than %d keys", path, number,
                            API_KEYS_MAX);
    api_key *entry = &k->keys[k->count++];
    SHA256((const unsigned char *)key, size, entry->digest);
    if (second)
        snprintf(entry->name, sizeof entry->name, "%s", first);
    else
        snprintf(entry->name, sizeof entry->name, "key-%d", number);
    return status_ok();
}

status api_keys_open(const char *path, api_keys **out) {
    FILE *file = fopen(path, "re");
    if (!file) return status_error(STATUS_NOT_FOUND, "API key file %s: %s", path, strerror(errno));
    api_keys *k = calloc(1, sizeof *k);
    status s =
        k ? status_ok() : status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for API keys");
    char line[1024];
    for (int number = 1; s.code == STATUS_OK && fgets(line, sizeof line, file); number++) {
        if (!strchr(line, '\n') && !feof(file))
            s = status_error(STATUS_INVALID_ARGUMENT, "%s:%d: the line is too long", path, number);
        else
            s = parse_line(k, line, number, path);
    }
    if (s.code == STATUS_OK && !k->count)
        s = status_error(STATUS_INVALID_ARGUMENT, "%s: holds no key, so that nobody could ask",
                         path);
    OPENSSL_cleanse(line, sizeof line);
    fclose(file);
    if (s.code == STATUS_OK)
        *out = k;
    else
        free(k);
    return s;
}

void api_keys_close(api_keys *k) {
    free(k);
}

const char *api_keys_find(const api_keys *k, const char *key) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)key, strlen(key), digest);
    const char *name = NULL;
    // All of them, so that the time does not tell which one is near.
    for (int i = 0; i < k->count; i++)
        if (!CRYPTO_memcmp(digest, k->keys[i].digest, sizeof digest)) name = k->keys[i].name;
    return name;
}

const char *api_key_from_header(const char *header) {
    if (!header || strncasecmp(header, "Bearer ", 7)) return NULL;
    header += 7;
    return header + strspn(header, " ");
}
