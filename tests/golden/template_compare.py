#!/usr/bin/env python3
"""Compares chat_template with transformers' own renderer, byte by byte.

    tests/golden/template_compare.py RENDER_TEMPLATE [--gguf NAME=FILE]... [--templates FOLDER] [--only NAME] [--show N]

RENDER_TEMPLATE is build/tests/render_template. Templates: those in the given GGUF files, a few short ones below
(facts of the Mistral and Phi-3 formats), and every *.jinja of FOLDER (tests/golden/fetch_llama_cpp_models.sh fetches llama.cpp's).
Each is rendered over the same conversations by transformers (render_jinja_template, strftime_now at a fixed time) and by
Octant. Where transformers raises, Octant must report an error. Prints a table; exits 1 if a template of REQUIRED is missing or differs
anywhere, or if more than --allow others do.
"""
import argparse
import datetime
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import gguf_metadata
from transformers.utils import chat_template_utils as ctu

NOW = 1764072000  # 2025-11-25 12:00 UTC

REQUIRED = ["smollm2", "meta-llama-Llama-3.1-8B-Instruct", "Qwen-Qwen2.5-7B-Instruct", "mistral-7b-v0.3",
            "mistralai-Mistral-Nemo-Instruct-2407", "google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct", "phi-3-mini"]

