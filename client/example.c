// The smallest whole program over liboctant: asks one question and prints the answer as it comes.
//   example 127.0.0.1:50051 "Why is the sky blue?"
#include <stdio.h>

#include "client/liboctant.h"

static bool print_piece(void *user, const char *text, size_t size) {
    (void)user;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST:PORT \"question\"\n", argv[0]);
        return 2;
    }
    octant_client *client = octant_connect(argv[1]);
    if (!client) return 1;
    octant_message question = {"user", argv[2]};
    octant_sampling sampling = {
        .set = OCTANT_TEMPERATURE | OCTANT_MAX_TOKENS, .temperature = 0, .max_tokens = 128};
    octant_result result;
    octant_error error;
    bool answered =
        octant_chat(client, NULL, &question, 1, &sampling, 60, print_piece, NULL, &result, &error);
    if (answered)
        printf("\n[%d tokens, %s]\n", result.usage.completion_tokens, result.finish_reason);
    else
        fprintf(stderr, "error %d: %s\n", error.code, error.message);
    octant_close(client);
    return answered ? 0 : 1;
}
