// show: what a server says of itself, as text for people: the loading bar of `up`, the tables of
// `status` and `top`.
#ifndef OCTANT_CLIENT_SHOW_H
#define OCTANT_CLIENT_SHOW_H

#include <stdio.h>

#include "client/liboctant.h"
#include "common/base/buf.h"

// One line that overwrites itself on a terminal: phase, bar, percent, seconds. Start with a zeroed
// object.
typedef struct show_loading {
    bool terminal; // else only changes of phase are printed, a line each
    int64_t begin_ns;
    char last_phase[64];
} show_loading;
show_loading show_loading_start(void); // looks whether standard error is a terminal
void show_loading_update(show_loading *s,
                         const octant_server_info *info);               // NULL: nothing known yet
void show_loading_end(show_loading *s, const octant_server_info *info); // leaves one final line

// The whole status as lines of text.
void show_status(const octant_server_info *info, buf *out);

// "1.2 GiB", "87 MiB".
const char *show_bytes(int64_t bytes, char text[24]);

#endif
