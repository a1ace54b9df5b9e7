#include "coordinator/route/router.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/route/router_parts.h"

void router_say(routing_case *c, const char *format, ...) {
    if (!c->f->explain || c->out->trail_count == ROUTE_TRAIL_MAX) return;
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    const char *kept = arena_copy_string(c->memory, line);
    if (kept) c->out->trail[c->out->trail_count++] = kept;
}

// ---- names ----

route_target router_resolve(const routing_policy *p, const char *model) {
    route_target t = {.local = model, .upstream = -1, .alias = routing_find_model(p, model)};
    if (t.alias) t.local = t.alias->model;
    t.upstream = routing_find_upstream(p, t.local);
    if (t.upstream >= 0) t.local = NULL;
    return t;
}

static bool names(const routing_names *list, const char *name) {
    for (int i = 0; name && i < list->count; i++)
        if (strcmp(list->items[i], name) == 0) return true;
    return false;
}

// As the client wrote it, or what it means.
static bool names_model(const routing_names *list, const route_facts *f, const route_target *t) {
    return names(list, f->model) || names(list, t->local);
}

static bool any_open(const window *windows, int count, int64_t now) {
    for (int i = 0; i < count; i++)
        if (window_is_open(&windows[i], now)) return true;
    return false;
}

// ---- the rule ----

// NULL: the rule matches; else why not.
static const char *mismatch(const routing_match *m, const route_facts *f, const route_target *t) {
    if (m->keys.count && !names(&m->keys, f->key)) return "it is not for this key";
    if (m->models.count && !names_model(&m->models, f, t)) return "it is not for this model";
    if (m->complexities && !(m->complexities >> f->complexity & 1))
        return "it is not for this complexity";
    if (f->prompt_tokens < m->prompt_tokens_least) return "the prompt is too short";
    if (m->prompt_tokens_most && f->prompt_tokens > m->prompt_tokens_most)
        return "the prompt is too long";
    if (m->tools_given && m->tools != f->tools) return m->tools ? "no tools" : "tools";
    if (m->window_count && !any_open(m->windows, m->window_count, f->now))
        return "its time is not now";
    return NULL;
}

static const routing_rule *find_rule(routing_case *c) {
    for (int i = 0; i < c->p->rule_count; i++) {
        const routing_rule *rule = &c->p->rules[i];
        const char *why = mismatch(&rule->match, c->f, &c->target);
        router_say(c, "route %s: %s", rule->name, why ? why : "matches");
        if (!why) return rule;
    }
    if (c->p->rule_count) router_say(c, "no route matches: our groups alone");
    return NULL;
}

// ---- the privacy class ----

