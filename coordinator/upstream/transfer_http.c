// transfer_http: what libcurl is told about one call, and what it says back. Callbacks run on the
// edge's thread, inside curl_multi_perform or curl_easy_pause; they change the transfer and never
// free it.
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "coordinator/upstream/address.h"
#include "coordinator/upstream/transfer_internal.h"

enum {
    DEAD_CONNECTION_MS = 15000, // bytes not acknowledged for so long: the connection is gone
    KEEPALIVE_S = 20,           // idle connections are probed so often
    IDLE_CONNECTION_S = 30, // kept open without a call; servers close theirs after about a minute
};

// ---- what comes ----

// Called with an open connection, before the request goes out. A second time means that libcurl
// would send it again on another connection: what the first attempt cost is not known, so the core
// decides what comes next.
static int on_connected(void *owner, char *peer, char *local, int peer_port, int local_port) {
    (void)peer, (void)local, (void)peer_port, (void)local_port;
    transfer *t = owner;
    if (t->sent) {
        t->broken = "the connection was lost before an answer came";
        return CURL_PREREQFUNC_ABORT;
    }
    t->sent = true;
    call_clocks_connected(&t->clocks);
    return CURL_PREREQFUNC_OK;
}

static size_t on_header(char *line, size_t one, size_t count, void *owner) {
    transfer *t = owner;
    size_t size = one * count;
    t->header_bytes += size;
    if (t->header_bytes > RESPONSE_HEADER_MAX) {
        t->broken = "the response's header is too long";
        return CURL_WRITEFUNC_ERROR;
    }
    // Trailers come this way too.
    if (!t->ended && !t->body_bytes) codec_header(t->codec, line, size, clock_unix_seconds());
    return size;
}

static void on_content(void *owner, const upstream_content *content) {
    transfer *t = owner;
    t->content_came = true;
    if (t->drain_until_ns == INT64_MAX && !outbox_add(&t->outbox, content))
        t->broken = "no memory for its answer";
}

// After the end: only so that the connection comes to a clean end.
static size_t linger(transfer *t, size_t size) {
    t->lingered += (int64_t)size;
    return t->lingered > LINGER_BYTES_MAX ? CURL_WRITEFUNC_ERROR : size;
}

static size_t feed(transfer *t, const char *bytes, size_t size) {
    t->body_bytes += (int64_t)size;
    if (t->body_bytes > RESPONSE_BYTES_MAX) t->broken = "its answer is too long";
    if (t->drain_until_ns != INT64_MAX) t->drained += (int64_t)size;
    uint64_t before = codec_progress(t->codec);
    t->content_came = false;
    codec_sink sink = {.owner = t, .content = on_content};
    if (!codec_feed(t->codec, bytes, size, &sink)) t->verdict = true;
    if (t->content_came || codec_progress(t->codec) != before)
        call_clocks_progress(&t->clocks, t->content_came, codec_output_tokens(t->codec),
                             clock_now_ns());
    if (t->broken) return CURL_WRITEFUNC_ERROR;
    outbox_flush(&t->outbox, t->call, t->edge->post, t->edge->core);
    return size;
}

static size_t on_body(char *bytes, size_t one, size_t count, void *owner) {
    transfer *t = owner;
    if (t->ended || t->verdict) return linger(t, one * count);
    if (!outbox_is_empty(&t->outbox)) {
        call_clocks_hold(&t->clocks);
        return CURL_WRITEFUNC_PAUSE;
    }
    return feed(t, bytes, one * count);
}

// A connection that a router has forgotten must not swallow call after call in silence.
static int on_socket(void *owner, curl_socket_t socket, curlsocktype purpose) {
    (void)owner, (void)purpose;
    unsigned int ms = DEAD_CONNECTION_MS;
    setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    return CURL_SOCKOPT_OK;
}

// ---- what is asked ----

static CURLcode set_callbacks(transfer *t) {
    CURL *c = t->easy;
    int bad = curl_easy_setopt(c, CURLOPT_PRIVATE, t);
    bad |= curl_easy_setopt(c, CURLOPT_PREREQFUNCTION, on_connected);
    bad |= curl_easy_setopt(c, CURLOPT_PREREQDATA, t);
    bad |= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    bad |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    bad |= curl_easy_setopt(c, CURLOPT_SOCKOPTFUNCTION, on_socket);
    return bad;
}