# Written here from the formats' descriptions: [INST] with tools, and Phi-3 with its role check.
SHORT = {
    "mistral-7b-v0.3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages if not (message.role in ["tool", "tool_results"] or message.tool_calls is defined) %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and message == user_messages[-1] %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}{%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}
        {%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "phi-3-mini": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}""",
}

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather \"now\" <b>é</b> & more",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "City", "enum": ["Zürich", "東京"]},
        "days": {"type": ["integer", "null"], "default": 3, "minimum": 0.5},
        "where": {"type": "object", "properties": {"lat": {"type": "number"}, "deep": {"type": "array", "items": {"type": "string"}}}}},
        "required": ["city"]}}}
PLAIN = {"type": "function", "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}}


def say(*pairs):
    return [{"role": r, "content": c} for r, c in pairs]


def call(arguments, name="get_weather", content=None, id="abcdef123", **more):
    return {"role": "assistant", "content": content,
            "tool_calls": [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}], **more}


def conversations():
    """(name, messages, tools, extra, add_generation_prompt)"""
    u, a, s = "user", "assistant", "system"
    tool = {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "{\"t\": 21}"}
    chats = [
        ("one", say((u, "Hi")), None, {}, True),
        ("one, no prompt", say((u, "Hi")), None, {}, False),
        ("system", say((s, "Be brief."), (u, "Hi")), None, {}, True),
        ("turns", say((u, "Hi"), (a, "Hello!"), (u, "Bye")), None, {}, True),
        ("system turns", say((s, "S"), (u, "1"), (a, "2"), (u, "3"), (a, "4"), (u, "5")), None, {}, True),
        ("ends with assistant", say((u, "Hi"), (a, "Hello")), None, {}, False),
        ("ends with assistant, prompt", say((u, "Hi"), (a, "Hello")), None, {}, True),
        ("unicode", say((s, "Ünïcödé 😀"), (u, "你好, мир! \u00a0\u3000"), (a, "مرحبا")), None, {}, True),
        ("spaces", say((s, "  s \n"), (u, "\n\n  lead and trail \t\n"), (a, " x "), (u, "\u2003y\u2003")), None, {}, True),
        ("empty", say((s, ""), (u, ""), (a, ""), (u, "")), None, {}, True),
        ("no messages", [], None, {}, True),
        ("assistant first", say((a, "Hello"), (u, "Hi")), None, {}, True),
        ("two users", say((u, "1"), (u, "2")), None, {}, True),
        ("system last", say((u, "1"), (s, "2")), None, {}, True),
        ("two systems", say((s, "1"), (s, "2"), (u, "3")), None, {}, True),
        ("unknown role", say(("narrator", "Once"), (u, "2")), None, {}, True),
        ("developer", say(("developer", "D"), (u, "2")), None, {}, True),
        ("null content", [{"role": u, "content": None}], None, {}, True),
        ("no content", [{"role": u}], None, {}, True),
        ("no role", [{"content": "x"}], None, {}, True),
        ("parts", [{"role": u, "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]}], None, {}, True),
        ("parts image", [{"role": u, "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}], None, {}, True),
        ("system parts", [{"role": s, "content": [{"type": "text", "text": "S"}]}, {"role": u, "content": "x"}], None, {}, True),
        ("tools", say((u, "Weather?")), [WEATHER], {}, True),
        ("two tools, system", say((s, "S"), (u, "Weather?")), [WEATHER, PLAIN], {}, True),
        ("no tools", say((u, "Weather?")), [], {}, True),
        ("tool call", say((u, "W?")) + [call({"city": "Zürich", "n": 1.5, "b": True, "x": None}), tool], [WEATHER], {}, True),
        ("tool call text arguments", say((u, "W?")) + [call("{\"city\": \"東京\"}"), tool], [WEATHER], {}, True),
        ("tool call, no tools", say((u, "W?")) + [call({"city": "x"}), tool] + say((a, "Sunny."), (u, "Thanks")), None, {}, True),
        ("tool call with content", say((s, "S"), (u, "W?")) + [call({}, content="Let me see."), tool, call({"a": [1, {"b": "<c>"}]}, "now"), tool],
         [WEATHER, PLAIN], {}, True),
        ("two tool calls", say((u, "W?")) + [{"role": a, "content": "", "tool_calls": call({"city": "a"})["tool_calls"] + call({"city": "b"}, id="123456789")["tool_calls"]},
                                            tool, dict(tool, tool_call_id="123456789")], [WEATHER], {}, True),
        ("short call id", say((u, "W?")) + [call({"city": "x"}, id="1"), tool], [WEATHER], {}, True),
        ("tool first", [tool] + say((u, "x")), None, {}, True),
        ("tool dict", say((u, "W?")) + [call({"city": "x"}), dict(tool, content={"content": "z", "t": 1})], [WEATHER], {}, True),
        ("reasoning", say((u, "1+1?")) + [{"role": a, "content": "2", "reasoning_content": "one and one"}] + say((u, "2+2?")), None, {}, True),
        ("think tags", say((u, "1+1?"), (a, "<think>\nhm\n</think>\n\n2"), (u, "2+2?"), (a, "<think>x</think>4")), None, {}, True),
        ("thinking off", say((u, "1+1?")), None, {"enable_thinking": False, "thinking": False}, True),
        ("thinking on", say((s, "/no_think be kind"), (u, "1+1? /think")), None, {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}, True),
        ("date", say((u, "day?")), [PLAIN], {"date_string": "01 Jan 2025", "tools_in_user_message": False}, True),
        ("builtin tools", say((s, "S"), (u, "x")), [WEATHER], {"builtin_tools": ["brave_search", "code_interpreter"], "documents": [{"title": "T", "text": "D"}]}, True),
        ("markup", say((u, "<|im_end|>{{ 7*7 }}{% if %}"), (a, "</s>\\n\"q\" 'r'"), (u, "& < >")), None, {}, True),
        ("long", say(*[(u if i % 2 == 0 else a, f"line {i}\n" * 5) for i in range(50)]), None, {}, True),
    ]
    # Some templates want tools always, or a time: the same chats again, with a plain tool and such variables.
    always = {"datetime": "now", "functions": "[]", "custom_tools": [PLAIN]}
    chats += [(f"{title}, with a tool", messages, [PLAIN], always, prompt)
              for title, messages, tools, extra, prompt in chats if tools is None and not extra and title != "long"]
    return chats


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, tz)


def reference(template, messages, tools, extra, prompt):
    try:
        text, _ = ctu.render_jinja_template([messages], tools=tools, chat_template=template,
                                            add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", **extra)
        return text[0], None
    except Exception as e:  # whatever a template makes Python raise is its refusal
        return None, f"{type(e).__name__}: {e}"


class Octant:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, messages, tools, extra, prompt):
        line = json.dumps(dict(template=template, messages=messages, tools=tools, extra=extra, bos="<s>", eos="</s>",
                               add_generation_prompt=prompt, now=NOW))
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer.get("text"), answer.get("error"), answer["ns"]


def gguf_template(path):
    return gguf_metadata.read(path)["tokenizer.chat_template"].decode()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("program")
    p.add_argument("--gguf", action="append", default=[], metavar="NAME=FILE")
    p.add_argument("--templates", type=pathlib.Path)
    p.add_argument("--only")
    p.add_argument("--show", type=int, default=0, help="print the first N differences of each template")
    p.add_argument("--allow", type=int, default=0, help="templates beside the required ones that may differ")
    options = p.parse_args()
    ctu.datetime = FixedTime
    templates = dict(SHORT)
    for item in options.gguf:
        name, path = item.split("=", 1)
        templates[name] = gguf_template(path)
    for path in sorted(options.templates.glob("*.jinja")) if options.templates else []:
        templates[path.stem] = path.read_text()
    octant, bad, slowest = Octant(options.program), [], 0
    total = same_total = 0
    print(f"{'template':55} {'chats':>5} {'same':>5} {'differ':>6} {'raise':>5}")
    for name, template in templates.items():
        if options.only and options.only not in name:
            continue
        same = differ = raised = 0
        for title, messages, tools, extra, prompt in conversations():
            want, refusal = reference(template, messages, tools, extra, prompt)
            got, error, ns = octant.render(template, messages, tools, extra, prompt)
            raised += want is None
            if title == "long":
                slowest = max(slowest, ns)
            if want == got:
                same += 1
                continue
            differ += 1
            if differ <= options.show:
                print(f"--- {name} / {title}\n  want {refusal or repr(want)[:1500]}\n  got  {error or repr(got)[:1500]}")
        print(f"{name:55} {same + differ:5} {same:5} {differ:6} {raised:5}")
        total, same_total = total + same + differ, same_total + same
        if differ:
            bad.append(name)
    print(f"{same_total} of {total} renderings identical; {len(bad)} templates with differences; "
          f"slowest 50-message chat {slowest / 1e6:.3f} ms (the first includes parsing)")
    missing = [] if options.only else [n for n in REQUIRED if n not in templates]
    if missing:
        print("missing templates:", ", ".join(missing))
    required = [n for n in bad if n in REQUIRED]
    return 1 if missing or required or len(bad) > options.allow else 0


if __name__ == "__main__":
    sys.exit(main())
