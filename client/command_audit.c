// octant audit verify: walks the chain of what left the site and names the first row that does not
// hold. Exit status 1: it is broken.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/commands.h"
#include "common/base/config.h"
#include "common/ledger/audit_chain.h"

enum { MEMORY_MAX = 1 << 16 };

typedef struct audit_options {
    const char *data_dir, *expect;
} audit_options;

static const char *moment(int64_t us, char text[32]) {
    time_t seconds = (time_t)(us / 1000000);
    struct tm t;
    gmtime_r(&seconds, &t);
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &t);
    return text;
}

static void show(const audit_report *r) {
    char first[32], last[32], head[AUDIT_HEAD_BYTES + 1];
    if (r->rows > 0) {
        audit_head_write(&r->last, head);
        printf("%" PRId64 " rows hold (with the genesis), %s to %s\nhead %" PRId64 ":%.*s\n",
               r->rows, moment(r->first_us, first), moment(r->last_us, last), r->last.seq,
               AUDIT_HASH_DIGITS, strchr(head, ' ') + 1);
    }
    if (r->broken)
        printf("BROKEN at row %" PRId64 ": %s\n", r->broken_seq, r->why);
    else
        printf("the chain is whole\n");
}

static status run(const audit_options *o, bool *whole) {
    audit_head expect;
    audit_report r;
    if (o->expect && !audit_head_parse(o->expect, &expect))
        return status_error(STATUS_INVALID_ARGUMENT, "--expect: not SEQ:HASH as verify prints it");
    TRY(audit_verify(o->data_dir, o->expect ? &expect : NULL, &r));
    show(&r);
    *whole = !r.broken;
    return status_ok();
}

static status parse(audit_options *o, int argc, char **argv, arena *memory, config_action *action) {
    const config_option options[] = {
        {"data-dir", CONFIG_STRING, &o->data_dir, 0, 0, NULL, "DIR", "of the coordinator"},
        {"expect", CONFIG_STRING, &o->expect, 0, 0, NULL, "SEQ:HASH",
         "a head that was printed earlier and must still be in the chain"},
    };
    config_program program = {
        .name = "octant audit",
        .synopsis = "verify --data-dir DIR [options]",
        .about = "Walks the hash chain of everything that was sent to upstreams and names the "
                 "first row that was changed,\nremoved or moved. Rows cut off the end show by "
                 "audit.head beside the ledger; keep the printed head\nsomewhere else and give it "
                 "back with --expect to be sure of both.",
        .options = options,
        .option_count = sizeof options / sizeof *options};
    const char *words[argc];
    int word_count = 0;
    TRY(config_parse(&program, argc, argv, memory, words, &word_count, action));
    if (*action != CONFIG_RUN) return status_ok();
    if (word_count != 1 || strcmp(words[0], "verify") != 0)
        return status_error(STATUS_INVALID_ARGUMENT, "there is one word: octant audit verify");
    if (!o->data_dir)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--data-dir is missing: the directory that the coordinator was given");
    return status_ok();
}

int command_audit(int argc, char **argv) {
    audit_options o = {0};
    config_action action = CONFIG_RUN;
    arena *memory = arena_create(MEMORY_MAX);
    status s = memory ? parse(&o, argc, argv, memory, &action)
                      : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory");
    int code = status_is_ok(&s) ? 1 : 2;
    bool whole = true;
    if (status_is_ok(&s) && action == CONFIG_RUN) s = run(&o, &whole);
    if (status_is_ok(&s))
        code = whole ? 0 : 1;
    else
        fprintf(stderr, "octant audit: %s\n", s.message);
    arena_destroy(memory);
    return code;
}
