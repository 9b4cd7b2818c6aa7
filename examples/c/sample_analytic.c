/* Samples a velocity field written in C with learned solvers.
 *
 *     sample_analytic THETA...
 *
 * The data are eight Gaussian modes on a circle; their exact velocity is known (FM-OT: x_t = t x1 +
 * (1 - t) x0). Each theta takes the same 1,000 noises to samples, which are compared with those of
 * 1,000 Runge-Kutta steps: one line per theta with its family, evaluations and rmse.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bespoke.h"

enum { MODES = 8, SAMPLES = 1000, NUMBERS = 2 * SAMPLES, FINE_STEPS = 1000 };
static const double RADIUS = 2.0, STD = 0.15, TWO_PI = 6.283185307179586;

/* u_t(x) of one point, in doubles. */
static void ring_velocity(double t, const double x[2], double u[2]) {
    double alpha = t, sigma = 1.0 - t;
    double variance = alpha * alpha * STD * STD + sigma * sigma;
    double logit[MODES], highest = -INFINITY, total = 0.0, mean[2] = {0.0, 0.0};
    for (int m = 0; m < MODES; m++) {
        double dx = x[0] - alpha * RADIUS * cos(TWO_PI * m / MODES);
        double dy = x[1] - alpha * RADIUS * sin(TWO_PI * m / MODES);
        logit[m] = -(dx * dx + dy * dy) / (2.0 * variance);
        highest = fmax(highest, logit[m]);
    }
    for (int m = 0; m < MODES; m++) {
        double weight = exp(logit[m] - highest);
        total += weight;
        mean[0] += weight * RADIUS * cos(TWO_PI * m / MODES);
        mean[1] += weight * RADIUS * sin(TWO_PI * m / MODES);
    }
    /* u = c x + (1 - c t) E[mean | x], with alpha' = 1 and sigma' = -1. */
    double c = (alpha * STD * STD - sigma) / variance;
    for (int i = 0; i < 2; i++) u[i] = c * x[i] + (1.0 - c * alpha) * mean[i] / total;
}

/* The same as the library asks for it: a batch of float32 points, one time for each. */
static int32_t velocity(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    long *evaluations = user_data;
    const float *times = t->data, *points = x->data;
    float *velocities = u->data;
    for (int64_t i = 0; i < x->shape[0]; i++) {
        double point[2] = {points[2 * i], points[2 * i + 1]}, value[2];
        ring_velocity(times[i], point, value);
        velocities[2 * i] = (float)value[0];
        velocities[2 * i + 1] = (float)value[1];
    }
    ++*evaluations;
    return 0;
}

/* Standard normal numbers: a 64-bit linear congruential generator and Box-Muller. */
static double uniform(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*state >> 11) + 0.5) / 9007199254740992.0;
}

static void noise(float *x) {
    uint64_t state = 1;
    for (int i = 0; i < NUMBERS; i++) {
        double radius = sqrt(-2.0 * log(uniform(&state)));
        x[i] = (float)(radius * cos(TWO_PI * uniform(&state)));
    }
}

/* x(1) by the classical Runge-Kutta method. */
static void exact(const float x0[2], double x[2]) {
    double h = 1.0 / FINE_STEPS, k[4][2], y[2];
    x[0] = x0[0];
    x[1] = x0[1];
    for (int step = 0; step < FINE_STEPS; step++) {
        static const double c[4] = {0.0, 0.5, 0.5, 1.0};
        for (int s = 0; s < 4; s++) {
            for (int i = 0; i < 2; i++) y[i] = x[i] + (s > 0 ? h * c[s] * k[s - 1][i] : 0.0);
            ring_velocity((step + c[s]) * h, y, k[s]);
        }
        for (int i = 0; i < 2; i++) x[i] += h / 6.0 * (k[0][i] + 2.0 * k[1][i] + 2.0 * k[2][i] + k[3][i]);
    }
}

static void check(bespoke_status status, const char *what) {
    if (status == BESPOKE_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, bespoke_status_name(status), bespoke_last_error_message());
    exit(1);
}

/* Takes x from noise to samples; answers the number of evaluations. */
static long sample(const char *path, float *x) {
    bespoke_theta *theta = NULL;
    bespoke_sampler *sampler = NULL;
    check(bespoke_load_theta(path, &theta), path);
    check(bespoke_sampler_new(theta, NULL, &sampler), "bespoke_sampler_new");
    bespoke_theta_properties info = {.struct_size = sizeof info};
    check(bespoke_theta_info(theta, &info), "bespoke_theta_info");

    int64_t shape[2] = {SAMPLES, 2};
    DLTensor tensor = {.data = x,
                       .device = {kDLCPU, 0},
                       .ndim = 2,
                       .dtype = {kDLFloat, 32, 1},
                       .shape = shape,
                       .strides = NULL,
                       .byte_offset = 0};
    long evaluations = 0;
    for (uint32_t step = 0; step < info.steps; step++)
        check(bespoke_step(theta, sampler, step, &tensor, velocity, &evaluations), "bespoke_step");
    printf("%s  nfe %ld  ", info.family, evaluations);
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
    return evaluations;
}

int main(int count, char **paths) {
    static float x0[NUMBERS], x[NUMBERS];
    static double truth[SAMPLES][2];
    if (count < 2) {
        fprintf(stderr, "usage: sample_analytic THETA...\n");
        return 2;
    }
    noise(x0);
    for (int i = 0; i < SAMPLES; i++) exact(x0 + 2 * i, truth[i]);
    for (int p = 1; p < count; p++) {
        memcpy(x, x0, sizeof x);
        sample(paths[p], x);
        double sum = 0.0;
        for (int i = 0; i < SAMPLES; i++)
            sum += sqrt((pow(x[2 * i] - truth[i][0], 2) + pow(x[2 * i + 1] - truth[i][1], 2)) / 2.0);
        printf("rmse %.5f  %s\n", sum / SAMPLES, paths[p]);
    }
    return 0;
}
