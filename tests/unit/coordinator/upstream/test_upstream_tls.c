// TLS is verified: a certificate that nobody vouches for, or of another name, gets no request; one
// that ca-file vouches for does. The server is libmicrohttpd's, the certificates are made here.
#include "edge_fixture.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

static fixture f;
static atomic_int requests;
static char ca_path[] = "/tmp/octant-ca-XXXXXX";

// ---- certificates ----

typedef struct identity {
    char key[4096], certificate[4096];
} identity;

static void add_extension(X509 *x, int kind, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    assert_non_null(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

static void read_all(BIO *b, char *out, size_t room) {
    int size = BIO_read(b, out, (int)room - 1);
    assert_true(size > 0);
    out[size] = 0;
    BIO_free(b);
}

// Signed by itself, for `names`: "IP:127.0.0.1".
static void make_identity(identity *out, const char *names) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(x, NID_subject_alt_name, names);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    BIO *b = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
    read_all(b, out->key, sizeof out->key);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, x);
    read_all(b, out->certificate, sizeof out->certificate);
    X509_free(x);
    EVP_PKEY_free(key);
}

// ---- the server ----

static const char ANSWER[] =
    "data: "
    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}"
    "\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"
    "data: [DONE]\n\n";

static enum MHD_Result answer(void *owner, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **state) {
    (void)owner, (void)url, (void)method, (void)version, (void)data;
    static int seen;
    if (!*state) { // the header alone
        *state = &seen;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    atomic_fetch_add(&requests, 1);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(sizeof ANSWER - 1, (void *)ANSWER, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(r, "Content-Type", "text/event-stream");
    enum MHD_Result result = MHD_queue_response(c, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}

static struct MHD_Daemon *serve(const identity *id, int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_Daemon *d =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_TLS, 0, NULL, NULL, answer, NULL,
                         MHD_OPTION_SOCK_ADDR, &a, MHD_OPTION_HTTPS_MEM_KEY, id->key,
                         MHD_OPTION_HTTPS_MEM_CERT, id->certificate, MHD_OPTION_END);
    if (d) *port = MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port;
    return d;
}

static upstream_end call_once(const identity *id, const char *ca_file) {
    int port = 0;
    struct MHD_Daemon *d = serve(id, &port);
    if (!d) skip(); // a libmicrohttpd without TLS
    atomic_store(&requests, 0);
    fixture_init(&f);
    fixture_target(&f, "https", port, "tls")->ca_file = ca_file;
    fixture_start(&f);
    upstream_end end = fixture_wait(&f, fixture_send(&f, fixture_ask(0)));
    fixture_free(&f);
    MHD_stop_daemon(d);
    return end;
}

static void write_ca(const identity *id) {
    FILE *file = fopen(ca_path, "w");
    assert_non_null(file);
    fputs(id->certificate, file);
    fclose(file);
}

static void test_trusted(void **state) {
    (void)state;
    identity id;
    make_identity(&id, "IP:127.0.0.1");
    write_ca(&id);
    upstream_end end = call_once(&id, ca_path);
    assert_ended(&end, UPSTREAM_OK, "");
    assert_int_equal(atomic_load(&requests), 1);
}

static void expect_no_request(const identity *id, const char *ca_file) {
    upstream_end end = call_once(id, ca_file);
    assert_ended(&end, UPSTREAM_FAULT, "certificate is not trusted");
    assert_int_equal(atomic_load(&requests), 0);
    assert_true(end.usage.known); // nothing was sent
    assert_int_equal(end.cost_microdollars, 0);
}

static void test_unknown_signer(void **state) {
    (void)state;
    identity id, other;
    make_identity(&id, "IP:127.0.0.1");
    make_identity(&other, "IP:127.0.0.1");
    expect_no_request(&id, NULL); // the system does not know it either
    write_ca(&other);
    expect_no_request(&id, ca_path);
}

static void test_other_name(void **state) {
    (void)state;
    identity id;
    make_identity(&id, "DNS:localhost,IP:127.0.0.2");
    write_ca(&id);
    expect_no_request(&id, ca_path);
}

static int make_file(void **state) {
    (void)state;
    int file = mkstemp(ca_path);
    return file < 0 ? -1 : close(file);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(ca_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_trusted),
                                       cmocka_unit_test(test_unknown_signer),
                                       cmocka_unit_test(test_other_name)};
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
