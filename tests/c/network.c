/* A network run by the library: a class and a guidance scale for each sample. Without libtorch it is refused; with
 * ONNX Runtime what disagrees with the card is refused when it is opened.
 *
 *     network torch|lean|onnx DIGITS_CARD CARD_OF_ANOTHER_SHAPE
 */
#include <math.h>

#include "check.h"

enum { BATCH = 3, NUMBERS = 64 };

static void conditions(const bespoke_model *model) {
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    float x[BATCH * NUMBERS], u[BATCH * NUMBERS], one[NUMBERS], other[NUMBERS], at[BATCH] = {0.0f, 0.4f, 0.9f};
    int64_t shape[4] = {BATCH, 1, 8, 8}, single[4] = {1, 1, 8, 8}, classes[BATCH] = {7, 0, 3};
    double guidance[BATCH] = {1.0, 2.5, 0.0};
    DLTensor xt = tensor(x, shape, 4), ut = tensor(u, shape, 4), tt = tensor(at, shape, 1);
    bespoke_condition condition = {.struct_size = sizeof condition, .batch = BATCH, .classes = classes};
    for (int i = 0; i < BATCH * NUMBERS; i++) x[i] = sinf(0.7f * (float)i);

    condition.guidance_scale = guidance;
    OK(bespoke_model_velocity(model, &condition, &tt, &xt, &ut));
    for (int row = 0; row < BATCH; row++) {
        DLTensor x1 = tensor(x + row * NUMBERS, single, 4), u1 = tensor(one, single, 4),
                 t1 = tensor(at + row, single, 1);
        /* u = u_uncond + s (u_cond - u_uncond), each from a call of its own. */
        int64_t null_class = 10;
        bespoke_condition own = {.struct_size = sizeof own, .batch = 1, .classes = classes + row};
        OK(bespoke_model_velocity(model, &own, &t1, &x1, &u1));
        u1.data = other;
        own.classes = &null_class;
        OK(bespoke_model_velocity(model, &own, &t1, &x1, &u1));
        float differs = 0.0f;
        for (int i = 0; i < NUMBERS; i++) {
            float expected = other[i] + (float)guidance[row] * (one[i] - other[i]);
            CHECK(fabsf(u[row * NUMBERS + i] - expected) < 1e-4f);
            differs = fmaxf(differs, fabsf(one[i] - other[i]));
        }
        CHECK(differs > 1e-2f);
    }

    FAILS(bespoke_model_velocity(model, NULL, &tt, &xt, &ut), invalid, "");
    classes[1] = 11;
    FAILS(bespoke_model_velocity(model, &condition, &tt, &xt, &ut), invalid, "class is 11");
    classes[1] = 0;
    guidance[2] = NAN;
    FAILS(bespoke_model_velocity(model, &condition, &tt, &xt, &ut), invalid, "guidance_scale is NaN");
    guidance[2] = 0.0;
    condition.batch = 2;
    FAILS(bespoke_model_velocity(model, &condition, &tt, &xt, &ut), invalid, "");
}

