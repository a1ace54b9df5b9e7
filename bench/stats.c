#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

bool stats_add(stats *s, double value) {
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 256;
        double *values = realloc(s->values, room * sizeof *values);
        if (!values) return false;
        s->values = values;
        s->room = room;
    }
    s->values[s->count++] = value;
    return true;
}

void stats_free(stats *s) {
    free(s->values);
    *s = (stats){0};
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_percentile(stats *s, double percent) {
    if (s->count == 0) return 0;
    qsort(s->values, s->count, sizeof *s->values, ascending);
    size_t rank = (size_t)ceil(percent / 100 * (double)s->count);
    return s->values[rank > 0 ? rank - 1 : 0];
}

double stats_mean(const stats *s) {
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) sum += s->values[i];
    return s->count ? sum / (double)s->count : 0;
}
