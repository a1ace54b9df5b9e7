#include "coordinator/observe/device_metrics.h"

#include <inttypes.h>

#include "coordinator/observe/metrics.h"

// The numbers in one table for both; -1: not told.
typedef struct device_number {
    const char *metric, *type, *help, *field;
    int decimals;
    double (*of)(const device_health *h);
} device_number;

static double temperature_of(const device_health *h) {
    return (double)h->temperature;
}
static double power_of(const device_health *h) {
    return (double)h->power;
}
static double utilization_of(const device_health *h) {
    return (double)h->utilization;
}
static double used_of(const device_health *h) {
    return (double)h->memory_used;
}
static double total_of(const device_health *h) {
    return (double)h->memory_total;
}
static double ecc_of(const device_health *h) {
    return (double)h->ecc_errors;
}
static double xid_of(const device_health *h) {
    return h->xid;
}

static const device_number NUMBERS[] = {
    {"octant_rank_device_temperature_celsius", "gauge", "Of the rank's card.", "temperature", 0,
     temperature_of},
    {"octant_rank_device_power_watts", "gauge", "Power that the rank's card draws.", "power_watts",
     1, power_of},
    {"octant_rank_device_utilization_ratio", "gauge",
     "Share of the time in which the rank's card computed.", "utilization", 2, utilization_of},
    {"octant_rank_device_memory_used_bytes", "gauge",
     "Memory in use on the rank's card, whoever uses it.", "memory_used_bytes", 0, used_of},
    {"octant_rank_device_memory_bytes", "gauge", "Memory of the rank's card.", "memory_bytes", 0,
     total_of},
    {"octant_rank_device_ecc_uncorrected_total", "counter",
     "Memory errors of the rank's card that could not be corrected, since its driver was loaded.",
     "ecc_uncorrected", 0, ecc_of},
    {"octant_rank_device_xid", "gauge",
     "The driver's number of the last fault of the rank's card; 0: none.", "xid", 0, xid_of},
};

static void append_labels(const char *name, const core_group_view *g, int rank, buf *out) {
    buf_printf(out, "%s{group=", name);
    metrics_append_label(out, g->id);
    buf_append_string(out, ",model=");
    metrics_append_label(out, g->model);
    buf_printf(out, ",rank=\"%d\"", rank);
}

static void append_throttles(const core_group_view *g, const core_rank_view *r, buf *out) {
    for (uint32_t bit = 1; bit < DEVICE_THROTTLE_ALL; bit <<= 1) {
        append_labels("octant_rank_device_throttled", g, r->rank, out);
        buf_printf(out, ",reason=\"%s\"} %d\n", device_throttle_name(bit),
                   (r->device.throttle & bit) != 0);
    }
}

void device_metrics_append(const core_view *view, buf *out) {
    for (size_t n = 0; n < sizeof NUMBERS / sizeof *NUMBERS; n++) {
        const device_number *number = &NUMBERS[n];
        metrics_append_head(out, number->metric, number->type, number->help);
        for (int i = 0; i < view->group_count; i++)
            for (int k = 0; k < view->groups[i].ranks_count; k++) {
                const core_rank_view *r = &view->groups[i].ranks[k];
                double value = number->of(&r->device);
                if (!r->device.known || value < 0) continue;
                append_labels(number->metric, &view->groups[i], r->rank, out);
                buf_printf(out, "} %.*f\n", number->decimals, value);
            }
    }
    metrics_append_head(out, "octant_rank_device_throttled", "gauge",
                        "1 while the rank's card is slowed down, by reason.");
    for (int i = 0; i < view->group_count; i++)
        for (int k = 0; k < view->groups[i].ranks_count; k++)
            if (view->groups[i].ranks[k].device.known)
                append_throttles(&view->groups[i], &view->groups[i].ranks[k], out);
}

void device_metrics_append_json(const device_health *h, buf *out) {
    if (!h->known) return;
    buf_append_string(out, ",\"device\":{\"throttled\":[");
    const char *comma = "";
    for (uint32_t bit = 1; bit < DEVICE_THROTTLE_ALL; bit <<= 1) {
        if (!(h->throttle & bit)) continue;
        buf_printf(out, "%s\"%s\"", comma, device_throttle_name(bit));
        comma = ",";
    }
    buf_append_char(out, ']');
    for (size_t n = 0; n < sizeof NUMBERS / sizeof *NUMBERS; n++) {
        double value = NUMBERS[n].of(h);
        if (value >= 0)
            buf_printf(out, ",\"%s\":%.*f", NUMBERS[n].field, NUMBERS[n].decimals, value);
    }
    buf_append_char(out, '}');
}
