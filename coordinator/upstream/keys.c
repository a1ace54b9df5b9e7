#include "coordinator/upstream/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"

typedef struct key {
    char text[UPSTREAM_KEY_MAX + 1]; // "": none
    struct stat seen;                // of the file when it was read
    bool warned;                     // about a change that could not be read
    uint64_t version;                // how often it was read well
} key;

struct upstream_keys {
    const upstreams_policy *policy;
    pthread_mutex_t lock;
    key keys[]; // (policy->count)
};

// Takes what surrounds the key off, and checks the rest: a line break or a space in it would end up
// in the request's header.
static status clean(char *text, size_t size, const char *where) {
    size_t begin = 0;
    while (size > begin && strchr(" \t\r\n", text[size - 1])) size--;
    while (begin < size && strchr(" \t\r\n", text[begin])) begin++;
    size -= begin;
    memmove(text, text + begin, size);
    text[size] = 0;
    if (!size) return status_error(STATUS_INVALID_ARGUMENT, "%s is empty", where);
    if (size > UPSTREAM_KEY_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%s is longer than %d bytes", where,
                            UPSTREAM_KEY_MAX);
    for (size_t i = 0; i < size; i++)
        if (text[i] < '!' || text[i] > '~')
            return status_error(STATUS_INVALID_ARGUMENT,
                                "%s must be one word of printable ASCII, nothing else", where);
    return status_ok();
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static status read_open_file(int file, const char *path, key *out) {
    char text[UPSTREAM_KEY_MAX + 64]; // with what clean takes off
    size_t size = 0;
    ssize_t got = 0;
    if (fstat(file, &out->seen))
        return status_error(STATUS_NOT_FOUND, "key file %s: %s", path, strerror(errno));
    while (size < sizeof text && (got = read(file, text + size, sizeof text - size)) > 0)
        size += (size_t)got;
    status s = status_ok();
    if (got < 0)
        s = status_error(STATUS_NOT_FOUND, "key file %s: %s", path, strerror(errno));
    else if (size == sizeof text)
        s = status_error(STATUS_INVALID_ARGUMENT, "key file %s is longer than a key of %d bytes",
                         path, UPSTREAM_KEY_MAX);
    else
        s = status_context(clean(text, size, "the key"), "key file %s", path);
    if (status_is_ok(&s)) memcpy(out->text, text, strlen(text) + 1);
    explicit_bzero(text, sizeof text);
    return s;
}

// *out is only changed when the file has a good key.
static status read_file(const char *path, key *out) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not hang us
    if (file < 0) return status_error(STATUS_NOT_FOUND, "key file %s: %s", path, strerror(errno));
    key fresh = {.warned = false};
    status s = read_open_file(file, path, &fresh);
    close(file);
    fresh.version = out->version + 1;
    if (status_is_ok(&s)) *out = fresh;
    explicit_bzero(&fresh, sizeof fresh);
    return s;
}

static status read_environment(const char *name, key *out) {
    const char *value = getenv(name); // only here, before other threads start
    if (!value)
        return status_error(STATUS_NOT_FOUND, "the environment has no %s; set it, or name a file",
                            name);
    if (strlen(value) >= sizeof out->text)
        return status_error(STATUS_INVALID_ARGUMENT, "%s is longer than a key of %d bytes", name,
                            UPSTREAM_KEY_MAX);
    memcpy(out->text, value, strlen(value) + 1);
    return clean(out->text, strlen(out->text), name);
}

static status read_first(const upstream_policy *u, key *out) {
    if (u->key_file && u->key_env)
        return status_error(STATUS_INVALID_ARGUMENT, "give a key file or a variable, not both");
    if (u->key_env) return read_environment(u->key_env, out);
    if (!u->key_file) return status_ok();
    TRY(read_file(u->key_file, out));
    if (out->seen.st_mode & (S_IRWXG | S_IRWXO))
        log_warn("upstream", "%s: key file %s can be read by other users; chmod 600 it", u->name,
                 u->key_file);
    return status_ok();
}

status upstream_keys_open(const upstreams_policy *policy, upstream_keys **out) {
    upstream_keys *k = calloc(1, sizeof *k + (size_t)policy->count * sizeof k->keys[0]);
    if (!k) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the upstreams' keys");
    k->policy = policy;
    pthread_mutex_init(&k->lock, NULL);
    for (int i = 0; i < policy->count; i++) {
        status s = read_first(&policy->items[i], &k->keys[i]);
        if (status_is_ok(&s)) continue;
        upstream_keys_close(k);
        return status_context(s, "upstream %s", policy->items[i].name);
    }
    *out = k;
    return status_ok();
}

void upstream_keys_close(upstream_keys *k) {
    if (!k) return;
    explicit_bzero(k->keys, (size_t)k->policy->count * sizeof k->keys[0]);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

// A file that is being written just now reads as nonsense: it is tried again at the next call.
static void refresh(const upstream_policy *u, key *k) {
    struct stat now;
    if (!stat(u->key_file, &now) && same_file(&now, &k->seen)) return;
    bool warned = k->warned;
    status s = read_file(u->key_file, k);
    if (status_is_ok(&s)) {
        log_info("upstream", "%s: the key file has changed and was read again", u->name);
    } else {
        if (!warned)
            log_warn("upstream", "%s: %s; the key read before stays in force", u->name, s.message);
        k->warned = true;
    }
}

uint64_t upstream_keys_version(upstream_keys *k, int upstream) {
    const upstream_policy *u = &k->policy->items[upstream];
    pthread_mutex_lock(&k->lock);
    if (u->key_file) refresh(u, &k->keys[upstream]);
    uint64_t version = k->keys[upstream].version;
    pthread_mutex_unlock(&k->lock);
    return version;
}

bool upstream_keys_append(upstream_keys *k, int upstream, const char *prefix, buf *out,
                          uint64_t *version) {
    const upstream_policy *u = &k->policy->items[upstream];
    *version = 0;
    if (!u->key_file && !u->key_env) return true;
    pthread_mutex_lock(&k->lock);
    key *own = &k->keys[upstream];
    if (u->key_file) refresh(u, own);
    *version = own->version;
    // Room for both at once: a buffer that grows leaves copies behind.
    size_t prefix_size = strlen(prefix), key_size = strlen(own->text);
    char *room = buf_extend(out, prefix_size + key_size);
    if (room) {
        memcpy(room, prefix, prefix_size);
        memcpy(room + prefix_size, own->text, key_size);
    }
    pthread_mutex_unlock(&k->lock);
    return room != NULL;
}

void upstream_keys_wipe(buf *b) {
    if (b->data) explicit_bzero(b->data, b->room);
    buf_free(b);
}
