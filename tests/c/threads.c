/* Eight threads on one theta, each with a sampler and messages of its own.
 *
 *     threads THETA
 */
#include <pthread.h>

#include "check.h"

enum { THREADS = 8, ROUNDS = 200 };

static bespoke_theta *theta;
static float expected[3];

static void *work(void *number) {
    int own = *(int *)number;
    bespoke_sampler *sampler = NULL;
    int64_t shape[2] = {1, 3};
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    for (int round = 0; round < ROUNDS; round++) {
        float numbers[3] = {1.0f, -2.0f, 3.0f};
        char message[64];
        DLTensor x = tensor(numbers, shape, 2);
        OK(bespoke_sample(theta, sampler, &x, &x, decay, NULL));
        CHECK(memcmp(numbers, expected, sizeof numbers) == 0);
        snprintf(message, sizeof message, "step is %d, expected", 1000 + own);
        FAILS(bespoke_step(theta, sampler, (uint32_t)(1000 + own), &x, decay, NULL), BESPOKE_ERROR_INVALID, message);
    }
    bespoke_sampler_free(sampler);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    bespoke_sampler *sampler = NULL;
    int64_t shape[2] = {1, 3};
    float start[3] = {1.0f, -2.0f, 3.0f};
    DLTensor x0 = tensor(start, shape, 2), x1 = tensor(expected, shape, 2);
    OK(bespoke_load_theta(arguments[1], &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_sample(theta, sampler, &x0, &x1, decay, NULL));
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
    puts("ok");
    return 0;
}
