// ledger_writer: takes all that waits, writes it in one transaction, tells who waited for it. While
// a commit is under way the next batch gathers, so that the busier it is the fewer fsyncs a row
// costs. Rows that nobody waits for gather for WRITE_EVERY_NS at least.
//
// A transaction that fails is undone as a whole: those who waited hear so at once, rows stay and
// are tried again. So a full disk costs calls to the outside immediately, and usage rows only when
// the queue is full as well.
#include "coordinator/ledger/ledger_writer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum { BATCH_MAX = 512 };
#define WRITE_EVERY_NS (20 * CLOCK_MS)
#define RETRY_AFTER_NS CLOCK_SECOND
#define SAY_EVERY_NS (10 * CLOCK_SECOND)

// Rows of one leave, with their texts in the same block.
typedef struct ticket {
    struct ticket *next;
    enum { TICKET_QUEUED, TICKET_TAKEN, TICKET_DONE } state;
    bool abandoned; // nobody waits: who took it frees it
    status why;
    int count;
    audit_row rows[];
} ticket;

struct ledger_writer {
    sqlite3 *db;
    audit_log *audit;
    ledger_statements statements;
    pthread_t thread;

    pthread_mutex_t lock; // of everything below
    pthread_cond_t work, done;
    ledger_row *rows; // ring
    int room, head, count;
    ticket *tickets, **tickets_end;
    writer_counts counts;
    uint64_t gap; // lost rows that no row of table gap tells of yet
    int64_t said_ns;
    bool stop;
    int64_t stop_by_ns;

    // The thread's own.
    ledger_row *batch;
    int batch_count;
    int64_t next_ns; // rows alone are not written earlier
    bool full_sync;
};

// ---- queueing: any thread ----

// Says a loss once in a while, not once a row.
static bool may_say(ledger_writer *w) {
    int64_t now = clock_now_ns();
    if (w->said_ns && now < w->said_ns + SAY_EVERY_NS) return false;
    w->said_ns = now;
    return true;
}

bool ledger_writer_push(ledger_writer *w, const ledger_row *row) {
    pthread_mutex_lock(&w->lock);
    bool fits = w->count < w->room && !w->stop;
    bool say = false;
    if (fits) {
        w->rows[(w->head + w->count++) % w->room] = *row;
        if (w->count == 1 || w->count == BATCH_MAX) pthread_cond_signal(&w->work);
    } else {
        w->counts.lost++;
        w->gap++;
        say = may_say(w);
    }
    uint64_t lost = w->counts.lost;
    pthread_mutex_unlock(&w->lock);
    if (say)
        log_error("ledger", "the queue is full (the disk is slow or broken): %llu rows lost so far",
                  (unsigned long long)lost);
    return fits;
}

static char *keep(char **at, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

static size_t texts_size(const audit_row *r) {
    return strlen(r->request_id) + strlen(r->key) + strlen(r->privacy) + strlen(r->rule) +
           strlen(r->upstream) + strlen(r->host) + 6;
}

static ticket *make_ticket(const audit_row *rows, int count) {
    size_t fixed = sizeof(ticket) + (size_t)count * sizeof *rows, texts = 0;
    for (int i = 0; i < count; i++) texts += texts_size(&rows[i]);
    ticket *t = malloc(fixed + texts);
    if (!t) return NULL;
    *t = (ticket){.count = count};
    char *at = (char *)t + fixed;
    for (int i = 0; i < count; i++) {
        audit_row *r = &t->rows[i];
        *r = rows[i];
        r->request_id = keep(&at, r->request_id);
        r->key = keep(&at, r->key);
        r->privacy = keep(&at, r->privacy);
        r->rule = keep(&at, r->rule);
        r->upstream = keep(&at, r->upstream);
        r->host = keep(&at, r->host);
    }
    return t;
}

static void unlink_ticket(ledger_writer *w, ticket *t) {
    ticket **p = &w->tickets;
    while (*p != t) p = &(*p)->next;
    *p = t->next;
    if (!t->next) w->tickets_end = p;
}

static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns) {
    struct timespec t = {.tv_sec = (time_t)(deadline_ns / CLOCK_SECOND),
                         .tv_nsec = (long)(deadline_ns % CLOCK_SECOND)};
    return pthread_cond_timedwait(cond, lock, &t) == 0;
}

