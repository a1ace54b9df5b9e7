#include "coordinator/ingress/octant_field.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"

static void append_text(buf *out, const char *text) {
    json_append_string(out, text, strlen(text));
}

void octant_field_append(buf *out, const char *served_by, const answer_usage *u) {
    if (u && !u->segment_count) return;
    if (u) served_by = u->segments[u->segment_count - 1].by;
    buf_append_string(out, ",\"octant\":{\"served_by\":");
    append_text(out, served_by);
    if (u) {
        buf_append_string(out, ",\"segments\":[");
        for (int i = 0; i < u->segment_count; i++) {
            buf_append_string(out, i ? ",{\"by\":" : "{\"by\":");
            append_text(out, u->segments[i].by);
            buf_printf(out, ",\"tokens\":%" PRId32 "}", u->segments[i].tokens);
        }
        buf_append_string(out, u->estimated ? "],\"estimated\":true" : "]");
    }
    buf_append_char(out, '}');
}
