/* Structs of other versions: what an older, smaller one lacks is the default and its memory is not
 * touched; of a later one's further members, those given must be zero and those asked for become so.
 *
 *     versions RK2_THETA CARD
 */
#include <stddef.h>

#include "check.h"

/* Ends a struct before `member`: all behind it is garbage, as it may be in an older program. */
#define OLDER(variable, member)                                                                \
    do {                                                                                       \
        memset(&(variable).member, 0x55,                                                       \
               sizeof(variable) - (size_t)((char *)&(variable).member - (char *)&(variable))); \
        (variable).struct_size = (uint32_t)((char *)&(variable).member - (char *)&(variable)); \
    } while (0)

/* Whether all of `variable` from `member` on is as OLDER left it. */
#define UNTOUCHED(variable, member) \
    all_garbage((const unsigned char *)&(variable).member, (const unsigned char *)(&(variable) + 1))

static int all_garbage(const unsigned char *from, const unsigned char *end) {
    while (from < end)
        if (*from++ != 0x55) return 0;
    return 1;
}

static bespoke_theta *theta;
static bespoke_sampler *sampler;
static bespoke_model *model;

static void written_structs(void) {
    bespoke_theta_properties properties;
    OLDER(properties, kept_registers);
    OK(bespoke_theta_info(theta, &properties));
    CHECK(properties.steps == 2 && properties.nfe == 4 && UNTOUCHED(properties, kept_registers));
    for (uint32_t size = 0; size < sizeof properties; size++) {
        properties.struct_size = size;
        int at_a_member = size >= 4 && (size <= 16 ? size % 4 == 0 : size % 8 == 0);
        if (at_a_member)
            OK(bespoke_theta_info(theta, &properties));
        else
            FAILS(bespoke_theta_info(theta, &properties), BESPOKE_ERROR_INVALID,
                  "bespoke_theta_properties.struct_size is ");
    }
    properties.struct_size = sizeof properties;
    OK(bespoke_theta_info(theta, &properties));
    CHECK(properties.kept_registers == 0 && strcmp(properties.family, "rk2") == 0);
    CHECK(strcmp(properties.model, "{}") == 0 && strcmp(properties.training, "{}") == 0);

    bespoke_stage stage;
    OLDER(stage, next);
    OK(bespoke_theta_stage(theta, 1, &stage));
    CHECK(stage.ends_step == 1 && stage.self_contained == 0 && stage.t == 0.25 && UNTOUCHED(stage, next));

    bespoke_model_properties info;
    OLDER(info, data_low);
    OK(bespoke_model_info(model, &info));
    CHECK(info.ndim == 1 && info.shape[0] == 2 && info.null_class == -1 && UNTOUCHED(info, data_low));

    float numbers[2] = {1.0f, 2.0f};
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2);
    bespoke_row row;
    OK(bespoke_sampler_start(sampler, &x));
    OLDER(row, failed);
    OK(bespoke_sampler_row(sampler, 0, &row));
    CHECK(row.evaluations == 0 && row.nfe == 4 && UNTOUCHED(row, failed));

    struct {
        bespoke_theta_properties known;
        uint64_t unknown;
    } later = {{.struct_size = sizeof later}, 7};
    OK(bespoke_theta_info(theta, &later.known));
    CHECK(later.known.nfe == 4 && later.unknown == 0 && later.known.struct_size == sizeof later);
}

static int32_t field(void *user_data, const bespoke_call *call) {
    (void)user_data;
    return decay(NULL, call->time, call->x, call->output);
}

