#include "tests/sim/sim_schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_check.h"

static bool has(const sim_set *s, int number) {
    return s->listed[number / 64] >> (number % 64) & 1;
}

static void add(sim_set *s, int number) {
    s->listed[number / 64] |= UINT64_C(1) << (number % 64);
}

static bool meet(const sim_set *may, sim_set *met, int number) {
    if (may->limited && !has(may, number)) return false;
    add(met, number);
    return true;
}

bool sim_fault(int source, int ordinal) {
    sim_schedule *s = &sim_here->schedule;
    if (ordinal >= SIM_OF_SOURCE) return true;
    return meet(&s->faults, &s->faults_met, source * SIM_OF_SOURCE + ordinal);
}

bool sim_client(uint64_t ordinal) {
    sim_schedule *s = &sim_here->schedule;
    if (ordinal >= SIM_ASKS_MAX) return true;
    return meet(&s->clients, &s->clients_met, (int)ordinal);
}

void sim_schedule_begin(void) {
    memset(&sim_here->schedule.faults_met, 0, sizeof(sim_set));
    memset(&sim_here->schedule.clients_met, 0, sizeof(sim_set));
}

bool sim_set_parse(const char *text, sim_set *out) {
    memset(out, 0, sizeof *out);
    if (strcmp(text, "all") == 0) return true;
    out->limited = true;
    if (strcmp(text, "none") == 0) return true;
    for (const char *at = text;;) {
        char *end;
        long number = strtol(at, &end, 10);
        if (end == at || number < 0 || number >= SIM_FAULTS_MAX) return false;
        add(out, (int)number);
        if (*end == '\0') return true;
        if (*end != ',') return false;
        at = end + 1;
    }
}

int sim_set_list(const sim_set *s, int *out, int most) {
    int count = 0;
    for (int i = 0; i < SIM_FAULTS_MAX && count < most; i++)
        if (has(s, i)) out[count++] = i;
    return count;
}

void sim_set_of(const int *numbers, int count, sim_set *out) {
    memset(out, 0, sizeof *out);
    out->limited = true;
    for (int i = 0; i < count; i++) add(out, numbers[i]);
}

void sim_set_print(const sim_set *s, char *out, int size) {
    int used = 0;
    snprintf(out, (size_t)size, "none");
    for (int i = 0; i < SIM_FAULTS_MAX && used < size - 8; i++)
        if (has(s, i))
            used += snprintf(out + used, (size_t)(size - used), "%s%d", used ? "," : "", i);
}
