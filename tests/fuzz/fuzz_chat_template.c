// fuzz_chat_template: any bytes as a template, rendered over one conversation that has every shape
// of value. Whatever comes, parse and render answer with text or with a status, within their
// bounds.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/chat_template.h"

enum { TEXT_MAX = 1 << 20, INPUT_MAX = 4096 };

static const char conversation[] =
    "[{\"role\":\"system\",\"content\":\" S\\u00e9 \"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\nb\"},{\"type\":\"image\"}]},"
    "{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"r\",\"tool_calls\":[{\"id\":\"1\","
    "\"function\":"
    "{\"name\":\"f\",\"arguments\":{\"x\":1.5,\"y\":[true,null,-3]}}}]},"
    "{\"role\":\"tool\",\"content\":\"\\ud83d\\ude00 <x> 'q'\"}]";
static const char functions[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                                "\"parameters\":{\"properties\":{\"x\":{}}}}}]";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *messages, *tools;
    if (!messages) messages = json_loads(conversation, 0, NULL);
    if (!tools) tools = json_loads(functions, 0, NULL);
    if (!messages || !tools) abort();
    if (size > INPUT_MAX) return 0;
    chat_template *t = NULL;
    status s = chat_template_parse((const char *)data, size, &t);
    if (!status_is_ok(&s)) {
        if (t || !*s.message) abort();
        return 0;
    }
    buf out = buf_make(TEXT_MAX);
    s = chat_template_render(t, messages, tools, NULL, true, "<s>", "</s>", 1764072000, &out);
    if (!status_is_ok(&s) && (out.size || !*s.message)) abort();
    buf_free(&out);
    chat_template_free(t);
    return 0;
}
