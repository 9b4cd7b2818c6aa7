/* Every function of the header: NULL for each pointer, every status, callbacks that misbehave,
 * models. Structs of other versions: versions.c; training: train.c; solvers and ladders: solver.c.
 *
 *     abi RK2_THETA NS_THETA CARD FOLDER
 */
#include <math.h>

#include "check.h"

static const char *rk2_path, *ns_path, *card_path, *folder;

static void null_pointers(bespoke_theta *theta, bespoke_sampler *sampler, bespoke_model *model) {
    float numbers[2] = {1.0f, 2.0f}, time[1] = {0.5f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2), t = tensor(time, shape, 1), u = tensor(numbers, shape, 2);
    const DLTensor *asked_t, *asked_x;
    bespoke_theta *no_theta = theta;
    bespoke_sampler *no_sampler = sampler;
    bespoke_model *no_model = model;
    bespoke_theta_properties properties = {.struct_size = sizeof properties};
    bespoke_model_properties model_properties = {.struct_size = sizeof model_properties};
    bespoke_stage stage = {.struct_size = sizeof stage};
    bespoke_row row = {.struct_size = sizeof row};
    bespoke_model_binding binding = {.struct_size = sizeof binding};
    uint32_t batch;
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;

    FAILS(bespoke_load_theta(NULL, &no_theta), invalid, "path is NULL, expected a pointer");
    CHECK(no_theta == NULL);
    FAILS(bespoke_load_theta(rk2_path, NULL), invalid, "out is NULL");
    FAILS(bespoke_theta_save(NULL, folder), invalid, "theta is NULL");
    FAILS(bespoke_theta_save(theta, NULL), invalid, "path is NULL");
    FAILS(bespoke_theta_info(NULL, &properties), invalid, "theta is NULL");
    FAILS(bespoke_theta_info(theta, NULL), invalid, "properties is NULL");
    FAILS(bespoke_theta_stage(NULL, 0, &stage), invalid, "theta is NULL");
    FAILS(bespoke_theta_stage(theta, 0, NULL), invalid, "stage is NULL");
    bespoke_theta_free(NULL);

    FAILS(bespoke_sampler_new(NULL, NULL, &no_sampler), invalid, "theta is NULL");
    CHECK(no_sampler == NULL);
    FAILS(bespoke_sampler_new(theta, NULL, NULL), invalid, "out is NULL");
    FAILS(bespoke_step(NULL, sampler, 0, &x, decay, NULL), invalid, "theta is NULL");
    FAILS(bespoke_step(theta, NULL, 0, &x, decay, NULL), invalid, "sampler is NULL");
    FAILS(bespoke_step(theta, sampler, 0, NULL, decay, NULL), invalid, "x is NULL");
    FAILS(bespoke_step(theta, sampler, 0, &x, NULL, NULL), invalid, "velocity is NULL, expected a function");
    FAILS(bespoke_sample(NULL, sampler, &x, &x, decay, NULL), invalid, "theta is NULL");
    FAILS(bespoke_sample(theta, NULL, &x, &x, decay, NULL), invalid, "sampler is NULL");
    FAILS(bespoke_sample(theta, sampler, NULL, &x, decay, NULL), invalid, "x0 is NULL");
    FAILS(bespoke_sample(theta, sampler, &x, NULL, decay, NULL), invalid, "x1 is NULL");
    FAILS(bespoke_sample(theta, sampler, &x, &x, NULL, NULL), invalid, "velocity is NULL");
    FAILS(bespoke_sampler_start(NULL, &x), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_start(sampler, NULL), invalid, "x0 is NULL");
    OK(bespoke_sampler_start(sampler, &x));
    FAILS(bespoke_sampler_query(NULL, &asked_t, &asked_x), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_query(sampler, NULL, &asked_x), invalid, "t is NULL");
    FAILS(bespoke_sampler_query(sampler, &asked_t, NULL), invalid, "x is NULL");
    FAILS(bespoke_sampler_update(NULL, &u), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_update(sampler, NULL), invalid, "u is NULL");
    FAILS(bespoke_sampler_finish(NULL, &x), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_finish(sampler, NULL), invalid, "x is NULL");
    FAILS(bespoke_sampler_join(NULL, theta, &x), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_join(sampler, NULL, NULL), invalid, "x0 is NULL");
    FAILS(bespoke_sampler_leave(NULL, 0, &x), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_leave(sampler, 1, &x), invalid, "row is 1, expected less than 1");
    FAILS(bespoke_sampler_row(NULL, 0, &row), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_row(sampler, 0, NULL), invalid, "progress is NULL");
    FAILS(bespoke_sampler_row(sampler, 9, &row), invalid, "row is 9");
    FAILS(bespoke_sampler_batch(NULL, &batch), invalid, "sampler is NULL");
    FAILS(bespoke_sampler_batch(sampler, NULL), invalid, "batch is NULL");
    bespoke_sampler_free(NULL);

    FAILS(bespoke_model_open(NULL, NULL, &no_model), invalid, "path is NULL");
    CHECK(no_model == NULL);
    FAILS(bespoke_model_open(card_path, NULL, NULL), invalid, "out is NULL");
    FAILS(bespoke_model_info(NULL, &model_properties), invalid, "model is NULL");
    FAILS(bespoke_model_info(model, NULL), invalid, "properties is NULL");
    FAILS(bespoke_model_velocity(NULL, NULL, &t, &x, &u), invalid, "model is NULL");
    FAILS(bespoke_model_velocity(model, NULL, NULL, &x, &u), invalid, "t is NULL");
    FAILS(bespoke_model_velocity(model, NULL, &t, NULL, &u), invalid, "x is NULL");
    FAILS(bespoke_model_velocity(model, NULL, &t, &x, NULL), invalid, "u is NULL");
    FAILS(bespoke_model_field(NULL, &t, &x, &u), invalid, "user_data is NULL");
    FAILS(bespoke_model_field(&binding, &t, &x, &u), invalid, "binding.model is NULL");
    binding.model = model;
    FAILS(bespoke_model_field(&binding, NULL, &x, &u), invalid, "t is NULL");
    FAILS(bespoke_model_field(&binding, &t, NULL, &u), invalid, "x is NULL");
    FAILS(bespoke_model_field(&binding, &t, &x, NULL), invalid, "u is NULL");
    bespoke_model_free(NULL);
}

