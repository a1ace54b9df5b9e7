#include "coordinator/answer.h"

const char *answer_finish_name(answer_finish finish) {
    switch (finish) {
    case ANSWER_GOES_ON:
        return NULL;
    case ANSWER_STOP:
        return "stop";
    case ANSWER_LENGTH:
        return "length";
    case ANSWER_TOOLS:
        return "tool_calls";
    }
    return NULL;
}