static void tighten(routing_case *c, privacy_class most_open, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void tighten(routing_case *c, privacy_class most_open, const char *format, ...) {
    char by[ROUTER_BY_MAX + 1];
    va_list args;
    va_start(args, format);
    vsnprintf(by, sizeof by, format, args);
    va_end(args);
    bool tighter = most_open < c->privacy;
    router_say(c, "privacy: %s: %s%s", by, privacy_class_name(most_open),
               tighter ? "" : " (changes nothing)");
    if (!tighter) return;
    c->privacy = most_open;
    memcpy(c->by, by, sizeof by);
}

static void class_of_key(routing_case *c) {
    c->privacy = c->p->default_privacy;
    snprintf(c->by, sizeof c->by, "default");
    for (int i = 0; i < c->p->key_count && *c->f->key; i++) {
        if (strcmp(c->p->keys[i].name, c->f->key) != 0) continue;
        c->privacy = c->p->keys[i].privacy;
        snprintf(c->by, sizeof c->by, "key %s", c->f->key);
    }
    router_say(c, "privacy: %s: %s", c->by, privacy_class_name(c->privacy));
}

// A word that is no class's name is the strictest of them.
static privacy_class class_by_name(const char *word) {
    privacy_class c = PRIVACY_MAY_LEAVE;
    while (c > PRIVACY_LOCAL_ONLY && strcmp(privacy_class_name(c), word) != 0) c--;
    return c;
}

static void class_of_request(routing_case *c) {
    class_of_key(c);
    if (c->target.alias) tighten(c, c->target.alias->privacy, "model %s", c->target.alias->name);
    const routing_model *own = c->target.local ? routing_find_model(c->p, c->target.local) : NULL;
    if (own && own != c->target.alias) tighten(c, own->privacy, "model %s", own->name);
    if (c->rule) tighten(c, c->rule->privacy, "route %s", c->rule->name);
    if (c->f->privacy) tighten(c, class_by_name(c->f->privacy), "the client");
    if (!c->p->given) tighten(c, PRIVACY_LOCAL_ONLY, "no policy");
}

static void class_of_contents(routing_case *c) {
    const detectors *d = c->p->detectors;
    if (!c->f->scanned) {
        tighten(c, PRIVACY_LOCAL_ONLY, "contents that nobody scanned");
        return;
    }
    for (int i = 0; i < detectors_count(d); i++) {
        if (!c->f->findings.found[i] || detectors_action(d, i) == DETECTOR_OFF) continue;
        bool stays = detectors_action(d, i) == DETECTOR_LOCAL_ONLY;
        uint32_t across = c->f->findings.across[i];
        char seams[40] = "";
        if (across) snprintf(seams, sizeof seams, ", %u of them across texts", across);
        tighten(c, stays ? PRIVACY_LOCAL_ONLY : PRIVACY_REDACT, "detector %s (found %u%s)",
                detectors_name(d, i), c->f->findings.found[i], seams);
    }
    if (c->f->findings.limits) tighten(c, PRIVACY_LOCAL_ONLY, "detectors (a limit was reached)");
}

// ---- the decision ----

static routing_case begin(const routing_policy *p, const route_facts *f, arena *memory,
                          route_decision *out) {
    routing_case c = {.p = p, .f = f, .memory = memory, .out = out};
    c.target = router_resolve(p, f->model);
    if (c.target.upstream >= 0)
        router_say(&c, "model %s is upstream %s", f->model,
                   p->upstreams.items[c.target.upstream].name);
    else if (c.target.alias)
        router_say(&c, "model %s is our %s", f->model, c.target.local);
    c.rule = find_rule(&c);
    class_of_request(&c);
    return c;
}

static bool serves_here(routing_case *c) {
    const char *why = NULL;
    if (!c->target.local)
        why = "an upstream was named";
    else if (!c->f->local_known)
        why = "no group has brought this model";
    else if (c->rule && !c->rule->local)
        why = "the route says so";
    else if (c->f->local_lacks)
        why = c->f->local_lacks;
    if (why) router_say(c, "not here: %s", why);
    return !why;
}

// A name that means nothing here: only a rule that spells it may send it away, so that a typing
// error does not travel.
static bool is_named(const routing_case *c) {
    return c->f->local_known || c->target.upstream >= 0 || c->target.alias ||
           (c->rule && names_model(&c->rule->match.models, c->f, &c->target));
}

static status refusal_of(routing_case *c) {
    const char *model = c->f->model, *rule = c->out->route.rule, *lacks = c->f->local_lacks;
    bool leads_out = c->rule && c->rule->upstream_count && is_named(c);
    bool stays = c->privacy == PRIVACY_LOCAL_ONLY;
    if (c->target.local && !c->f->local_known && (!leads_out || stays))
        return status_error(STATUS_NOT_FOUND, "The model '%.100s' does not exist.", model);
    c->out->refused_param = lacks;
    if (lacks && c->target.local)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "Unsupported parameter: '%s' is not supported by this model, and no "
                            "upstream may take this request (%s). Leave it out.",
                            lacks, rule);
    c->out->refused_param = NULL;
    if (c->over_budget)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "The budget for upstreams does not allow this request (%s).", rule);
    c->out->refused_param = "model";
    if (stays)
        return status_error(STATUS_PERMISSION_DENIED,
                            "The model '%.100s' is served outside of this site, and this request "
                            "may not leave it (%s).",
                            model, rule);
    return status_error(
        STATUS_INVALID_ARGUMENT, "No upstream takes this request for the model '%.100s' (%s%s%s).",
        model, rule, c->f->only_local ? "; " : "", c->f->only_local ? c->f->only_local : "");
}

static bool set_rule(routing_case *c) {
    char text[2 * ROUTER_BY_MAX];
    snprintf(text, sizeof text, "%s by %s; %s%s", privacy_class_name(c->privacy), c->by,
             c->rule ? "route " : "no route", c->rule ? c->rule->name : "");
    c->out->route.rule = arena_copy_string(c->memory, text);
    return c->out->route.rule != NULL;
}

// But for what its contents say.
static bool might_leave(const routing_case *c) {
    return c->rule && c->rule->upstream_count && c->privacy > PRIVACY_LOCAL_ONLY &&
           !c->f->only_local;
}

bool router_may_leave(const routing_policy *p, const route_facts *f) {
    if (!p->given || p->upstreams.count == 0) return false;
    route_decision unused;
    route_facts quiet = *f;
    quiet.explain = false;
    routing_case c = begin(p, &quiet, NULL, &unused);
    return might_leave(&c);
}

privacy_class router_class(const routing_policy *p, const route_facts *f) {
    route_decision unused;
    route_facts quiet = *f;
    quiet.explain = false;
    return begin(p, &quiet, NULL, &unused).privacy;
}

bool router_decide(const routing_policy *p, const route_facts *f, arena *memory,
                   route_decision *out) {
    out->route = (core_route){.local = true, .rule = "no memory"};
    out->refused = status_ok();
    out->refused_param = NULL;
    out->trail_count = 0;
    routing_case c = begin(p, f, memory, out);
    if (might_leave(&c)) class_of_contents(&c);
    if (!set_rule(&c)) return false;
    core_route *r = &out->route;
    r->privacy = c.privacy;
    r->local = serves_here(&c);
    if (c.rule) r->midstream = c.rule->midstream;
    r->may_continue = !f->tools && !f->json;
    if (is_named(&c)) router_choose_targets(&c);
    if (!r->local && r->upstream_count == 0) out->refused = refusal_of(&c);
    assert(r->privacy > PRIVACY_LOCAL_ONLY || r->upstream_count == 0);
    return true;
}
