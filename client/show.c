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

// The group that is on its way: the newest that is not lost.
static const octant_group *newest(const octant_server_info *info) {
    for (int i = info ? info->group_count - 1 : -1; i >= 0; i--)
        if (strcmp(info->groups[i].state, "LOST") != 0) return &info->groups[i];
    return NULL;
}

// The slowest rank decides.
static double progress(const octant_group *g) {
    double least = 1;
    for (int i = 0; i < g->rank_count; i++)
        if (g->ranks[i].load_fraction < least) least = g->ranks[i].load_fraction;
    return strcmp(g->state, "READY") == 0 ? 1 : least;
}

void show_loading_update(show_loading *s, const octant_server_info *info) {
    const octant_group *g = newest(info);
    char phase[64];
    double done = g ? progress(g) : 0;
    if (!g)
        snprintf(phase, sizeof phase, "starting ranks");
    else
        snprintf(phase, sizeof phase, "loading, %d rank%s", g->rank_count,
                 g->rank_count == 1 ? "" : "s");
    if (s->terminal) {
        char bar[BAR_WIDTH + 1];
        int filled = (int)(done * BAR_WIDTH);
        memset(bar, '#', (size_t)filled);
        memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
        bar[BAR_WIDTH] = 0;
        fprintf(stderr, "\r\033[K    %-20s [%s] %3.0f %%  %.1f s", phase, bar, 100 * done,
                (double)(clock_now_ns() - s->begin_ns) / 1e9);
    } else if (strcmp(phase, s->last_phase) != 0) {
        fprintf(stderr, "    %s\n", phase);
    }
    memcpy(s->last_phase, phase, sizeof phase);
}

void show_loading_end(show_loading *s, const octant_server_info *info) {
    if (s->terminal) fprintf(stderr, "\r\033[K");
    const octant_group *g = newest(info);
    if (!g) return;
    fprintf(stderr, "    ready: %s on %d rank%s (%s), %d KV blocks, %.1f s\n", g->model,
            g->rank_count, g->rank_count == 1 ? "" : "s", g->backend, g->kv_blocks_total,
            (double)(clock_now_ns() - s->begin_ns) / 1e9);
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
