// Any JSON as config.json: what is accepted can be planned for every rank count and gives finite
// frequencies.
#include <math.h>
#include <stdlib.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/model/model_config.h"
#include "common/model/shard_plan.h"

static void use(const model_config *c) {
    float inv_freq[MODEL_HEAD_DIM_MAX / 2];
    model_config_inv_freq(c, c->context, inv_freq);
    for (int i = 0; i < c->rope_dims / 2; i++)
        if (!isfinite(inv_freq[i]) || inv_freq[i] < 0) abort();
    if (model_config_parameters(c) <= 0) abort();
    for (int ranks = 1; ranks <= c->heads; ranks = ranks * 2 + 1) {
        int most = c->layers < ranks ? c->layers : ranks;
        for (int rank = 0; rank < ranks; rank += 1 + ranks / 3) {
            shard s;
            int stages = 1 + rank % (most < SHARD_STAGES_MAX ? most : SHARD_STAGES_MAX);
            status planned = shard_plan(c, ranks, stages, rank, &s), checked = shard_check(c, &s);
            if (!status_is_ok(&planned) || !status_is_ok(&checked)) abort();
            if (shard_weight_count(c, &s) > model_config_parameters(c)) abort();
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    log_open(LOG_ERROR, "fuzz");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    json_t *json;
    status s = json_parse((const char *)bytes, size, &json);
    if (!status_is_ok(&s)) return 0;
    model_config config;
    s = model_config_from_json(json, &config);
    if (status_is_ok(&s)) use(&config);
    json_decref(json);
    return 0;
}
