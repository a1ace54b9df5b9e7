// policy_privacy: `privacy:` and `complexity:`.
#include <string.h>

#include "coordinator/route/policy_parts.h"

static const char *const actions[] = {"off", "redact", "local-only"};
#define ACTIONS "off|redact|local-only"

static detector_action action_of(const char *name) {
    for (int i = 0; i < POLICY_COUNT(actions); i++)
        if (strcmp(actions[i], name) == 0) return (detector_action)i;
    return DETECTOR_LOCAL_ONLY;
}

static status read_keys(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    routing_key *items;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "keys"));
    TRY(policy_array(r, n, ROUTING_KEYS_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *k = n->first; k; k = k->next) {
        TRY(policy_name(r, k, k->key, "a key's name"));
        items[count].name = k->key;
        TRY(policy_class(r, k, &items[count++].privacy));
    }
    r->policy->keys = items;
    r->policy->key_count = count;
    return status_ok();
}

static status read_detectors(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "detectors"));
    for (const yaml_node *d = n->first; d; d = d->next) {
        const char *action = NULL;
        const config_option option = {"action", CONFIG_CHOICE, &action, 0, 0, ACTIONS, NULL, NULL};
        TRY(yaml_tree_expect(&r->tree, d, YAML_TEXT, d->key));
        status s = config_set(&option, d->text, r->memory);
        if (!status_is_ok(&s)) return yaml_tree_error(&r->tree, d, "%s: %s", d->key, s.message);
        if (detectors_set(r->detectors, d->key, action_of(action))) continue;
        return yaml_tree_key_error(&r->tree, d,
                                   "there is no detector '%.40s'; email, phone, card, iban and "
                                   "us-ssn are built in, others go under patterns",
                                   d->key);
    }
    return status_ok();
}

static status read_pattern(policy_reader *r, const yaml_node *n) {
    static const char *const checks[] = {"none", "luhn", "mod97", "us-ssn", "phone"};
    const char *name = NULL, *regex = NULL, *action = "local-only", *check = "none";
    yaml_field fields[] = {
        POLICY_FIELD("name", CONFIG_STRING, &name, 0, 0),
        POLICY_FIELD("regex", CONFIG_STRING, &regex, 0, 0),
        POLICY_CHOICE("action", &action, ACTIONS),
        POLICY_CHOICE("check", &check, "none|luhn|mod97|us-ssn|phone"),
    };
    fields[0].required = fields[1].required = true;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "a pattern"));
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    TRY(policy_name(r, yaml_tree_find(n, "name"), name, "a pattern's name"));
    int c = 0;
    while (strcmp(checks[c], check) != 0) c++;
    status s = detectors_add(r->detectors, name, regex, (detector_check)c, action_of(action));
    if (status_is_ok(&s)) return s;
    return yaml_tree_error(&r->tree, yaml_tree_find(n, "regex"), "%s", s.message);
}

status policy_read_privacy(policy_reader *r, const yaml_node *n) {
    const yaml_node *keys = NULL, *found = NULL, *patterns = NULL, *unlisted = NULL;
    const yaml_field fields[] = {
        POLICY_NODE("default", &unlisted),
        POLICY_NODE("keys", &keys),
        POLICY_NODE("detectors", &found),
        POLICY_NODE("patterns", &patterns),
    };
    r->policy->default_privacy = PRIVACY_LOCAL_ONLY;
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    if (unlisted) TRY(policy_class(r, unlisted, &r->policy->default_privacy));
    TRY(read_keys(r, keys));
    if (patterns) {
        TRY(yaml_tree_expect(&r->tree, patterns, YAML_LIST, "patterns"));
        for (const yaml_node *p = patterns->first; p; p = p->next) TRY(read_pattern(r, p));
    }
    return read_detectors(r, found);
}

static status read_weights(policy_reader *r, const yaml_node *n) {
    yaml_field fields[COMPLEXITY_FEATURES];
    for (int i = 0; i < COMPLEXITY_FEATURES; i++)
        fields[i] =
            (yaml_field)POLICY_FIELD(complexity_feature_name((complexity_feature)i), CONFIG_FLOAT,
                                     &r->policy->complexity.weights[i], -1, 1);
    return yaml_tree_fields(&r->tree, n, fields, COMPLEXITY_FEATURES);
}

status policy_read_complexity(policy_reader *r, const yaml_node *n) {
    complexity_options *o = &r->policy->complexity;
    const yaml_node *weights = NULL;
    const yaml_field fields[] = {
        POLICY_FIELD("medium", CONFIG_FLOAT, &o->medium, 0, 1),
        POLICY_FIELD("hard", CONFIG_FLOAT, &o->hard, 0, 1),
        POLICY_NODE("weights", &weights),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    if (o->medium > o->hard)
        return yaml_tree_error(&r->tree, n, "medium %g is above hard %g", o->medium, o->hard);
    return read_weights(r, weights);
}
