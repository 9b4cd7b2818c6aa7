/* Applies a theta's scalars in a loop of its own, as a host does that fuses them into its kernel, and
 * compares with the library's solve.
 *
 *     fused_update THETA...
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bespoke.h"

enum { NUMBERS = 1000 };

/* The field of this program: u_t(x) = cos(3 t) - (1 + t) x. */
static void evaluate(double t, const float *x, float *u) {
    for (int i = 0; i < NUMBERS; i++) u[i] = (float)(cos(3.0 * t) - (1.0 + t) * x[i]);
}

static int32_t velocity(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    (void)user_data;
    evaluate(*(const float *)t->data, x->data, u->data);
    return 0;
}

static void check(bespoke_status status) {
    if (status == BESPOKE_OK) return;
    fprintf(stderr, "%s: %s\n", bespoke_status_name(status), bespoke_last_error_message());
    exit(1);
}

/* out = the combination c of the registers and the velocity u. */
static void combine(bespoke_combination c, float (*registers)[NUMBERS], const float *u, float *out) {
    for (int i = 0; i < NUMBERS; i++) {
        float sum = (float)c.velocity * u[i];
        for (uint32_t j = 0; j < c.count; j++) sum += (float)c.coefficients[j] * registers[c.registers[j]][i];
        out[i] = sum;
    }
}

/* x from x(0) to x(1). A kernel computes both combinations in one pass over its registers. */
static void solve(const bespoke_theta *theta, const bespoke_theta_properties *info, float *x) {
    float (*registers)[NUMBERS] = malloc((2 + info->kept_registers) * sizeof *registers);
    float u[NUMBERS], next[NUMBERS], kept[NUMBERS];
    uint32_t point = BESPOKE_REGISTER_STATE;
    if (registers == NULL) exit(1);
    memcpy(registers[BESPOKE_REGISTER_STATE], x, sizeof next);
    for (uint32_t k = 0; k < info->nfe; k++) {
        bespoke_stage stage = {.struct_size = sizeof stage};
        check(bespoke_theta_stage(theta, k, &stage));
        evaluate(stage.t, registers[point], u);
        combine(stage.next, registers, u, next);
        combine(stage.kept, registers, u, kept);
        point = stage.next.target;
        memcpy(registers[point], next, sizeof next);
        if (stage.kept.target != BESPOKE_REGISTER_NONE) memcpy(registers[stage.kept.target], kept, sizeof kept);
    }
    memcpy(x, registers[point], sizeof next);
    free(registers);
}

int main(int count, char **paths) {
    for (int p = 1; p < count; p++) {
        bespoke_theta *theta = NULL;
        bespoke_sampler *sampler = NULL;
        bespoke_theta_properties info = {.struct_size = sizeof info};
        float own[NUMBERS], library[NUMBERS];
        int64_t shape[2] = {1, NUMBERS};
        DLTensor x = {library, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, shape, NULL, 0};
        double worst = 0.0;
        for (int i = 0; i < NUMBERS; i++) own[i] = library[i] = (float)sin(i);
        check(bespoke_load_theta(paths[p], &theta));
        check(bespoke_theta_info(theta, &info));
        check(bespoke_sampler_new(theta, NULL, &sampler));
        check(bespoke_sample(theta, sampler, &x, &x, velocity, NULL));
        solve(theta, &info, own);
        for (int i = 0; i < NUMBERS; i++) worst = fmax(worst, fabs(own[i] - library[i]));
        printf("%s  nfe %u  largest difference %.2g\n", info.family, info.nfe, worst);
        bespoke_sampler_free(sampler);
        bespoke_theta_free(theta);
        if (!(worst < 1e-5)) return 1;
    }
    return 0;
}
