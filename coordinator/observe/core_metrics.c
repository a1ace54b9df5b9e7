#include "coordinator/observe/core_metrics.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/observe/device_metrics.h"
#include "coordinator/observe/upstream_view.h"

static void append_gauge(buf *out, const char *name, const char *help, int64_t value) {
    metrics_append_head(out, name, "gauge", help);
    buf_printf(out, "%s %" PRId64 "\n", name, value);
}

static void append_counter(buf *out, const char *name, const char *help, uint64_t value) {
    metrics_append_head(out, name, "counter", help);
    buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static void append_labels(buf *out, const char *name, const core_group_view *g) {
    buf_printf(out, "%s{group=", name);
    metrics_append_label(out, g->id);
    buf_append_string(out, ",model=");
    metrics_append_label(out, g->model);
}

typedef struct group_gauge {
    const char *name, *type, *help;
    size_t offset; // of an int in core_group_view
} group_gauge;

static const group_gauge GROUP_GAUGES[] = {
    {"octant_kv_blocks", "gauge", "KV blocks of the group.",
     offsetof(core_group_view, kv_blocks_total)},
    {"octant_kv_blocks_used", "gauge", "KV blocks that live sequences hold.",
     offsetof(core_group_view, kv_blocks_used)},
    {"octant_kv_blocks_cached", "gauge", "KV blocks kept for their prefix, free when needed.",
     offsetof(core_group_view, kv_blocks_cached)},
    {"octant_group_running", "gauge", "Sequences in the group's slots.",
     offsetof(core_group_view, running)},
    {"octant_group_slots", "gauge", "Most sequences at once.", offsetof(core_group_view, max_seqs)},
    {"octant_group_ranks", "gauge", "Ranks of the group.", offsetof(core_group_view, ranks_count)},
};

static void append_group_states(const core_view *view, buf *out) {
    metrics_append_head(out, "octant_group_state", "gauge",
                        "1 for the state that the group is in.");
    for (int i = 0; i < view->group_count; i++)
        for (int state = GROUP_STARTING; state <= GROUP_LOST; state++) {
            append_labels(out, "octant_group_state", &view->groups[i]);
            buf_printf(out, ",state=\"%s\"} %d\n", group_state_name((group_state)state),
                       (int)view->groups[i].state == state);
        }
}

static void append_ranks(const core_view *view, buf *out) {
    metrics_append_head(out, "octant_rank_heartbeat_age_seconds", "gauge",
                        "Since the rank's last heartbeat.");
    for (int i = 0; i < view->group_count; i++)
        for (int r = 0; r < view->groups[i].ranks_count; r++) {
            const core_rank_view *rank = &view->groups[i].ranks[r];
            if (rank->heartbeat_age_ns < 0) continue;
            append_labels(out, "octant_rank_heartbeat_age_seconds", &view->groups[i]);
            buf_printf(out, ",rank=\"%d\"} %.3f\n", rank->rank,
                       (double)rank->heartbeat_age_ns / 1e9);
        }
    metrics_append_head(out, "octant_rank_memory_bytes", "gauge", "Resident set of the rank.");
    for (int i = 0; i < view->group_count; i++)
        for (int r = 0; r < view->groups[i].ranks_count; r++) {
            append_labels(out, "octant_rank_memory_bytes", &view->groups[i]);
            buf_printf(out, ",rank=\"%d\"} %" PRId64 "\n", view->groups[i].ranks[r].rank,
                       view->groups[i].ranks[r].memory_bytes);
        }
}

void core_metrics_append(const core_view *view, buf *out) {
    append_gauge(out, "octant_requests_queued", "Requests that wait for their first slot.",
                 view->queued);
    append_gauge(out, "octant_sequences_waiting",
                 "Sequences that wait for a slot, with those put back.", view->waiting);
    append_gauge(out, "octant_sequences_running", "Sequences in slots.", view->running);
    const core_counters *c = &view->counters;
    append_counter(out, "octant_steps_total", "Steps done.", c->steps);
    append_counter(out, "octant_step_rows_total", "Token rows of those steps.", c->step_rows);
    append_counter(out, "octant_preemptions_total", "Sequences put back because KV blocks ran out.",
                   c->preemptions);
    append_counter(out, "octant_replays_total", "Sequences moved to another group.", c->replays);
    append_counter(out, "octant_rejected_total", "Requests refused because the queue was full.",
                   c->rejected);
    append_counter(out, "octant_groups_lost_total", "Groups declared LOST.", c->groups_lost);
    append_counter(out, "octant_step_compute_microseconds_total",
                   "Wall time of the steps that had rows, as the leaders measured.", c->compute_us);
    append_counter(out, "octant_step_comm_microseconds_total", "Of it, in collectives.",
                   c->comm_us);
    append_group_states(view, out);
    for (size_t k = 0; k < sizeof GROUP_GAUGES / sizeof *GROUP_GAUGES; k++) {
        const group_gauge *gauge = &GROUP_GAUGES[k];
        metrics_append_head(out, gauge->name, gauge->type, gauge->help);
        for (int i = 0; i < view->group_count; i++) {
            append_labels(out, gauge->name, &view->groups[i]);
            int value;
            memcpy(&value, (const char *)&view->groups[i] + gauge->offset, sizeof value);
            buf_printf(out, "} %d\n", value);
        }
    }
    append_ranks(view, out);
    device_metrics_append(view, out);
    upstream_view_append_metrics(view, out);
}

// ---- JSON ----

static void append_text(buf *out, const char *name, const char *text) {
    buf_printf(out, "\"%s\":", name);
    json_append_string(out, text ? text : "", text ? strlen(text) : 0);
}

static void append_rank(buf *out, const core_rank_view *r) {
    buf_printf(out, "{\"rank\":%d,\"stage\":%d,\"tp_rank\":%d,", r->rank, r->stage, r->tp_rank);
    append_text(out, "host", r->host);
    buf_printf(out, ",\"pid\":%" PRId32 ",", r->pid);
    append_text(out, "phase", cluster_phase_name(r->phase));
    buf_printf(out,
               ",\"load_fraction\":%.4f,\"last_heartbeat_ms\":%" PRId64 ",\"step\":%" PRIu64
               ",\"memory_bytes\":%" PRId64 ",\"collective\":%" PRIu64 ",\"phase_ms\":%" PRId64
               ",\"temperature\":%.1f",
               (double)r->load_fraction,
               r->heartbeat_age_ns < 0 ? -1 : r->heartbeat_age_ns / 1000000, r->step,
               r->memory_bytes, r->collective, r->phase_ns / 1000000, (double)r->temperature);
    device_metrics_append_json(&r->device, out);
    buf_append_char(out, '}');
}

static void append_group(buf *out, const core_group_view *g) {
    buf_append_char(out, '{');
    append_text(out, "id", g->id);
    buf_append_char(out, ',');
    append_text(out, "model", g->model);
    buf_append_char(out, ',');
    append_text(out, "state", group_state_name(g->state));
    buf_append_char(out, ',');
    append_text(out, "reason", g->reason);
    buf_append_char(out, ',');
    append_text(out, "loss", g->loss == LOSS_NONE ? "" : loss_reason_name(g->loss));
    buf_printf(out, ",\"epoch\":%" PRIu64 ",\"lost_ms\":%" PRId64 ",", g->epoch,
               g->lost_age_ns < 0 ? -1 : g->lost_age_ns / 1000000);
    append_text(out, "backend", g->backend);
    buf_printf(out, ",\"spare\":%s", g->spare ? "true" : "false");
    buf_printf(out,
               ",\"kv_blocks_total\":%d,\"kv_blocks_used\":%d,\"kv_blocks_cached\":%d,\"running\":%"
               "d,\"slots\":%d,"
               "\"steps\":%" PRIu64 ",\"stages\":%d,\"ranks\":[",
               g->kv_blocks_total, g->kv_blocks_used, g->kv_blocks_cached, g->running, g->max_seqs,
               g->steps, g->stages);
    for (int i = 0; i < g->ranks_count; i++) {
        if (i) buf_append_char(out, ',');
        append_rank(out, &g->ranks[i]);
    }
    buf_append_string(out, "]}");
}

void core_status_append(const core_view *view, const metrics_totals *totals, buf *out) {
    buf_append_string(out, "{\"version\":\"" OCTANT_VERSION "\",");
    buf_printf(
        out,
        "\"uptime_seconds\":%.3f,\"draining\":%s,\"queued\":%d,\"waiting\":%d,\"running\":%d,"
        "\"requests_total\":%" PRIu64 ",\"prompt_tokens_total\":%" PRIu64
        ",\"completion_tokens_total\":%" PRIu64 ",\"groups\":[",
        totals->uptime_seconds, view->draining ? "true" : "false", view->queued, view->waiting,
        view->running, totals->requests, totals->prompt_tokens, totals->completion_tokens);
    for (int i = 0; i < view->group_count; i++) {
        if (i) buf_append_char(out, ',');
        append_group(out, &view->groups[i]);
    }
    buf_printf(out, "],\"away\":%d,\"upstreams\":", view->away);
    upstream_view_append_json(view, out);
    buf_append_string(out, "}\n");
}