struct behaviour {
    int call;       /* the call that misbehaves, from 0 */
    int32_t answer; /* what it answers */
    int nan;        /* whether it writes NaN */
    bespoke_theta *theta;
    bespoke_sampler *sampler; /* called back into, where there is one */
};

static int32_t misbehave(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    struct behaviour *own = user_data;
    decay(NULL, t, x, u);
    if (own->call-- != 0) return 0;
    if (own->nan) ((float *)u->data)[0] = NAN;
    if (own->sampler != NULL) {
        DLTensor again = *u;
        return bespoke_step(own->theta, own->sampler, 0, &again, decay, NULL);
    }
    return own->answer;
}

static void callbacks(bespoke_theta *theta, bespoke_sampler *sampler) {
    float numbers[2] = {1.0f, 2.0f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2);
    struct behaviour fails = {.call = 1, .answer = -3};
    FAILS(bespoke_step(theta, sampler, 0, &x, misbehave, &fails), BESPOKE_ERROR_CALLBACK,
          "the velocity callback answered -3");
#ifndef ON_DEVICE
    struct behaviour nan = {.call = 1, .nan = 1};
    FAILS(bespoke_step(theta, sampler, 1, &x, misbehave, &nan), BESPOKE_ERROR_NON_FINITE,
          "the velocity of evaluation 3 (t = 0.75)");
    nan.call = 0;
    FAILS(bespoke_sample(theta, sampler, &x, &x, misbehave, &nan), BESPOKE_ERROR_NON_FINITE,
          "the velocity of evaluation 0 (t = 0)");
#endif
    struct behaviour back = {.call = 0, .theta = theta, .sampler = sampler};
    FAILS(bespoke_step(theta, sampler, 0, &x, misbehave, &back), BESPOKE_ERROR_CALLBACK,
          "the velocity callback answered 7: the sampler is at work");
    CHECK(numbers[0] == 1.0f && numbers[1] == 2.0f);
    /* Another sampler may be used from inside a callback. */
    bespoke_sampler *other = NULL;
    OK(bespoke_sampler_new(theta, NULL, &other));
    struct behaviour nested = {.call = 0, .theta = theta, .sampler = other};
    OK(bespoke_step(theta, sampler, 0, &x, misbehave, &nested));
    bespoke_sampler_free(other);
    /* And the first one is still good. */
    OK(bespoke_sample(theta, sampler, &x, &x, decay, NULL));
}

