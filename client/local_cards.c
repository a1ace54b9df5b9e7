#include "client/local_cards.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CARDS_MAX = 64 };

void local_cards_list(char text[LOCAL_CARDS_TEXT_MAX]) {
    const char *given = getenv("CUDA_VISIBLE_DEVICES");
    text[0] = 0;
    if (given) {
        if (strlen(given) < LOCAL_CARDS_TEXT_MAX) strcpy(text, given);
        return;
    }
    size_t used = 0;
    for (int i = 0; i < CARDS_MAX; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/nvidia%d", i);
        if (access(path, F_OK) != 0) break;
        used += (size_t)snprintf(text + used, LOCAL_CARDS_TEXT_MAX - used, i ? ",%d" : "%d", i);
    }
}

// Where entry `n` of the list begins; its end for n beyond the last.
static const char *entry(const char *all, int n) {
    for (; n > 0 && *all; n--) {
        all += strcspn(all, ",");
        all += *all == ',';
    }
    return all;
}

bool local_cards_share(const char *all, int index, int groups, char part[LOCAL_CARDS_TEXT_MAX]) {
    int cards = *all ? 1 : 0;
    for (const char *p = all; *p; p++) cards += *p == ',';
    if (cards == 0 || groups < 2) return false;
    int begin = groups > cards ? index % cards : index * cards / groups;
    int end = groups > cards ? begin + 1 : (index + 1) * cards / groups;
    const char *first = entry(all, begin), *last = entry(all, end);
    size_t size = (size_t)(last - first);
    if (size > 0 && first[size - 1] == ',') size--;
    memcpy(part, first, size);
    part[size] = 0;
    return true;
}
