/* What a large batch takes: a published solver keeps its order, a table of a thousand rows is refused.
 *
 *     memory
 */
#include <sys/resource.h>

#include "check.h"

/* Numbers of a batch of 49 MiB. */
enum { NUMBERS = 49 << 18 };

/* Lets the process have `more` bytes of addresses beside what it has. */
static void bound(size_t more) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    struct rlimit limit = {.rlim_cur = pages * 4096 + more, .rlim_max = RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

int main(void) {
    int64_t shape[2] = {1, NUMBERS};
    float *numbers = calloc(NUMBERS, sizeof *numbers), *velocity = calloc(NUMBERS, sizeof *velocity);
    CHECK(numbers != NULL && velocity != NULL);
    DLTensor x = tensor(numbers, shape, 2), u = tensor(velocity, shape, 2);
    numbers[NUMBERS - 1] = 0.5f;
    velocity[NUMBERS - 1] = 2.0f;
    bound((size_t)256 << 20);

    static const char *const names[] = {"euler", "ab2", "dpm++2m", "unipc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bespoke_theta *theta = NULL, *table = NULL;
        bespoke_sampler *sampler = NULL;
        const DLTensor *at = NULL, *state = NULL;
        OK(bespoke_theta_solver(names[i], 1000, "vp", &theta));
        OK(bespoke_theta_compile(theta, &table));
        OK(bespoke_sampler_new(table, NULL, &sampler));
        FAILS(bespoke_sampler_start(sampler, &x), BESPOKE_ERROR_MEMORY, "");
        FAILS(bespoke_sampler_query(sampler, &at, &state), BESPOKE_ERROR_STATE, "");
        bespoke_sampler_free(sampler);
        bespoke_theta_free(table);

        OK(bespoke_sampler_new(theta, NULL, &sampler));
        OK(bespoke_sampler_start(sampler, &x));
        for (int k = 0; k < 3; k++) {
            OK(bespoke_sampler_query(sampler, &at, &state));
            CHECK(at != NULL);
            OK(bespoke_sampler_update(sampler, &u));
        }
        OK(bespoke_sampler_query(sampler, &at, &state));
        CHECK(((const float *)state->data)[0] == 0.0f && ((const float *)state->data)[NUMBERS - 1] != 0.0f);
        bespoke_sampler_free(sampler);
        bespoke_theta_free(theta);
    }
    puts("ok");
    return 0;
}
