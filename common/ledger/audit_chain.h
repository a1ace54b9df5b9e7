// audit_chain: what left the site, so that nobody can quietly say otherwise. Each row of table
// `audit` (ledger_schema.h) holds the hash of the row before it and the hash of itself:
//
//   hash = SHA-256( previous (32 bytes) | seq | at_us | size | body_sha256 (32 bytes)
//                   | request_id | key | privacy | rule | upstream | host )
//
// numbers as 8 bytes, little-endian; texts as their length (8 bytes, little-endian) and their
// bytes. Row 0 is the genesis: previous is zero, rule is "genesis", body_sha256 are 32 random
// bytes, so that no two ledgers share a hash. A changed, missing, swapped or inserted row breaks
// the chain there.
//
// A chain cannot know where it should end. DATA_DIR/audit.head repeats the last committed row
// ("SEQ HASH"), so cutting rows off the end shows too, unless the head was rewritten with them. Who
// wants to be sure keeps what `octant audit verify` prints somewhere else and gives it back later
// with --expect.
#ifndef OCTANT_LEDGER_AUDIT_CHAIN_H
#define OCTANT_LEDGER_AUDIT_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum { AUDIT_HASH_BYTES = 32, AUDIT_HASH_DIGITS = 64, AUDIT_HEAD_BYTES = 86 };
#define AUDIT_GENESIS_RULE "genesis"

typedef struct audit_row {
    int64_t seq, at_us, size;
    const char *request_id, *key, *privacy, *rule, *upstream, *host;
    unsigned char body[AUDIT_HASH_BYTES]; // SHA-256 of what was sent
    unsigned char previous[AUDIT_HASH_BYTES], hash[AUDIT_HASH_BYTES];
} audit_row;

// SHA-256 (FIPS 180-4). False: libcrypto failed.
bool audit_sha256(const void *bytes, size_t size, unsigned char out[AUDIT_HASH_BYTES]);
// The row's hash, of all fields but `hash`.
bool audit_row_hash(const audit_row *row, unsigned char out[AUDIT_HASH_BYTES]);

typedef struct audit_head {
    int64_t seq;
    unsigned char hash[AUDIT_HASH_BYTES];
} audit_head;

// "SEQ HASH\n", AUDIT_HEAD_BYTES long with seq in 20 digits; and "SEQ:HASH" or "SEQ HASH" back.
void audit_head_write(const audit_head *head, char out[AUDIT_HEAD_BYTES + 1]);
bool audit_head_parse(const char *text, audit_head *out);
// Of a data directory; NOT_FOUND, DATA_LOSS when it is no head.
status audit_head_read(const char *data_dir, audit_head *out);

typedef struct audit_report {
    int64_t rows; // that hold, before the first that does not; the genesis counts
    int64_t first_us, last_us;
    audit_head last; // the last row that holds
    bool broken;
    int64_t broken_seq; // the first row that does not hold
    char why[256];      // one line
} audit_report;

// Walks the whole chain; also, that every call which an upstream answered has its row, and that the
// triggers are there. An error says that it could not be walked (no ledger, not readable); a
// broken chain is an answer. `expect`: a head noted earlier, or NULL.
status audit_verify(const char *data_dir, const audit_head *expect, audit_report *out);

#endif
