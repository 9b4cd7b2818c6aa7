/* Training: NULLs, and callbacks that work, fail, write NaN, stop, and call back in.
 *
 *     train CARD
 */
#include <math.h>

#include "check.h"

#define ON_FIELD \
    "{\"field\": {\"shape\": [2]}, \"steps\": 2, \"pool\": 60, \"validation\": 10, \"batch\": 10, \"iterations\": 2"

/* What a field does beside its work. */
struct behaviour {
    int32_t velocity_answer, vjp_answer;
    int velocity_nan, vjp_nan;
    int call_back; /* use other objects of the library from inside */
    int velocities, vjps, reports;
    bespoke_train_progress last;
};

/* The library from inside a callback. */
static void call_back(void) {
    bespoke_theta *theta = NULL;
    bespoke_sampler *sampler = NULL;
    float numbers[2] = {1.0f, 2.0f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2);
    OK(bespoke_theta_solver("euler", 2, "fm-ot", &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_sample(theta, sampler, &x, &x, decay, NULL));
    CHECK(numbers[0] == 0.25f && numbers[1] == 0.5f);
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
}

/* u_t(x) = cos(3 t) - x */
static int32_t velocity(void *user_data, const bespoke_call *call) {
    struct behaviour *own = user_data;
    const DLTensor *t = call->time, *x = call->x;
    DLTensor *u = call->output;
    CHECK(call->struct_size == sizeof *call && call->input_count == 0 && call->inputs == NULL);
    CHECK(call->cotangent == NULL && call->by_x == NULL && call->by_t == NULL);
    CHECK(t->ndim == 1 && x->ndim == 2 && x->shape[1] == 2 && u->shape[0] == t->shape[0]);
    own->velocities++;
    if (own->call_back) call_back();
    for (int64_t i = 0; i < 2 * x->shape[0]; i++)
        ((float *)u->data)[i] = cosf(3.0f * ((const float *)t->data)[i / 2]) - ((const float *)x->data)[i];
    if (own->velocity_nan) ((float *)u->data)[1] = NAN;
    return own->velocity_answer;
}

static int32_t vjp(void *user_data, const bespoke_call *call) {
    struct behaviour *own = user_data;
    const DLTensor *t = call->time, *x = call->x, *w = call->cotangent;
    DLTensor *by_x = call->by_x, *by_t = call->by_t;
    CHECK(call->input_count == 0 && call->output == NULL && by_t->ndim == 1 && by_x->ndim == 2 &&
          x->shape[0] == w->shape[0]);
    own->vjps++;
    if (own->call_back) call_back();
    for (int64_t row = 0; row < x->shape[0]; row++) {
        const float *cotangent = (const float *)w->data + 2 * row;
        for (int i = 0; i < 2; i++) ((float *)by_x->data)[2 * row + i] = -cotangent[i];
        ((float *)by_t->data)[row] = -3.0f * sinf(3.0f * ((const float *)t->data)[row]) * (cotangent[0] + cotangent[1]);
    }
    if (own->vjp_nan) ((float *)by_x->data)[0] = NAN;
    return own->vjp_answer;
}

static int32_t watch(void *user_data, const bespoke_train_progress *progress) {
    struct behaviour *own = user_data;
    CHECK(progress->struct_size == sizeof *progress);
    own->reports++;
    own->last = *progress;
    if (own->call_back) call_back();
    return 0;
}

static int32_t stop(void *user_data, const bespoke_train_progress *progress) {
    CHECK(progress->struct_size == sizeof *progress && progress->iteration == 0 && progress->validated == 1);
    ++*(int *)user_data;
    return 1;
}

static bespoke_train_callbacks callbacks_of(struct behaviour *behaviour, int with_vjp) {
    bespoke_train_callbacks callbacks = {.struct_size = sizeof callbacks,
                                         .user_data = behaviour,
                                         .progress = watch,
                                         .velocity = velocity,
                                         .vjp = with_vjp ? vjp : NULL};
    return callbacks;
}

static void null_pointers(void) {
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    bespoke_theta *theta = (bespoke_theta *)&theta; /* to see it become NULL */
    bespoke_train_callbacks callbacks = {.struct_size = sizeof callbacks};
    FAILS(bespoke_train(NULL, NULL, &theta), invalid, "config_json is NULL");
    CHECK(theta == NULL);
    FAILS(bespoke_train("{}", NULL, NULL), invalid, "out is NULL");
    FAILS(bespoke_train("{}", NULL, &theta), invalid, "model is absent, expected the path of a model card");
    FAILS(bespoke_train("{\"modell\": 1}", NULL, &theta), BESPOKE_ERROR_FORMAT, "config_json: ");
    FAILS(bespoke_train("{\"field\": {\"shape\": [2]}}", NULL, &theta), invalid, "field is there, expected absent");
    FAILS(bespoke_train("{\"field\": {\"shape\": [2]}}", &callbacks, &theta), invalid, "callbacks.velocity is NULL");
}

static void fields(void) {
    bespoke_theta *theta = NULL;
    struct behaviour forward = {.call_back = 1}, both = {.call_back = 1};
    bespoke_train_callbacks callbacks = callbacks_of(&forward, 0);
    OK(bespoke_train(ON_FIELD ", \"loss\": \"rmse-bound\"}", &callbacks, &theta));
    bespoke_theta_free(theta);
    CHECK(forward.velocities > 0 && forward.reports == 3);
    CHECK(forward.last.iteration == 2 && forward.last.forward > 0 && forward.last.backward == 0);
    const double by_differences = forward.last.validation_rmse;
    OK(bespoke_train(ON_FIELD ", \"loss\": \"rmse\"}", &callbacks, &theta));
    bespoke_theta_free(theta);
    CHECK(forward.last.iteration == 2 && forward.last.backward == 0);
    FAILS(bespoke_train(ON_FIELD ", \"optimizer\": \"gauss-newton\"}", &callbacks, &theta), BESPOKE_ERROR_INVALID,
          "optimizer is \"gauss-newton\", expected forward-gauss-newton, or the loss rmse-bound");

    /* With a product, every loss is there, and the bound's takes the same course as by differences. */
    callbacks = callbacks_of(&both, 1);
    OK(bespoke_train(ON_FIELD ", \"loss\": \"rmse-bound\"}", &callbacks, &theta));
    bespoke_theta_free(theta);
    CHECK(both.vjps > 0 && both.last.backward > 0);
    CHECK(fabs(both.last.validation_rmse - by_differences) < 1e-3 * both.last.validation_rmse);
    OK(bespoke_train(ON_FIELD ", \"loss\": \"rmse\"}", &callbacks, &theta));
    bespoke_theta_free(theta);
}

static void failures(void) {
    bespoke_theta *theta = NULL;
    struct behaviour fails = {.velocity_answer = 5}, nan = {.velocity_nan = 1};
    struct behaviour vjp_fails = {.vjp_answer = -6}, vjp_nan = {.vjp_nan = 1};
    bespoke_train_callbacks callbacks = callbacks_of(&fails, 0);
    FAILS(bespoke_train(ON_FIELD "}", &callbacks, &theta), BESPOKE_ERROR_CALLBACK, "the velocity callback answered 5");
    callbacks = callbacks_of(&nan, 0);
    FAILS(bespoke_train(ON_FIELD "}", &callbacks, &theta), BESPOKE_ERROR_NON_FINITE,
          "the velocity of evaluation 0 (t = 0) holds a NaN");
    callbacks = callbacks_of(&vjp_fails, 1);
    FAILS(bespoke_train(ON_FIELD "}", &callbacks, &theta), BESPOKE_ERROR_CALLBACK, "the vjp callback answered -6");
    CHECK(vjp_fails.vjps == 1);
    const char *losses[] = {"rmse-bound", "rmse", "log-mse"};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        char config[512];
        snprintf(config, sizeof config, ON_FIELD ", \"loss\": \"%s\"}", losses[i]);
        callbacks = callbacks_of(&vjp_nan, 1);
        FAILS(bespoke_train(config, &callbacks, &theta), BESPOKE_ERROR_NON_FINITE, "a vector-Jacobian product");
        CHECK(theta == NULL);
    }
}

static void stopping(const char *card) {
    bespoke_theta *theta = NULL;
    char config[8192];
    int stops = 0;
    bespoke_train_callbacks callbacks = {.struct_size = sizeof callbacks, .user_data = &stops, .progress = stop};
    snprintf(config, sizeof config, "{\"model\": \"%s\", \"pool\": 20, \"batch\": 10, \"validation\": 10}", card);
    /* Stopping is no failure. */
    OK(bespoke_train(config, &callbacks, &theta));
    CHECK(theta != NULL && stops == 1);
    bespoke_theta_free(theta);
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    null_pointers();
    fields();
    failures();
    stopping(arguments[1]);
    puts("ok");
    return 0;
}
