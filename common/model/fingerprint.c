#include "common/model/fingerprint.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct fingerprint {
    EVP_MD_CTX *context;
    bool failed;
};

status fingerprint_create(fingerprint **out) {
    *out = calloc(1, sizeof **out);
    EVP_MD_CTX *context = *out ? EVP_MD_CTX_new() : NULL;
    if (!context) {
        free(*out);
        *out = NULL;
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a SHA-256 state");
    }
    (*out)->context = context;
    (*out)->failed = EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1;
    return status_ok();
}

static void update(fingerprint *f, const void *bytes, size_t size) {
    if (EVP_DigestUpdate(f->context, bytes, size) != 1) f->failed = true;
}

void fingerprint_add_number(fingerprint *f, uint64_t number) {
    unsigned char little_endian[8];
    for (int i = 0; i < 8; i++) little_endian[i] = (unsigned char)(number >> 8 * i);
    update(f, little_endian, sizeof little_endian);
}

void fingerprint_add(fingerprint *f, const void *bytes, size_t size) {
    fingerprint_add_number(f, size);
    update(f, bytes, size);
}

status fingerprint_finish(fingerprint *f, char digits[FINGERPRINT_DIGITS + 1]) {
    static const char hex[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    bool failed = f->failed || EVP_DigestFinal_ex(f->context, digest, NULL) != 1;
    EVP_MD_CTX_free(f->context);
    free(f);
    if (failed) return status_error(STATUS_INTERNAL, "libcrypto cannot compute SHA-256");
    for (int i = 0; i < FINGERPRINT_DIGITS / 2; i++) {
        digits[2 * i] = hex[digest[i] >> 4];
        digits[2 * i + 1] = hex[digest[i] & 15];
    }
    digits[FINGERPRINT_DIGITS] = 0;
    return status_ok();
}
