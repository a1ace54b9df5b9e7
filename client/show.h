// show: what a server says of itself, as text for people: the loading bar of `up`, the tables of
// `status` and `top`.
#ifndef OCTANT_CLIENT_SHOW_H
#define OCTANT_CLIENT_SHOW_H

#include <stdio.h>

#include "client/liboctant.h"
#include "common/base/buf.h"

// One line for each group that is on its way: phase, bar, percent, seconds. They overwrite
// themselves on a terminal; elsewhere a line is printed when a phase changes.
enum { SHOW_LOADING_MAX = 64 };
typedef struct show_loading {
    bool terminal;
    int64_t begin_ns;
    int lines; // on the terminal, to be overwritten
    char last_phase[SHOW_LOADING_MAX][64];
} show_loading;
show_loading show_loading_start(void); // looks whether standard error is a terminal

// `labels` name the groups where there are several; a group of NULL is not known yet.
void show_loading_update(show_loading *s, const char *const labels[],
                         const octant_group *const groups[], int count);
// Leaves one final line for each group.
void show_loading_end(show_loading *s, const char *const labels[],
                      const octant_group *const groups[], int count);

// The whole status as lines of text.
void show_status(const octant_server_info *info, buf *out);

// "1.2 GiB", "87 MiB".
const char *show_bytes(int64_t bytes, char text[24]);

#endif