status ledger_writer_leave(ledger_writer *w, const audit_row *rows, int count,
                           int64_t deadline_ns) {
    ticket *t = make_ticket(rows, count);
    if (!t) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for an audit row");
    pthread_mutex_lock(&w->lock);
    *w->tickets_end = t;
    w->tickets_end = &t->next;
    pthread_cond_signal(&w->work);
    while (t->state != TICKET_DONE && wait_until(&w->done, &w->lock, deadline_ns)) {
    }
    status s = t->state == TICKET_DONE ? t->why
                                       : status_error(STATUS_DEADLINE_EXCEEDED,
                                                      "the audit row was not on disk in time");
    if (t->state == TICKET_QUEUED) unlink_ticket(w, t);
    bool mine = t->state != TICKET_TAKEN;
    t->abandoned = !mine;
    pthread_mutex_unlock(&w->lock);
    if (mine) free(t);
    return s;
}

writer_counts ledger_writer_look(ledger_writer *w) {
    pthread_mutex_lock(&w->lock);
    writer_counts counts = w->counts;
    counts.queued = w->count;
    pthread_mutex_unlock(&w->lock);
    return counts;
}

// ---- writing: the thread ----

static bool rows_wait(const ledger_writer *w) {
    return w->batch_count + w->count > 0 || w->gap > 0;
}

// Blocks until there is something to write or the end has come; false: the end.
static bool wait_for_work(ledger_writer *w) {
    for (;;) {
        int64_t now = clock_now_ns();
        if (w->tickets) return true;
        bool due = now >= w->next_ns;
        // A whole batch need not gather any longer, unless it waits for a disk.
        due |= w->batch_count == 0 && w->count >= BATCH_MAX;
        if (w->stop && (!rows_wait(w) || now >= w->stop_by_ns)) return false;
        if (rows_wait(w) && due) return true;
        int64_t until = rows_wait(w) ? w->next_ns : now + SAY_EVERY_NS;
        if (w->stop && until > w->stop_by_ns) until = w->stop_by_ns;
        wait_until(&w->work, &w->lock, until);
    }
}

static ticket *take(ledger_writer *w, uint64_t *gap) {
    ticket *tickets = w->tickets;
    for (ticket *t = tickets; t; t = t->next) t->state = TICKET_TAKEN;
    w->tickets = NULL;
    w->tickets_end = &w->tickets;
    while (w->count > 0 && w->batch_count < BATCH_MAX) {
        w->batch[w->batch_count++] = w->rows[w->head];
        w->head = (w->head + 1) % w->room;
        w->count--;
    }
    *gap = w->gap;
    return tickets;
}

static status write_gap(ledger_writer *w, uint64_t gap) {
    if (gap == 0) return status_ok();
    char sql[128];
    snprintf(sql, sizeof sql, "INSERT INTO gap (at_us, rows_lost) VALUES (%lld, %llu)",
             (long long)clock_unix_us(), (unsigned long long)gap);
    return database_run(w->db, sql);
}

static status write_rows(ledger_writer *w, ticket *tickets, uint64_t gap) {
    for (ticket *t = tickets; t; t = t->next)
        for (int i = 0; i < t->count; i++) TRY(audit_log_append(w->audit, &t->rows[i]));
    for (int i = 0; i < w->batch_count; i++)
        TRY(ledger_row_insert(w->db, &w->statements, &w->batch[i]));
    TRY(write_gap(w, gap));
    return database_run(w->db, "COMMIT");
}