static void write_file(const char *name, const char *text, char *path, size_t size) {
    snprintf(path, size, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void statuses(bespoke_theta *theta, bespoke_sampler *sampler) {
    char path[4096];
    bespoke_theta *out = theta;
    float numbers[2] = {1.0f, 2.0f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2);

    write_file("broken.json", "{\"format\": \"bespoke-theta\", \"version\": 2", path, sizeof path);
    FAILS(bespoke_load_theta(path, &out), BESPOKE_ERROR_FORMAT, path);
    CHECK(out == NULL);
    FAILS(bespoke_load_theta("/does/not/exist.json", &out), BESPOKE_ERROR_IO, "cannot read /does/not/exist.json: ");
    FAILS(bespoke_theta_save(theta, "/does/not/exist.json"), BESPOKE_ERROR_IO, "cannot write /does/not/exist.json: ");
    FAILS(bespoke_load_theta("\xff.json", &out), BESPOKE_ERROR_IO, "cannot read ");
    FAILS(bespoke_step(theta, sampler, 99, &x, decay, NULL), BESPOKE_ERROR_INVALID, "step is 99, expected 0 to 1");
    bespoke_stage stage = {.struct_size = sizeof stage};
    FAILS(bespoke_theta_stage(theta, 4, &stage), BESPOKE_ERROR_INVALID, "k is 4, expected 0 to 3");
    OK(bespoke_sampler_start(sampler, &x));
    FAILS(bespoke_sampler_update(sampler, &x), BESPOKE_ERROR_STATE, "an update without a query before it");
    FAILS(bespoke_sampler_finish(sampler, &x), BESPOKE_ERROR_STATE, "");

#ifndef ON_DEVICE
    /* More than any machine has, and read from one number. The sampler is good afterwards. */
    int64_t huge_shape[2] = {1, (int64_t)1 << 46}, no_strides[2] = {0, 0};
    DLTensor huge = tensor(numbers, huge_shape, 2);
    huge.strides = no_strides;
    FAILS(bespoke_sampler_start(sampler, &huge), BESPOKE_ERROR_MEMORY, "");
    FAILS(bespoke_sampler_update(sampler, &x), BESPOKE_ERROR_STATE, "the sampler holds no samples");
#endif
    OK(bespoke_sampler_start(sampler, &x));
    OK(bespoke_sampler_leave(sampler, 0, NULL));
    uint32_t batch = 9;
    OK(bespoke_sampler_batch(sampler, &batch));
    CHECK(batch == 0);
    bespoke_model *model = NULL;
    FAILS(bespoke_model_open(card_path, "tpu", &model), BESPOKE_ERROR_INVALID, "device is \"tpu\"");
}

static void model_queries(bespoke_model *model) {
    bespoke_model_properties info = {.struct_size = sizeof info};
    OK(bespoke_model_info(model, &info));
    CHECK(info.ndim == 1 && info.shape[0] == 2 && info.classes == 0 && info.null_class == -1);
    CHECK(info.data_low == -2.5 && info.data_high == 2.5 && info.initial_scale == 1.0);
    CHECK(strcmp(info.name, "ring") == 0 && strstr(info.card, "\"runtime\":\"mixture\"") != NULL);

    float x[4] = {0.5f, 0.25f, -1.0f, 0.75f}, u[4], at[2] = {0.25f, 0.5f}, one[2];
    int64_t shape[2] = {2, 2}, single[2] = {1, 2};
    DLTensor xt = tensor(x, shape, 2), ut = tensor(u, shape, 2), tt = tensor(at, shape, 1);
    OK(bespoke_model_velocity(model, NULL, &tt, &xt, &ut));
    for (int i = 0; i < 2; i++) {
        DLTensor x1 = tensor(x + 2 * i, single, 2), u1 = tensor(one, single, 2), t1 = tensor(at + i, single, 1);
        OK(bespoke_model_velocity(model, NULL, &t1, &x1, &u1));
        CHECK(one[0] == u[2 * i] && one[1] == u[2 * i + 1]);
    }
    int64_t classes[2] = {0, 1};
    bespoke_condition condition = {.struct_size = sizeof condition, .batch = 2, .classes = classes};
    FAILS(bespoke_model_velocity(model, &condition, &tt, &xt, &ut), BESPOKE_ERROR_INVALID, "class is 0, expected none");
    at[1] = 1.5f;
    FAILS(bespoke_model_velocity(model, NULL, &tt, &xt, &ut), BESPOKE_ERROR_INVALID,
          "t is 1.5, expected times in [0, 1]");
    at[1] = 0.5f;
    FAILS(bespoke_model_velocity(model, NULL, &xt, &xt, &ut), BESPOKE_ERROR_INVALID, "t.shape is [2, 2], expected [2]");

    /* As the field of a solve: the same as driving it by hand. */
    bespoke_theta *theta = NULL;
    bespoke_sampler *sampler = NULL;
    float by_hand[4], by_field[4];
    const DLTensor *t_asked, *x_asked;
    OK(bespoke_load_theta(ns_path, &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_sampler_start(sampler, &xt));
    for (;;) {
        OK(bespoke_sampler_query(sampler, &t_asked, &x_asked));
        if (t_asked == NULL) break;
        OK(bespoke_model_velocity(model, NULL, t_asked, x_asked, &ut));
        OK(bespoke_sampler_update(sampler, &ut));
    }
    DLTensor hand = tensor(by_hand, shape, 2), field = tensor(by_field, shape, 2);
    OK(bespoke_sampler_finish(sampler, &hand));
    bespoke_model_binding binding = {.struct_size = sizeof binding, .model = model};
    OK(bespoke_sample(theta, sampler, &xt, &field, bespoke_model_field, &binding));
    CHECK(memcmp(by_hand, by_field, sizeof by_hand) == 0);
    condition.batch = 1;
    binding.condition = &condition;
    FAILS(bespoke_sample(theta, sampler, &xt, &field, bespoke_model_field, &binding), BESPOKE_ERROR_CALLBACK,
          "the velocity callback answered 1: class is 0");
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    rk2_path = arguments[1];
    ns_path = arguments[2];
    card_path = arguments[3];
    folder = arguments[4];
    CHECK(strcmp(bespoke_last_error_message(), "") == 0);
    CHECK(strcmp(bespoke_status_name(BESPOKE_OK), "BESPOKE_OK") == 0);
    CHECK(strcmp(bespoke_status_name(BESPOKE_ERROR_ONNX), "BESPOKE_ERROR_ONNX") == 0);
    CHECK(strcmp(bespoke_status_name(-1), "unknown") == 0 && strcmp(bespoke_status_name(13), "unknown") == 0);
    CHECK(bespoke_version()[0] >= '0' && bespoke_version()[0] <= '9');

    bespoke_theta *theta = NULL;
    bespoke_sampler *sampler = NULL;
    bespoke_model *model = NULL;
    OK(bespoke_load_theta(rk2_path, &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_model_open(card_path, NULL, &model));
    null_pointers(theta, sampler, model);
    callbacks(theta, sampler);
    statuses(theta, sampler);
    model_queries(model);
    /* A sampler outlives the theta it was made for. */
    float numbers[2] = {1.0f, 2.0f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2);
    bespoke_theta_free(theta);
    OK(bespoke_sampler_start(sampler, &x));
    bespoke_sampler_free(sampler);
    bespoke_model_free(model);
    puts("ok");
    return 0;
}
