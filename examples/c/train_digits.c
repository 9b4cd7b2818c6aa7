/* Learns a five-step solver for a model card and saves it.
 *
 *     train_digits CARD THETA [ITERATIONS]
 *
 * as in   train_digits models/digits-fm-ot.json theta.json
 */
#include <stdio.h>
#include <stdlib.h>

#include "bespoke.h"

static int32_t progress(void *user_data, const bespoke_train_progress *p) {
    (void)user_data;
    if (p->validated)
        printf("iteration %llu/%llu  rmse %.5f  best %.5f  (%llu evaluations)\n", (unsigned long long)p->iteration,
               (unsigned long long)p->iterations, p->validation_rmse, p->best_rmse, (unsigned long long)p->forward);
    fflush(stdout);
    return 0; /* anything else would stop with the best theta so far */
}

int main(int count, char **arguments) {
    if (count < 3 || count > 4) {
        fprintf(stderr, "usage: train_digits CARD THETA [ITERATIONS]\n");
        return 2;
    }
    const char *card = arguments[1], *out = arguments[2];
    int iterations = count > 3 ? atoi(arguments[3]) : 60;
    char config[4096];
    int length = snprintf(config, sizeof config,
                          "{\"model\": \"%s\", \"family\": \"rk2\", \"steps\": 5, \"iterations\": %d,"
                          " \"pool\": 400, \"validation\": 250}",
                          card, iterations);
    if (length < 0 || length >= (int)sizeof config) {
        fprintf(stderr, "%s: too long a path\n", card);
        return 2;
    }

    bespoke_train_callbacks callbacks = {.struct_size = sizeof callbacks, .progress = progress};
    bespoke_theta *theta = NULL;
    bespoke_status status = bespoke_train(config, &callbacks, &theta);
    if (status == BESPOKE_OK) status = bespoke_theta_save(theta, out);
    if (status == BESPOKE_OK) {
        bespoke_theta_properties info = {.struct_size = sizeof info};
        status = bespoke_theta_info(theta, &info);
        if (status == BESPOKE_OK)
            printf("%s with %u steps, %u evaluations: %s\n", info.family, info.steps, info.nfe, out);
    }
    bespoke_theta_free(theta);
    if (status == BESPOKE_OK) return 0;
    fprintf(stderr, "%s: %s\n", bespoke_status_name(status), bespoke_last_error_message());
    return 1;
}
