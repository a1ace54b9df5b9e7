// loader: see loader.h. One lane: reader threads take the next piece and a free slot, read, and put
// the slot into `ready`; the calling thread submits it to the stage and, once it was copied, puts
// it back into `free`. Only the calling thread speaks to the device.
#include "worker/loader.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/ring.h"
#include "kernels/stage.h"
#include "worker/load_file.h"
#include "worker/load_meter.h"

enum {
    WAIT_NS = 50 * 1000 * 1000,
    COPY_WAIT_NS = 100 * 1000, // while copies are under way: that long is a slot's copy
    JOIN_S = 5,
};

// A piece on its way back from a reader.
typedef struct arrival {
    int piece, slot;
    size_t at; // where its bytes begin in the slot
    status error;
} arrival;

typedef struct loader {
    loader_options o;
    load_file *files;
    load_item *items;
    load_piece *pieces;
    int piece_count, slots, threads;
    kernels_stage *stage; // NULL: nothing is copied, pages are touched only
    ring *free, *ready;   // of int; of arrival
    pthread_t thread[LOADER_THREADS];
    atomic_int next;
    atomic_bool stop;
    load_meter meter;
    int flying[KERNELS_STAGE_SLOTS_MAX]; // slots that are being copied, oldest first
    int flying_count;
    int64_t bytes, total;
} loader;

// ---- readers

static status check_sum(const loader *l, const load_piece *p, const char *bytes) {
    if (!p->plain || loader_checksum(bytes, p->row_bytes) == p->checksum) return status_ok();
    return status_error(STATUS_DATA_LOSS, "%s is damaged: the %zu bytes from %lld have another sum",
                        l->files[p->file].map.path, p->row_bytes, (long long)p->offset);
}

static status read_piece(loader *l, const load_piece *p, arrival *a) {
    load_file *f = &l->files[p->file];
    if (a->slot < 0) return load_file_touch(f, p);
    char *memory = kernels_stage_memory(l->stage, a->slot);
    TRY(load_file_read(f, p, memory, &a->at));
    return check_sum(l, p, memory + a->at);
}

static void *read_pieces(void *context) {
    loader *l = context;
    while (!atomic_load(&l->stop)) {
        arrival a = {.slot = -1, .error = status_ok()};
        a.piece = atomic_fetch_add(&l->next, 1);
        if (a.piece >= l->piece_count) break;
        const load_piece *p = &l->pieces[a.piece];
        if (l->items[p->item].device && !ring_pop(l->free, &a.slot, l->o.deadline_ns)) break;
        load_meter_begin(&l->meter);
        a.error = read_piece(l, p, &a);
        load_meter_end(&l->meter, (int64_t)load_piece_bytes(p));
        if (!status_is_ok(&a.error)) {
            char name[80];
            a.error = status_context(a.error, "%s",
                                     load_item_name(&l->items[p->item], name, sizeof name));
        }
        if (!ring_push(l->ready, &a, l->o.deadline_ns)) break;
    }
    return NULL;
}

// ---- the calling thread

static status submit(loader *l, const arrival *a) {
    const load_piece *p = &l->pieces[a->piece];
    const load_item *item = &l->items[p->item];
    l->bytes += (int64_t)load_piece_bytes(p);
    if (l->o.progress) progress_load(l->o.progress, (double)l->bytes / (double)l->total);
    if (a->slot < 0) return status_ok();
    l->flying[l->flying_count++] = a->slot;
    if (p->plain)
        return kernels_stage_copy(l->stage, a->slot, a->at, (char *)item->device + p->at,
                                  p->row_bytes);
    return kernels_stage_rows(l->stage, a->slot, a->at, &item->view, p->first_row, p->rows,
                              item->device);
}

// Gives the readers back what was copied. Copies end in their order.
static status recycle(loader *l) {
    int done = 0;
    for (; done < l->flying_count; done++) {
        bool over = false;
        TRY(kernels_stage_poll(l->stage, l->flying[done], &over));
        if (!over) break;
        bool room = ring_try_push(l->free, &l->flying[done]);
        assert(room); // it holds all slots
    }
    l->flying_count -= done;
    memmove(l->flying, l->flying + done, (size_t)l->flying_count * sizeof l->flying[0]);
    return status_ok();
}