/* A condition that is kept says what it said when it was, to any number of evaluations. */
static void kept_conditions(const bespoke_model *model) {
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    float x[2 * NUMBERS], expected[2 * NUMBERS], u[2 * NUMBERS], at[2] = {0.2f, 0.7f};
    int64_t shape[4] = {2, 1, 8, 8}, single[4] = {1, 1, 8, 8}, classes[2] = {4, 9};
    double guidance[2] = {1.5, 1.0};
    DLTensor xt = tensor(x, shape, 4), ut = tensor(u, shape, 4), tt = tensor(at, shape, 1);
    DLTensor x1 = tensor(x, single, 4), u1 = tensor(u, single, 4), t1 = tensor(at, single, 1);
    bespoke_condition condition = {
        .struct_size = sizeof condition, .batch = 2, .classes = classes, .guidance_scale = guidance};
    for (int i = 0; i < 2 * NUMBERS; i++) x[i] = cosf(0.3f * (float)i);
    ut.data = expected;
    OK(bespoke_model_velocity(model, &condition, &tt, &xt, &ut));
    ut.data = u;

    bespoke_kept_condition *kept = NULL, *again = NULL;
    OK(bespoke_condition_keep(&condition, &kept));
    classes[0] = 5;
    guidance[0] = 0.0;
    bespoke_condition use = {.struct_size = sizeof use, .kept = kept};
    for (int i = 0; i < 3; i++) {
        memset(u, 0, sizeof u);
        OK(bespoke_model_velocity(model, &use, &tt, &xt, &ut));
        CHECK(memcmp(u, expected, sizeof u) == 0);
    }
    FAILS(bespoke_model_velocity(model, &use, &t1, &x1, &u1), invalid, "");

    /* What is kept may be kept again; beside it nothing is said. */
    OK(bespoke_condition_keep(&use, &again));
    bespoke_kept_condition_free(kept);
    use.kept = again;
    OK(bespoke_model_velocity(model, &use, &tt, &xt, &ut));
    CHECK(memcmp(u, expected, sizeof u) == 0);
    use.classes = classes;
    FAILS(bespoke_model_velocity(model, &use, &tt, &xt, &ut), invalid, "condition.kept is given beside other members");
    use.classes = NULL;
    use.scale_count = 1;
    FAILS(bespoke_model_velocity(model, &use, &tt, &xt, &ut), invalid, "condition.kept is given beside other members");
    bespoke_kept_condition_free(again);

    kept = (bespoke_kept_condition *)&use;
    condition.struct_size = 3;
    FAILS(bespoke_condition_keep(&condition, &kept), invalid, "bespoke_condition.struct_size is 3");
    CHECK(kept == NULL);
    OK(bespoke_condition_keep(NULL, &kept));
    use = (bespoke_condition){.struct_size = sizeof use, .kept = kept};
    FAILS(bespoke_model_velocity(model, &use, &tt, &xt, &ut), invalid, "");
    bespoke_kept_condition_free(kept);
    bespoke_kept_condition_free(NULL);
    FAILS(bespoke_condition_keep(NULL, NULL), invalid, "out is NULL");
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    bespoke_model *model = NULL;
    if (strcmp(arguments[1], "lean") == 0) {
        FAILS(bespoke_model_open(arguments[2], NULL, &model), BESPOKE_ERROR_UNSUPPORTED, "not supported: ");
        CHECK(model == NULL);
        puts("ok");
        return 0;
    }
    OK(bespoke_model_open(arguments[2], "cpu", &model));
    conditions(model);
    kept_conditions(model);
    bespoke_model_free(model);
    if (strcmp(arguments[1], "onnx") == 0) {
        FAILS(bespoke_model_open(arguments[3], NULL, &model), BESPOKE_ERROR_FORMAT, "");
        CHECK(strstr(bespoke_last_error_message(), "x: is of shape [any, 1, 8, 8] in the graph") != NULL);
        puts("ok");
        return 0;
    }

    /* The card and its network do not belong together: libtorch says so. */
    float x[2] = {1.0f, 2.0f}, u[2], at[1] = {0.5f};
    int64_t shape[2] = {1, 2}, class[1] = {3};
    DLTensor xt = tensor(x, shape, 2), ut = tensor(u, shape, 2), tt = tensor(at, shape, 1);
    bespoke_condition condition = {.struct_size = sizeof condition, .batch = 1, .classes = class};
    OK(bespoke_model_open(arguments[3], NULL, &model));
    FAILS(bespoke_model_velocity(model, &condition, &tt, &xt, &ut), BESPOKE_ERROR_TORCH, "");
    CHECK(bespoke_last_error_message()[0] != '\0');
    bespoke_model_free(model);
    puts("ok");
    return 0;
}