// FULL: the commit is on the disk when it returns. It takes effect between transactions only.
static status set_sync(ledger_writer *w, bool full) {
    if (w->full_sync == full) return status_ok();
    TRY(database_run(w->db, full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL"));
    w->full_sync = full;
    return status_ok();
}

static status write_all(ledger_writer *w, ticket *tickets, uint64_t gap) {
    TRY(set_sync(w, tickets != NULL));
    TRY(database_run(w->db, "BEGIN IMMEDIATE"));
    status s = write_rows(w, tickets, gap);
    if (!status_is_ok(&s)) {
        // SQLite may have rolled back by itself; then this says so, and that is all right.
        status again = database_run(w->db, "ROLLBACK");
        (void)again;
        audit_log_rolled_back(w->audit);
        return s;
    }
    status head = audit_log_committed(w->audit);
    if (!status_is_ok(&head)) log_error("ledger", "%s", head.message);
    return s;
}

static void tell(ledger_writer *w, ticket *tickets, const status *s) {
    while (tickets) {
        ticket *t = tickets;
        tickets = t->next;
        if (status_is_ok(s)) w->counts.leaves += (uint64_t)t->count;
        t->why = *s;
        t->state = TICKET_DONE;
        if (t->abandoned) free(t);
    }
    pthread_cond_broadcast(&w->done);
}

static void account(ledger_writer *w, const status *s, uint64_t gap) {
    bool good = status_is_ok(s);
    w->next_ns = clock_now_ns() + (good ? WRITE_EVERY_NS : RETRY_AFTER_NS);
    if (!good) {
        w->counts.failures++;
        return;
    }
    for (int i = 0; i < w->batch_count; i++)
        *(w->batch[i].kind == LEDGER_USAGE ? &w->counts.usage : &w->counts.calls) += 1;
    w->counts.commits++;
    w->gap -= gap;
    w->batch_count = 0;
}

static void *run(void *argument) {
    ledger_writer *w = argument;
    pthread_mutex_lock(&w->lock);
    while (wait_for_work(w)) {
        uint64_t gap;
        ticket *tickets = take(w, &gap);
        pthread_mutex_unlock(&w->lock);
        status s = write_all(w, tickets, gap);
        if (!status_is_ok(&s)) log_error("ledger", "cannot write: %s", s.message);
        pthread_mutex_lock(&w->lock);
        account(w, &s, gap);
        tell(w, tickets, &s);
    }
    int lost = w->count + w->batch_count;
    pthread_mutex_unlock(&w->lock);
    if (lost) log_error("ledger", "%d rows could not be written and are lost", lost);
    return NULL;
}

// ---- its life ----

static void destroy(ledger_writer *w) {
    ledger_statements_close(&w->statements);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->done);
    pthread_mutex_destroy(&w->lock);
    free(w->rows);
    free(w->batch);
    free(w);
}

static status prepare(ledger_writer *w) {
    if (!w->rows || !w->batch)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the ledger's queue");
    TRY(ledger_statements_open(w->db, &w->statements));
    if (pthread_create(&w->thread, NULL, run, w) == 0) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start the ledger's thread");
}

status ledger_writer_start(sqlite3 *db, audit_log *audit, int queue, ledger_writer **out) {
    ledger_writer *w = calloc(1, sizeof *w);
    if (!w) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the ledger");
    w->db = db;
    w->audit = audit;
    w->room = queue;
    w->tickets_end = &w->tickets;
    w->full_sync = true; // as ledger_open left it
    w->rows = calloc((size_t)queue, sizeof *w->rows);
    w->batch = calloc(BATCH_MAX, sizeof *w->batch);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, &monotonic);
    pthread_cond_init(&w->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    status s = prepare(w);
    if (status_is_ok(&s))
        *out = w;
    else
        destroy(w);
    return s;
}

void ledger_writer_stop(ledger_writer *w, int64_t deadline_ns) {
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    w->stop_by_ns = deadline_ns;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    destroy(w);
}
