// The public messages from bytes; the first byte says which. What decodes must encode again.
#include <stdint.h>
#include <stdlib.h>

#include "proto/inference_msg.h"

static void must(status s) {
    if (!status_is_ok(&s)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    buf out = buf_make(64 << 20);
    status s;
    if (data[0] % 4 == 0) {
        inference_piece piece;
        s = inference_piece_decode(data + 1, size - 1, &piece);
        if (status_is_ok(&s)) must(inference_piece_encode(&piece, &out));
        if (status_is_ok(&s)) arena_destroy(piece.memory);
    } else if (data[0] % 4 == 1) {
        inference_server_info info;
        s = inference_server_info_decode(data + 1, size - 1, &info);
        if (status_is_ok(&s)) must(inference_server_info_encode(&info, &out));
        if (status_is_ok(&s)) arena_destroy(info.memory);
    } else {
        inference_request request;
        s = data[0] % 4 == 2 ? inference_chat_decode(data + 1, size - 1, &request)
                             : inference_complete_decode(data + 1, size - 1, &request);
        if (status_is_ok(&s)) must(inference_request_encode(&request, &out));
        if (status_is_ok(&s)) arena_destroy(request.memory);
    }
    buf_free(&out);
    return 0;
}
