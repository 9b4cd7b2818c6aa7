/* A host that forks once the library has threads: its child computes what it computed itself.
 *
 *     fork THETA CARD
 */
#define _POSIX_C_SOURCE 200809L
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Seconds after which a child that waits for threads that it does not have is ended. */
enum { PATIENCE = 240 };
/* So many that every operation on them is shared among threads. */
enum { ROWS = 1 << 15, NUMBERS = 2 * ROWS };

static bespoke_theta *theta;
static bespoke_sampler *sampler;
static bespoke_model *model;
static float here[NUMBERS], there[NUMBERS];

/* Samples of the model from `x`, which always begins as the same. */
static void solve(float *x) {
    int64_t shape[2] = {ROWS, 2};
    for (int i = 0; i < NUMBERS; i++) x[i] = (float)(i % 7) - 3.0f;
    DLTensor state = tensor(x, shape, 2);
    bespoke_model_binding binding;
    memset(&binding, 0, sizeof binding);
    binding.struct_size = sizeof binding;
    binding.model = model;
    OK(bespoke_sample(theta, sampler, &state, &state, bespoke_model_field, &binding));
}

static void in_child(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(PATIENCE);
        solve(there);
        CHECK(memcmp(here, there, sizeof here) == 0);
        /* Twice, with the threads that the child has by now; and then none is waited for in vain. */
        solve(there);
        CHECK(memcmp(here, there, sizeof here) == 0);
        bespoke_sampler_free(sampler);
        bespoke_model_free(model);
        bespoke_theta_free(theta);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    bespoke_sampler_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.threads = 3;
    OK(bespoke_load_theta(arguments[1], &theta));
    OK(bespoke_sampler_new(theta, &options, &sampler));
    OK(bespoke_model_open(arguments[2], "cpu", &model));
    solve(here);
    in_child();
    /* The parent's threads are still its own, for it and for a second child. */
    solve(there);
    CHECK(memcmp(here, there, sizeof here) == 0);
    in_child();
    bespoke_sampler_free(sampler);
    bespoke_model_free(model);
    bespoke_theta_free(theta);
    puts("ok");
    return 0;
}
