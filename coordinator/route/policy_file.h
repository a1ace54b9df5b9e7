// policy_file: octant.yaml's sections about where requests may go, to a routing_policy. They stand
// beside `coordinator:` and `worker:`; deploy/octant.example.yaml shows all of them with comments.
//
//   models:                        # names that clients may use beside those of the groups
//     support-bot: {model: llama-3.1-8b, privacy: redact-then-leave}
//     best: {model: frontier}      # an upstream's name: not a model of ours
//
//   upstreams:                     # closed APIs, named by role
//     frontier:
//       api: anthropic             # openai-chat | openai-responses | anthropic | gemini
//       base-url: https://api.example.com/v1
//       model: some-model-1        # as the API calls it
//       key-env: FRONTIER_KEY      # or key-file: PATH; neither: no key is sent
//       ca-file: PATH              # else the system's; verification is always on
//       plain-http: false          # true: http:// to another machine is wanted, in clear
//       price: some-model-1        # row of the price file; default: the model's name
//       prefill: false             # goes on from a last assistant message, literally
//       tools: true
//       json: true
//       context: 200000            # tokens; 0: not told
//       max-output: 8192
//       concurrency: 32            # limits; 0: none of ours
//       requests-per-minute: 0
//       tokens-per-minute: 0
//       connect-timeout: 5s
//       first-content-timeout: 30s
//       between-chunks-timeout: 20s
//       total-timeout: 5m
//       min-rate: 0                # tokens/s over rate-window; 0: off
//       rate-window: 10s
//       drain: 10s                 # how long usage is waited for when a client has left
//       breaker: {window: 20, least: 5, share: 0.5, open: 15s}
//       retry-502: false           # 502 and 504 may have been charged
//   upstream-rules: {return-after: 10s, max-attempts: 3}
//
//   privacy:                       # local-only | redact-then-leave | may-leave
//     default: local-only          # of keys that are not listed
//     keys: {support: redact-then-leave, research: may-leave}
//     detectors:                   # what a finding means: off | redact | local-only
//       email: redact
//       phone: redact
//       card: local-only
//       iban: local-only
//       us-ssn: local-only
//     patterns:                    # more of them
//       - {name: ticket, regex: 'TCK-[0-9]{6}', action: redact, check: none}
//
//   complexity: {medium: 0.10, hard: 0.48}
//
//   routes:                        # the first that matches decides; none: our groups alone
//     - name: hard-questions
//       match: {keys: [research], models: [support-bot], complexity: [hard],
//               min-prompt-tokens: 10, max-prompt-tokens: 9000, tools: false,
//               at: [mon-fri 08:00-18:00]}
//       local: true                # our groups may serve it
//       upstreams: [frontier, cheap]   # in this order, none twice
//       prefer: upstream           # local | upstream: who is asked first
//       weights: {local: 90, cheap: 10}    # instead of prefer: by the request's id
//       privacy: may-leave         # at most this open
//       spill-after: 2s            # time in the queue; 0s: never
//       miss-cost: 0.01            # dollars that a missed deadline costs; spilling costs less
//       midstream: continue        # replay | continue | restart | error
//       max-cost: 0.05             # dollars for one request, all attempts
//
//   maintenance:                   # upstreams first while a window is open (UTC)
//     - {models: [llama-3.1-8b], at: [sun 02:00-04:00, 2026-12-24 18:00 to 2026-12-26 06:00]}
//
//   budgets:                       # dollars that may leave; days are of UTC
//     all: {per-day: 50}
//     default: {per-day: 1, per-request: 0.05}    # of keys that are not listed
//     keys: {support: {per-day: 5}}
//
//   local-cost: {gpu-hour: 2.50}   # dollars for one rank (one GPU) and hour
//
// `midstream: continue` hands on what our groups have said only of requests that may leave as they
// are: of those that must be redacted, a part that a group of ours has begun waits for another.
//
// Every error is one line that begins with FILE:LINE:COLUMN; a key that nobody knows is one.
#ifndef OCTANT_COORDINATOR_ROUTE_POLICY_FILE_H
#define OCTANT_COORDINATOR_ROUTE_POLICY_FILE_H

#include <stddef.h>

#include "common/base/status.h"
#include "coordinator/route/routing_policy.h"

// NOT_FOUND when the file cannot be read, else INVALID_ARGUMENT. A file without such sections gives
// a policy with `given` false: all requests stay here. The caller frees *out.
status policy_file_read(const char *path, routing_policy **out);

// The same from bytes; `name` is what errors call the file.
status policy_file_parse(const char *name, const char *bytes, size_t size, routing_policy **out);

#endif