static CURLcode set_request(transfer *t) {
    CURL *c = t->easy;
    int bad = curl_easy_setopt(c, CURLOPT_URL, buf_string(&t->url));
    bad |= curl_easy_setopt(c, CURLOPT_POST, 1L);
    bad |= curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.size);
    bad |= curl_easy_setopt(c, CURLOPT_POSTFIELDS, buf_string(&t->body)); // not copied
    bad |= curl_easy_setopt(c, CURLOPT_HTTPHEADER, t->headers);
    bad |= curl_easy_setopt(c, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); // no key for a proxy
    bad |= curl_easy_setopt(c, CURLOPT_USERAGENT, "octant/" OCTANT_VERSION);
    bad |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    bad |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    return bad;
}

static CURLcode set_connection(transfer *t, bool fresh) {
    CURL *c = t->easy;
    bool plain = upstream_address_is_plain(t->target);
    const char *proxy = t->edge->proxy && !plain ? t->edge->proxy : ""; // "": not the environment's
    int bad = curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, plain ? "http" : "https");
    bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    bad |= curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (t->target->ca_file) bad |= curl_easy_setopt(c, CURLOPT_CAINFO, t->target->ca_file);
    if (t->target->ca_file) bad |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    bad |= curl_easy_setopt(c, CURLOPT_PROXY, proxy);
    bad |= curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    bad |= curl_easy_setopt(c, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    // Not to wait for another call's connection (CURLOPT_PIPEWAIT): one that hangs would take all
    // calls of a burst with it. Open ones are shared where HTTP/2 allows it.
    bad |= curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, fresh ? 1L : 0L);
    bad |= curl_easy_setopt(c, CURLOPT_MAXAGE_CONN, (long)IDLE_CONNECTION_S);
    bad |= curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
    bad |= curl_easy_setopt(c, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
    bad |= curl_easy_setopt(c, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S);
    bad |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    // A name server that does not answer must not hold this thread when the call is given up.
    bad |= curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
    return bad;
}

void transfer_open(transfer *t, CURLM *multi, bool fresh) {
    assert(!t->ended && !t->easy && t->privacy != PRIVACY_LOCAL_ONLY);
    t->easy = curl_easy_init();
    if (t->easy && !set_callbacks(t) && !set_request(t) && !set_connection(t, fresh) &&
        curl_multi_add_handle(multi, t->easy) == CURLM_OK)
        return;
    if (t->easy) curl_easy_cleanup(t->easy);
    t->easy = NULL;
    transfer_refuse(t, UPSTREAM_BUSY, "no memory to open the call");
}

static void wipe_headers(transfer *t) {
    for (struct curl_slist *h = t->headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(t->headers);
    t->headers = NULL;
}

void transfer_close(transfer *t, CURLM *multi) {
    if (t->easy) {
        curl_multi_remove_handle(multi, t->easy);
        curl_easy_cleanup(t->easy);
        t->easy = NULL;
    }
    wipe_headers(t);
    buf_free(&t->body);
}

const char *transfer_explain(const transfer *t, CURLcode code) {
    if (t->broken) return t->broken;
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "its host name is not known to the name server";
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "the proxy's name is not known to the name server";
    case CURLE_COULDNT_CONNECT:
        return "no connection: refused or unreachable";
    case CURLE_PEER_FAILED_VERIFICATION:
        return "its TLS certificate is not trusted: wrong name, expired, or signed by nobody that "
               "ca-file or the system knows";
    case CURLE_SSL_CONNECT_ERROR:
        return "TLS could not be agreed on";
    case CURLE_SSL_CACERT_BADFILE:
        return "ca-file cannot be used";
    case CURLE_UNSUPPORTED_PROTOCOL: // HTTP/0.9 is what libcurl makes of anything
    case CURLE_WEIRD_SERVER_REPLY:
        return "its answer is not HTTP";
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
        return "the connection was lost before an answer came";
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return t->header_bytes ? "the connection was lost in the middle of the answer"
                               : "the connection was lost before an answer came";
    default:
        return curl_easy_strerror(code);
    }
}
