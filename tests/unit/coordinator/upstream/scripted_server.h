// scripted_server: an HTTP/1.1 server on sockets that does what a test tells it, well or badly. The
// first part of a request's path names the script; everything about it is bounded, and stop ends
// whatever hangs.
#ifndef OCTANT_TESTS_SCRIPTED_SERVER_H
#define OCTANT_TESTS_SCRIPTED_SERVER_H

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVER_CONNECTIONS_MAX = 64, SERVER_REQUEST_MAX = 1 << 16 };

typedef struct scripted_server scripted_server;

// Answers one request on `fd`; false: close the connection.
typedef bool server_script(scripted_server *s, int fd);

typedef struct server_entry {
    const char *name;
    server_script *script;
} server_entry;

typedef struct server_connection {
    scripted_server *server;
    pthread_t thread;
    int fd;
} server_connection;

struct scripted_server {
    const server_entry *scripts; // ends with a NULL name
    int listener, port;
    pthread_t thread;
    atomic_bool stopping;
    atomic_bool go; // what some scripts wait for
    atomic_int connections, requests;
    pthread_mutex_t lock; // of what follows
    char last[SERVER_REQUEST_MAX];
    server_connection open[SERVER_CONNECTIONS_MAX];
    int open_count;
};

// ---- for scripts ----

static inline bool server_send(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

static inline bool server_text(int fd, const char *text) {
    return server_send(fd, text, strlen(text));
}

static inline bool server_chunk(int fd, const char *text) {
    char head[32];
    snprintf(head, sizeof head, "%zx\r\n", strlen(text));
    return server_text(fd, head) && server_text(fd, text) && server_text(fd, "\r\n");
}

static inline bool server_begin(int fd) {
    return server_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n");
}

static inline bool server_say(int fd, const char *text) {
    char event[4096];
    snprintf(event, sizeof event,
             "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"}}]}\n\n", text);
    return server_chunk(fd, event);
}

// 11 tokens in, of them 5 cached; 7 out.
static inline bool server_finish(int fd) {
    return server_chunk(
               fd,
               "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n") &&
           server_chunk(fd, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,"
                            "\"completion_tokens\":7,\"prompt_tokens_details\":"
                            "{\"cached_tokens\":5}}}\n\ndata: [DONE]\n\n") &&
           server_text(fd, "0\r\n\r\n");
}

static inline bool server_wait(scripted_server *s, int ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    if (!atomic_load(&s->stopping)) nanosleep(&t, NULL);
    return !atomic_load(&s->stopping);
}

static inline bool server_is_gone(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, 0) > 0;
}

// Says nothing more until the client hangs up, or the test ends.
static inline void server_hang(scripted_server *s, int fd) {
    while (!server_is_gone(fd) && server_wait(s, 5)) {
    }
}

static inline void server_wait_for_go(scripted_server *s) {
    while (!atomic_load(&s->go) && server_wait(s, 5)) {
    }
}

// ---- the server ----

static inline size_t server_body_size(const char *head) {
    const char *length = strcasestr(head, "\r\ncontent-length:");
    return length ? strtoul(length + 17, NULL, 10) : 0;
}

// One request into `out`; false: the connection ended.
static inline bool server_read(int fd, char out[SERVER_REQUEST_MAX]) {
    size_t size = 0;
    for (;;) {
        char *end = NULL;
        out[size] = 0;
        if ((end = strstr(out, "\r\n\r\n")) &&
            size >= (size_t)(end + 4 - out) + server_body_size(out))
            return true;
        assert(size < SERVER_REQUEST_MAX - 1);
        ssize_t got = recv(fd, out + size, SERVER_REQUEST_MAX - 1 - size, 0);
        if (got <= 0) return false;
        size += (size_t)got;
    }
}

static inline bool server_answer(scripted_server *s, int fd, const char *request) {
    const char *path = strchr(request, '/');
    size_t size = path ? strcspn(path + 1, "/ ") : 0;
    for (const server_entry *e = s->scripts; e->name; e++)
        if (path && strlen(e->name) == size && !strncmp(path + 1, e->name, size))
            return e->script(s, fd);
    return false;
}

static inline void *server_serve(void *argument) {
    server_connection *c = argument;
    scripted_server *s = c->server;
    char *request = malloc(SERVER_REQUEST_MAX);
    bool more = request != NULL;
    while (more && server_read(c->fd, request)) {
        pthread_mutex_lock(&s->lock);
        strcpy(s->last, request);
        pthread_mutex_unlock(&s->lock);
        atomic_fetch_add(&s->requests, 1);
        more = server_answer(s, c->fd, request) && !atomic_load(&s->stopping);
    }
    free(request);
    shutdown(c->fd, SHUT_RDWR); // closed by stop: its number is not given away before
    return NULL;
}

static inline void *server_accept(void *argument) {
    scripted_server *s = argument;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        atomic_fetch_add(&s->connections, 1);
        pthread_mutex_lock(&s->lock);
        assert(s->open_count < SERVER_CONNECTIONS_MAX);
        server_connection *c = &s->open[s->open_count++];
        *c = (server_connection){.server = s, .fd = fd};
        assert(!pthread_create(&c->thread, NULL, server_serve, c));
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static inline int server_listen(int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof a) && !listen(fd, 64));
    assert(!getsockname(fd, (struct sockaddr *)&a, &size));
    *port = ntohs(a.sin_port);
    return fd;
}

static inline void server_start(scripted_server *s, const server_entry *scripts) {
    memset(s, 0, sizeof *s);
    s->scripts = scripts;
    s->listener = server_listen(&s->port);
    pthread_mutex_init(&s->lock, NULL);
    assert(!pthread_create(&s->thread, NULL, server_accept, s));
}

static inline void server_stop(scripted_server *s) {
    atomic_store(&s->stopping, true);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    for (int i = 0; i < s->open_count; i++) {
        shutdown(s->open[i].fd, SHUT_RDWR);
        pthread_join(s->open[i].thread, NULL);
        close(s->open[i].fd);
    }
    pthread_mutex_destroy(&s->lock);
}

// Copies the newest request.
static inline void server_last(scripted_server *s, char out[SERVER_REQUEST_MAX]) {
    pthread_mutex_lock(&s->lock);
    strcpy(out, s->last);
    pthread_mutex_unlock(&s->lock);
}

#endif
