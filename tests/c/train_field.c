/* Learns a theta for a model card, by the library alone or through a callback that can only
 * evaluate, and prints the best validation rmse and the samples evaluated and differentiated.
 *
 *     train_field CARD CONFIG_REST card|forward THETA
 */
#include <stdio.h>
#include <string.h>

#include "bespoke.h"

struct state {
    const bespoke_model *model;
    bespoke_train_progress last;
};

static int32_t velocity(void *user_data, const bespoke_call *call) {
    struct state *state = user_data;
    bespoke_condition condition = {.struct_size = sizeof condition,
                                   .batch = (uint32_t)call->x->shape[0],
                                   .inputs = call->inputs,
                                   .input_count = call->input_count};
    if (call->input_count == 1) {
        const DLTensor *classes = call->inputs->tensor;
        if (strcmp(call->inputs->name, "class") != 0) return 76;
        if (classes->dtype.code != kDLInt || classes->dtype.bits != 64 || classes->shape[0] != call->x->shape[0])
            return 77;
    }
    return bespoke_model_velocity(state->model, &condition, call->time, call->x, call->output);
}

static int32_t progress(void *user_data, const bespoke_train_progress *p) {
    struct state *state = user_data;
    memcpy(&state->last, p, sizeof *p);
    return 0;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    const char *card = arguments[1], *rest = arguments[2], *out = arguments[4];
    int forward = strcmp(arguments[3], "forward") == 0;
    struct state state = {0};
    bespoke_model *model = NULL;
    bespoke_theta *theta = NULL;
    bespoke_model_properties info = {.struct_size = sizeof info};
    bespoke_status status = bespoke_model_open(card, NULL, &model);
    if (status == BESPOKE_OK) status = bespoke_model_info(model, &info);
    if (status == BESPOKE_OK) {
        char config[4096], shape[256] = "";
        state.model = model;
        for (uint32_t i = 0; i < info.ndim; i++)
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", i ? ", " : "",
                     (long long)info.shape[i]);
        if (forward)
            snprintf(
                config, sizeof config,
                "{\"field\": {\"shape\": [%s], \"classes\": %lld, \"data_range\": [%g, %g], \"name\": \"%s\"}, %s}",
                shape, (long long)info.classes, info.data_low, info.data_high, info.name, rest);
        else
            snprintf(config, sizeof config, "{\"model\": \"%s\", %s}", card, rest);
        bespoke_train_callbacks callbacks = {.struct_size = sizeof callbacks,
                                             .user_data = &state,
                                             .progress = progress,
                                             .velocity = forward ? velocity : NULL};
        status = bespoke_train(config, &callbacks, &theta);
    }
    if (status == BESPOKE_OK) status = bespoke_theta_save(theta, out);
    bespoke_theta_free(theta);
    bespoke_model_free(model);
    if (status != BESPOKE_OK) {
        fprintf(stderr, "%s: %s\n", bespoke_status_name(status), bespoke_last_error_message());
        return 1;
    }
    printf("%.9g %llu %llu\n", state.last.best_rmse, (unsigned long long)state.last.forward,
           (unsigned long long)state.last.backward);
    return 0;
}