static status late(const loader *l, int64_t now, int64_t moved) {
    if (now < l->o.deadline_ns && now - moved < LOADER_STALL_S * CLOCK_SECOND) return status_ok();
    return status_error(STATUS_DEADLINE_EXCEEDED,
                        "%s: nothing was read for %.0f s, after %lld of %lld MiB: look at the disk "
                        "or the network that it is on",
                        l->files[0].map.path, (double)(now - moved) / (double)CLOCK_SECOND,
                        (long long)(l->bytes >> 20), (long long)(l->total >> 20));
}

static status take_pieces(loader *l) {
    int64_t moved = clock_now_ns();
    for (int taken = 0; taken < l->piece_count;) {
        arrival a;
        int64_t now = clock_now_ns();
        if (ring_pop(l->ready, &a, now + (l->flying_count > 0 ? COPY_WAIT_NS : WAIT_NS))) {
            if (!status_is_ok(&a.error)) return a.error;
            TRY(submit(l, &a));
            taken++;
            moved = now;
        }
        if (l->stage) TRY(recycle(l));
        TRY(late(l, now, moved));
    }
    if (!l->stage) return status_ok();
    TRY(kernels_stage_sync(l->stage, l->o.deadline_ns));
    return recycle(l);
}

// ---- opening and closing

static size_t largest(const loader *l, size_t group_rows) {
    size_t most = 0;
    for (int i = 0; i < l->o.item_count; i++) {
        const kernels_weight *w = &l->o.items[i].view;
        size_t row = dtype_row_bytes(w->type, (size_t)w->cols);
        if (row * group_rows > most) most = row * group_rows;
    }
    return most;
}

static status take_list(loader *l) {
    const loader_options *o = &l->o;
    l->items = malloc(((size_t)o->item_count + 1) * sizeof *l->items);
    if (!l->items)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of weights");
    memcpy(l->items, o->items, (size_t)o->item_count * sizeof *l->items);
    if (!o->pieces) {
        size_t group = largest(l, KERNELS_STAGE_ROWS);
        size_t bytes = group > LOADER_PIECE_BYTES ? group : LOADER_PIECE_BYTES;
        return load_pieces_cut(o->files, o->file_count, o->items, o->item_count, bytes, &l->pieces,
                               &l->piece_count);
    }
    l->pieces = malloc(((size_t)o->piece_count + 1) * sizeof *l->pieces);
    if (!l->pieces)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of %d pieces",
                            o->piece_count);
    memcpy(l->pieces, o->pieces, (size_t)o->piece_count * sizeof *l->pieces);
    l->piece_count = o->piece_count;
    return status_ok();
}

static status open_files(loader *l) {
    l->files = calloc((size_t)l->o.file_count + 1, sizeof *l->files);
    if (!l->files) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of files");
    for (int i = 0; i < l->o.file_count; i++)
        TRY(load_file_open(&l->o.files[i], l->o.direct, &l->files[i]));
    return status_ok();
}

// Bytes of a slot's use; 0 where the piece needs none.
static size_t slot_bytes(const loader *l, const load_piece *p) {
    const load_item *item = &l->items[p->item];
    if (!item->device) return 0;
    return p->plain ? p->row_bytes : kernels_stage_room(&item->view, p->rows);
}

static status open_stage(loader *l) {
    size_t most = 0;
    for (int i = 0; i < l->piece_count; i++) {
        size_t bytes = slot_bytes(l, &l->pieces[i]);
        most = bytes > most ? bytes : most;
        l->total += (int64_t)load_piece_bytes(&l->pieces[i]);
    }
    bool needed = most > 0;
    most = (most + LOAD_FILE_SLACK + LOAD_FILE_BLOCK - 1) / LOAD_FILE_BLOCK * LOAD_FILE_BLOCK;
    l->slots = l->piece_count < LOADER_SLOTS ? l->piece_count : LOADER_SLOTS;
    l->ready = ring_create(sizeof(arrival), LOADER_SLOTS + LOADER_THREADS);
    l->free = ring_create(sizeof(int), LOADER_SLOTS);
    if (!l->ready || !l->free)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the loader's queues");
    for (int i = 0; i < l->slots; i++) ring_try_push(l->free, &i);
    return needed ? kernels_stage_open(l->o.kernels, l->slots, most, &l->stage) : status_ok();
}