static void read_structs(void) {
    bespoke_sampler_options options;
    bespoke_sampler *made = NULL;
    OLDER(options, threads);
    OK(bespoke_sampler_new(theta, &options, &made));
    bespoke_sampler_free(made);
    /* As it was in 0.1. */
    OLDER(options, device_ops);
    options.threads = 1;
    OK(bespoke_sampler_new(theta, &options, &made));
    bespoke_sampler_free(made);

    float numbers[2] = {0.5f, 0.25f}, time[1] = {0.5f}, plain[2], velocity[2];
    int64_t shape[2] = {1, 2};
    DLTensor x = tensor(numbers, shape, 2), t = tensor(time, shape, 1), u = tensor(plain, shape, 2);
    OK(bespoke_model_velocity(model, NULL, &t, &x, &u));
    u.data = velocity;
    bespoke_condition condition = {.batch = 1};
    OLDER(condition, classes);
    OK(bespoke_model_velocity(model, &condition, &t, &x, &u));
    CHECK(memcmp(plain, velocity, sizeof plain) == 0);
    OLDER(condition, batch);
    OK(bespoke_model_velocity(model, &condition, &t, &x, &u));
    bespoke_model_binding binding = {.model = model};
    OLDER(binding, condition);
    memset(velocity, 0, sizeof velocity);
    CHECK(bespoke_model_field(&binding, &t, &x, &u) == BESPOKE_OK);
    CHECK(memcmp(plain, velocity, sizeof plain) == 0);

    bespoke_train_callbacks callbacks = {.velocity = field};
    bespoke_theta *trained = NULL;
    OLDER(callbacks, vjp);
    OK(
        bespoke_train("{\"field\": {\"shape\": [2]}, \"steps\": 2, \"pool\": 20, \"validation\": 10, \"batch\": 10, "
                      "\"iterations\": 1}",
                      &callbacks, &trained));
    bespoke_theta_free(trained);
    OLDER(callbacks, velocity);
    FAILS(bespoke_train("{\"field\": {\"shape\": [2]}}", &callbacks, &trained), BESPOKE_ERROR_INVALID,
          "callbacks.velocity is NULL");

    /* Of a later version, first without and then with something set that this one does not know. */
    struct {
        bespoke_sampler_options known;
        uint32_t unknown[2];
    } later = {{.struct_size = sizeof later}, {0, 0}};
    OK(bespoke_sampler_new(theta, &later.known, &made));
    bespoke_sampler_free(made);
    later.unknown[1] = 1;
    FAILS(bespoke_sampler_new(theta, &later.known, &made), BESPOKE_ERROR_UNSUPPORTED,
          "not supported: bespoke_sampler_options has members");
    CHECK(made == NULL);

    /* A size that none ever had, of each. */
    options.struct_size = 6;
    FAILS(bespoke_sampler_new(theta, &options, &made), BESPOKE_ERROR_INVALID,
          "bespoke_sampler_options.struct_size is 6");
    condition.struct_size = 0;
    FAILS(bespoke_model_velocity(model, &condition, &t, &x, &u), BESPOKE_ERROR_INVALID,
          "bespoke_condition.struct_size is 0");
    binding.struct_size = 12;
    FAILS(bespoke_model_field(&binding, &t, &x, &u), BESPOKE_ERROR_INVALID, "bespoke_model_binding.struct_size is 12");
    callbacks.struct_size = 20;
    FAILS(bespoke_train("{}", &callbacks, &trained), BESPOKE_ERROR_INVALID,
          "bespoke_train_callbacks.struct_size is 20");
    bespoke_stage stage = {.struct_size = 3};
    FAILS(bespoke_theta_stage(theta, 0, &stage), BESPOKE_ERROR_INVALID, "bespoke_stage.struct_size is 3");
    bespoke_row row = {.struct_size = 10};
    FAILS(bespoke_sampler_row(sampler, 0, &row), BESPOKE_ERROR_INVALID, "bespoke_row.struct_size is 10");
    bespoke_model_properties info = {.struct_size = 12};
    FAILS(bespoke_model_info(model, &info), BESPOKE_ERROR_INVALID, "bespoke_model_properties.struct_size is 12");
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    OK(bespoke_load_theta(arguments[1], &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_model_open(arguments[2], NULL, &model));
    written_structs();
    read_structs();
    bespoke_model_free(model);
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
    puts("ok");
    return 0;
}
