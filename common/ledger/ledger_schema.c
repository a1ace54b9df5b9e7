#include "common/ledger/ledger_schema.h"

// The audit's triggers stop honest mistakes; what stops others is the chain.
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS usage ("
    " id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,"
    " model TEXT NOT NULL, served_by TEXT NOT NULL, privacy TEXT NOT NULL, rule TEXT NOT NULL,"
    " answers INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, queue_us INTEGER NOT NULL,"
    " ttft_us INTEGER NOT NULL, total_us INTEGER NOT NULL, outcome TEXT NOT NULL,"
    " compute_us INTEGER NOT NULL, local_nano INTEGER);"
    "CREATE INDEX IF NOT EXISTS usage_at ON usage (at_us);"
    "CREATE INDEX IF NOT EXISTS usage_request ON usage (request_id);"
    "CREATE TABLE IF NOT EXISTS call ("
    " id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,"
    " call INTEGER NOT NULL, upstream TEXT NOT NULL, api TEXT NOT NULL, model TEXT NOT NULL,"
    " price TEXT NOT NULL, failover INTEGER NOT NULL, outcome TEXT NOT NULL,"
    " http_status INTEGER NOT NULL, first_us INTEGER, total_us INTEGER,"
    " input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,"
    " written_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,"
    " cost_nano INTEGER, reason TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS call_at ON call (at_us);"
    "CREATE INDEX IF NOT EXISTS call_request ON call (request_id);"
    "CREATE TABLE IF NOT EXISTS gap (id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL,"
    " rows_lost INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS audit ("
    " seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, request_id TEXT NOT NULL,"
    " key TEXT NOT NULL, privacy TEXT NOT NULL, rule TEXT NOT NULL, upstream TEXT NOT NULL,"
    " host TEXT NOT NULL, body_sha256 BLOB NOT NULL, size INTEGER NOT NULL,"
    " previous BLOB NOT NULL, hash BLOB NOT NULL);"
    "CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END;"
    "CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted'); END;"
    "CREATE TRIGGER IF NOT EXISTS audit_in_order BEFORE INSERT ON audit"
    " WHEN NEW.seq IS NOT (SELECT ifnull(max(seq), -1) + 1 FROM audit)"
    " BEGIN SELECT RAISE(ABORT, 'audit rows are only appended'); END;"
    // A request of several prompts is several rows of usage with one id, which share their calls.
    "CREATE VIEW IF NOT EXISTS request AS SELECT usage.*,"
    " (SELECT sum(cost_nano) FROM call WHERE call.request_id = usage.request_id) AS upstream_nano,"
    " (SELECT count(*) FROM call WHERE call.request_id = usage.request_id) AS calls,"
    " (SELECT count(*) FROM call WHERE call.request_id = usage.request_id"
    "   AND cost_nano IS NULL) AS unpriced FROM usage;";

const char *ledger_schema(void) {
    return schema;
}