static status start_readers(loader *l) {
    int wanted = l->piece_count < LOADER_THREADS ? l->piece_count : LOADER_THREADS;
    for (; l->threads < wanted; l->threads++)
        if (pthread_create(&l->thread[l->threads], NULL, read_pieces, l) != 0) break;
    if (l->threads > 0) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start a thread to read the weights");
}

// True when all readers ended. One that a broken disk or server holds in a read never does.
static bool stop_readers(loader *l) {
    atomic_store(&l->stop, true);
    if (l->free) ring_close(l->free);
    if (l->ready) ring_close(l->ready);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_S;
    bool all = true;
    for (int i = 0; i < l->threads; i++)
        all &= pthread_timedjoin_np(l->thread[i], NULL, &until) == 0;
    return all;
}

static void close_all(loader *l) {
    kernels_stage_close(l->stage);
    for (int i = 0; l->files && i < l->o.file_count; i++) load_file_close(&l->files[i]);
    ring_destroy(l->free);
    ring_destroy(l->ready);
    load_meter_close(&l->meter);
    free(l->files);
    free(l->items);
    free(l->pieces);
    free(l);
}

static void report(loader *l, int64_t begin, load_report *out) {
    *out = (load_report){
        .bytes = l->bytes,
        .seconds = (double)(clock_now_ns() - begin) / (double)CLOCK_SECOND,
        .read_seconds = load_meter_seconds(&l->meter),
        .copied_bytes = l->stage ? l->bytes : 0,
        .copy_seconds = l->stage ? kernels_stage_copy_seconds(l->stage) : 0,
    };
    for (int i = 0; i < l->o.file_count; i++)
        out->direct_bytes += atomic_load(&l->files[i].direct_bytes);
}

static status run(loader *l) {
    TRY(open_files(l));
    TRY(take_list(l));
    if (l->piece_count == 0) return status_ok();
    TRY(open_stage(l));
    TRY(start_readers(l));
    return take_pieces(l);
}

status loader_run(const loader_options *options, load_report *out) {
    *out = (load_report){0};
    loader *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a loader");
    l->o = *options;
    load_meter_open(&l->meter);
    int64_t begin = clock_now_ns();
    status s = run(l);
    if (!stop_readers(l)) {
        // Its buffers must stay while something may write to them; this rank is about to end.
        log_warn("loader", "a thread hangs in a read; its buffers are left to it");
        return s;
    }
    if (status_is_ok(&s)) report(l, begin, out);
    close_all(l);
    return s;
}

// ---- words and sums

const char *load_report_text(const load_report *r, char *text, size_t size) {
    double gib = (double)r->bytes / (double)(1 << 30);
    double share = r->bytes > 0 ? 100.0 * (double)r->direct_bytes / (double)r->bytes : 0;
    int used = snprintf(text, size,
                        "%.1f MiB in %.3f s, %.2f GiB/s; reading alone %.2f GiB/s (%.0f %% by "
                        "direct I/O)",
                        1024 * gib, r->seconds, gib / (r->seconds > 0 ? r->seconds : 1e-9),
                        gib / (r->read_seconds > 0 ? r->read_seconds : 1e-9), share);
    if (r->copy_seconds > 0 && used > 0 && (size_t)used < size)
        used += snprintf(text + used, size - (size_t)used, ", copying alone %.2f GiB/s",
                         (double)r->copied_bytes / (double)(1 << 30) / r->copy_seconds);
    if (r->made > 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used,
                 "; %d matrices made from packed integers or cut blocks", r->made);
    return text;
}

uint64_t loader_checksum(const void *bytes, size_t size) {
    const uint64_t prime = UINT64_C(0x100000001b3);
    uint64_t sum[4], word;
    for (size_t i = 0; i < 4; i++) sum[i] = UINT64_C(0xcbf29ce484222325) + i;
    size_t at = 0;
    for (; at + 32 <= size; at += 32) {
        for (size_t i = 0; i < 4; i++) {
            memcpy(&word, (const char *)bytes + at + 8 * i, 8);
            sum[i] = (sum[i] ^ word) * prime;
        }
    }
    for (; at < size; at++) sum[at % 4] = (sum[at % 4] ^ ((const uint8_t *)bytes)[at]) * prime;
    uint64_t all = size;
    for (size_t i = 0; i < 4; i++) all = (all ^ (sum[i] ^ sum[i] >> 32)) * prime;
    return all ^ all >> 29;
}
