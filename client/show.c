#include "client/show.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

enum { BAR_WIDTH = 30 };

const char *show_bytes(int64_t bytes, char text[24]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    snprintf(text, 24, value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

show_loading show_loading_start(void) {
    return (show_loading){.terminal = isatty(STDERR_FILENO) == 1, .begin_ns = clock_now_ns()};
}

static bool is_ready(const octant_group *g) {
    return g && strcmp(g->state, "READY") == 0;
}

// The slowest rank decides.
static double progress(const octant_group *g) {
    double least = g ? 1 : 0;
    for (int i = 0; g && i < g->rank_count; i++)
        if (g->ranks[i].load_fraction < least) least = g->ranks[i].load_fraction;
    return is_ready(g) ? 1 : least;
}

static void describe_phase(const char *label, const octant_group *g, char phase[64]) {
    char ranks[32] = "";
    if (g)
        snprintf(ranks, sizeof ranks, ", %d rank%s", g->rank_count, g->rank_count == 1 ? "" : "s");
    const char *doing = !g ? "starting ranks" : is_ready(g) ? "ready" : "loading";
    snprintf(phase, 64, "%s%s%s%s", label, *label ? ": " : "", doing, ranks);
}

static void draw(const show_loading *s, const char *phase, double done) {
    char bar[BAR_WIDTH + 1];
    int filled = (int)(done * BAR_WIDTH);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K    %-26s [%s] %3.0f %%  %.1f s", phase, bar, 100 * done,
            (double)(clock_now_ns() - s->begin_ns) / 1e9);
}

// To the first of the lines that were drawn.
static void rewind_lines(show_loading *s) {
    if (s->lines > 1) fprintf(stderr, "\033[%dA", s->lines - 1);
    s->lines = 0;
}

void show_loading_update(show_loading *s, const char *const labels[],
                         const octant_group *const groups[], int count) {
    rewind_lines(s);
    for (int i = 0; i < count; i++) {
        char phase[64];
        describe_phase(count > 1 ? labels[i] : "", groups[i], phase);
        if (s->terminal) {
            if (i) fputc('\n', stderr);
            draw(s, phase, progress(groups[i]));
            s->lines = i + 1;
        }
        // A group that was lost on its way is not one that begins.
        bool fresh = groups[i] ? !is_ready(groups[i]) : !s->last_phase[i][0];
        if (!fresh || strcmp(phase, s->last_phase[i]) == 0) continue;
        if (!s->terminal) fprintf(stderr, "    %s\n", phase);
        memcpy(s->last_phase[i], phase, sizeof phase);
    }
}

void show_loading_end(show_loading *s, const char *const labels[],
                      const octant_group *const groups[], int count) {
    rewind_lines(s);
    if (s->terminal) fprintf(stderr, "\r\033[J");
    for (int i = 0; i < count; i++) {
        const octant_group *g = groups[i];
        if (!g) continue;
        fprintf(stderr, "    %s%sready: %s on %d rank%s (%s), %d KV blocks, %.1f s\n",
                count > 1 ? labels[i] : "", count > 1 ? " " : "", g->model, g->rank_count,
                g->rank_count == 1 ? "" : "s", g->backend, g->kv_blocks_total,
                (double)(clock_now_ns() - s->begin_ns) / 1e9);
    }
}

// What a card tells beside its temperature; faults and slowness are words, so that they are seen.
static void show_device(const octant_device *d, buf *out) {
    char used[24], total[24];
    if (!d->known) return;
    if (d->memory_used >= 0)
        buf_printf(out, "  card %s of %s", show_bytes(d->memory_used, used),
                   show_bytes(d->memory_total, total));
    if (d->power >= 0) buf_printf(out, "  %.0f W", (double)d->power);
    if (d->utilization >= 0) buf_printf(out, "  %.0f%% busy", 100 * (double)d->utilization);
    if (d->slow_heat) buf_append_string(out, "  slowed by heat");
    if (d->slow_power) buf_append_string(out, "  slowed by its power limit");
    if (d->slow_hardware) buf_append_string(out, "  slowed by its hardware");
    if (d->ecc_errors > 0) buf_printf(out, "  %" PRId64 " memory errors", d->ecc_errors);
    if (d->xid > 0) buf_printf(out, "  XID %d", d->xid);
}

static void show_group(const octant_group *g, buf *out) {
    buf_printf(out, "\ngroup %s  %s  %s  %s", g->id, g->state, g->model, g->backend);
    if (g->loss[0]) {
        buf_printf(out, "\n  %s, %.0f s ago: %s\n", g->loss, (double)g->lost_ms / 1e3, g->reason);
        return;
    }
    if (g->reason[0]) buf_printf(out, "  (%s)", g->reason);
    double used = g->kv_blocks_total ? 100.0 * g->kv_blocks_used / g->kv_blocks_total : 0;
    buf_printf(out, "\n  running %d, waiting %d, steps %" PRIu64 ", KV blocks %d of %d (%.0f %%)\n",
               g->running, g->waiting, g->steps, g->kv_blocks_used, g->kv_blocks_total, used);
    buf_printf(out, "  %4s  %-20s %8s  %-10s %9s %6s %10s %10s %12s\n", "rank", "host", "pid",
               "phase", "since", "loaded", "step", "heartbeat", "memory");
    for (int i = 0; i < g->rank_count; i++) {
        const octant_rank *r = &g->ranks[i];
        char memory[24];
        buf_printf(out,
                   "  %4d  %-20.20s %8d  %-10s %6" PRId64 " ms %5.0f%% %10" PRIu64 " %7" PRId64
                   " ms %12s",
                   r->rank, r->host, r->pid, r->phase, r->phase_ms, 100 * r->load_fraction, r->step,
                   r->heartbeat_age_ms, show_bytes(r->memory_bytes, memory));
        if (r->temperature > 0) buf_printf(out, "  %.0f C", (double)r->temperature);
        if (g->stages > 1) buf_printf(out, "  stage %d, its rank %d", r->stage, r->tp_rank);
        show_device(&r->device, out);
        buf_append_char(out, '\n');
    }
}

void show_status(const octant_server_info *info, buf *out) {
    buf_printf(out,
               "octant %s, up %.0f s: %d running, %d queued; %" PRIu64 " requests, %" PRIu64
               " tokens in, %" PRIu64 " out since start\n",
               info->version, info->uptime_seconds, info->running, info->queued,
               info->requests_total, info->prompt_tokens_total, info->completion_tokens_total);
    if (info->group_count == 0) buf_append_string(out, "no worker group has registered yet\n");
    for (int i = 0; i < info->group_count; i++) show_group(&info->groups[i], out);
}
