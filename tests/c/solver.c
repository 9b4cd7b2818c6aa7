/* Published solvers and ladders behind the theta handle.
 *
 *     solver RK2_THETA LADDER
 *
 * The ladder has nfe 4 and 8; RK2_THETA is the identity, midpoint with nfe 4.
 */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif
#include <math.h>

#include "check.h"
#include "fake_device.h"

/* u_t(x) = cos(3 t) - x: depends on the time. `user_data` is the device that the tensors are on, if any. */
static int32_t field(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    fake_device *device = user_data;
    if (device != NULL) fake_open(device, 1);
    for (int64_t row = 0; row < x->shape[0]; row++)
        for (int64_t i = 2 * row; i < 2 * row + 2; i++)
            ((float *)u->data)[i] = cosf(3.0f * ((const float *)t->data)[row]) - ((const float *)x->data)[i];
    if (device != NULL) fake_open(device, -1);
    return 0;
}

/* The same by samples that stay on a device, whose memory is closed to this program. */
static void same_on_a_device(const bespoke_theta *theta, const float *end) {
    fake_device device = {0};
    bespoke_device_ops ops = fake_ops(&device);
    bespoke_sampler_options options = {.struct_size = sizeof options, .device_ops = &ops};
    bespoke_sampler *sampler = NULL;
    int64_t shape[2] = {1, 2};
    void *memory = NULL;
    const float start[2] = {0.5f, -1.0f};
    CHECK(fake_allocate(&device, sizeof start, &memory) == 0);
    fake_open(&device, 1);
    memcpy(memory, start, sizeof start);
    fake_open(&device, -1);
    DLTensor x = tensor(memory, shape, 2);
    x.device = ops.device;
    OK(bespoke_sampler_new(theta, &options, &sampler));
    OK(bespoke_sample(theta, sampler, &x, &x, field, &device));
    fake_open(&device, 1);
    CHECK(memcmp(memory, end, sizeof start) == 0);
    fake_open(&device, -1);
    bespoke_sampler_free(sampler);
    CHECK(fake_release(&device, memory) == 0 && fake_held(&device) == 0);
}

/* x(1) of the theta from (0.5, -1), wherever the samples are. */
static void solve(const bespoke_theta *theta, float *x) {
    int64_t shape[2] = {1, 2};
    DLTensor tensor_x = tensor(x, shape, 2);
    bespoke_sampler *sampler = NULL;
    x[0] = 0.5f;
    x[1] = -1.0f;
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_sample(theta, sampler, &tensor_x, &tensor_x, field, NULL));
    bespoke_sampler_free(sampler);
    same_on_a_device(theta, x);
}

static uint32_t nfe_of(const bespoke_theta *theta) {
    bespoke_theta_properties info = {.struct_size = sizeof info};
    OK(bespoke_theta_info(theta, &info));
    return info.nfe;
}

static void distance(const char *a, uint32_t nfe_a, const char *scheduler_a, const char *b, uint32_t nfe_b,
                     const char *scheduler_b, float low, float high) {
    bespoke_theta *first = NULL, *second = NULL;
    float x[2], y[2];
    OK(bespoke_theta_solver(a, nfe_a, scheduler_a, &first));
    OK(bespoke_theta_solver(b, nfe_b, scheduler_b, &second));
    CHECK(nfe_of(first) == nfe_a && nfe_of(second) == nfe_b);
    solve(first, x);
    solve(second, y);
    CHECK(fabsf(x[0] - y[0]) >= low && fabsf(x[0] - y[0]) <= high);
    bespoke_theta_free(first);
    bespoke_theta_free(second);
}

static void solvers(const char *rk2_path) {
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    bespoke_theta *theta = NULL, *file = NULL;
    float x[2], y[2];
    OK(bespoke_load_theta(rk2_path, &file));
    OK(bespoke_theta_solver("midpoint", 4, "fm-ot", &theta));
    solve(file, x);
    solve(theta, y);
    CHECK(fabsf(x[0] - y[0]) < 1e-6f && fabsf(x[1] - y[1]) < 1e-6f);
    bespoke_theta_properties info = {.struct_size = sizeof info};
    OK(bespoke_theta_info(theta, &info));
    CHECK(strcmp(info.family, "published") == 0 && strstr(info.training, "\"midpoint@4\"") != NULL);
    CHECK(info.document == NULL && info.kept_registers == 0 && info.bytes > 0);
    bespoke_theta *table = NULL;
    OK(bespoke_theta_compile(theta, &table));
    solve(table, y);
    CHECK(fabsf(x[0] - y[0]) < 1e-6f && fabsf(x[1] - y[1]) < 1e-6f);
    OK(bespoke_theta_info(table, &info));
    CHECK(strcmp(info.family, "ns") == 0 && strstr(info.document, "\"midpoint@4\"") != NULL);
    bespoke_theta_free(table);
    FAILS(bespoke_theta_compile(NULL, &table), invalid, "theta is NULL");
    CHECK(table == NULL);
    FAILS(bespoke_theta_compile(theta, NULL), invalid, "out is NULL");
    bespoke_theta_free(theta);
    bespoke_theta_free(file);

    /* DDIM on FM-OT is Euler; the scheduler, its constants, its end and the grid matter to others. */
    distance("ddim", 6, "fm-ot", "euler", 6, "fm-ot", 0.0f, 1e-5f);
    distance("ddim", 6, "{\"name\": \"fm-ot\"}", "ddim", 6, "fm-ot", 0.0f, 0.0f);
    distance("ddim", 6, "vp", "ddim", 6, "cosine", 1e-4f, 1.0f);
    distance("ddim", 6, "vp", "ddim", 6, "{\"name\": \"vp\", \"beta_max\": 12}", 1e-4f, 1.0f);
    distance("ddim", 6, "vp", "ddim", 6, "{\"name\": \"vp\", \"end\": 0.9}", 1e-4f, 1.0f);
    distance("euler", 4, "fm-ot", "euler:quadratic", 4, "fm-ot", 1e-4f, 1.0f);
    distance("euler:0,0.25,0.5,0.75,1", 4, "fm-ot", "euler", 4, "fm-ot", 0.0f, 1e-6f);

    theta = file; /* anything but NULL, to see it become NULL */
    FAILS(bespoke_theta_solver(NULL, 4, "fm-ot", &theta), invalid, "name is NULL");
    CHECK(theta == NULL);
    FAILS(bespoke_theta_solver("euler", 4, NULL, &theta), invalid, "scheduler is NULL");
    FAILS(bespoke_theta_solver("euler", 4, "fm-ot", NULL), invalid, "out is NULL");
    FAILS(bespoke_theta_solver("eular", 4, "fm-ot", &theta), invalid,
          "solver is \"eular\", expected a theta or ladder file, ");
    FAILS(bespoke_theta_solver("euler@4", 4, "fm-ot", &theta), invalid, "name is \"euler@4\"");
    FAILS(bespoke_theta_solver("rk4", 10, "fm-ot", &theta), invalid, "nfe is 10, expected a multiple of 4");
    FAILS(bespoke_theta_solver("euler", 0, "fm-ot", &theta), invalid, "nfe is 0");
    FAILS(bespoke_theta_solver("midpoint", 2002, "fm-ot", &theta), invalid,
          "nfe is 2002, expected a multiple of 2 from 2 to 2000");
    FAILS(bespoke_theta_solver("euler:fine", 4, "fm-ot", &theta), invalid, "grid is \"fine\"");
    FAILS(bespoke_theta_solver("euler:0,1", 4, "fm-ot", &theta), invalid, "grid is ");
    FAILS(bespoke_theta_solver("euler", 4, "fm", &theta), invalid, "scheduler is \"fm\", expected fm-ot, ");
    FAILS(bespoke_theta_solver("euler", 4, "{\"name\": ", &theta), invalid, "scheduler is ");
    FAILS(bespoke_theta_solver("euler", 4, "{\"name\": \"vp\", \"sigma_min\": 1}", &theta), invalid, "scheduler is ");
    FAILS(bespoke_theta_solver("euler", 4, "{\"name\": \"vp\", \"end\": 2}", &theta), invalid, "end is 2");
    FAILS(bespoke_theta_solver("euler", 4, "{\"name\": \"vp\", \"end\": \"1\"}", &theta), invalid, "end is ");
    CHECK(theta == NULL);
}

static void ladders(const char *rk2_path, const char *ladder_path) {
    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    bespoke_ladder *ladder = NULL;
    bespoke_theta *theta = NULL, *kept = NULL;
    const uint32_t asked[] = {4, 7, 8, 1000, UINT32_MAX}, given[] = {4, 4, 8, 8, 8};
    OK(bespoke_ladder_load(ladder_path, &ladder));
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        OK(bespoke_ladder_theta(ladder, asked[i], &theta));
        CHECK(nfe_of(theta) == given[i]);
        bespoke_theta_free(theta);
    }
    FAILS(bespoke_ladder_theta(ladder, 3, &theta), invalid, "nfe_at_most is 3, expected at least 4");
    CHECK(theta == NULL);
    FAILS(bespoke_ladder_theta(NULL, 8, &theta), invalid, "ladder is NULL");
    FAILS(bespoke_ladder_theta(ladder, 8, NULL), invalid, "out is NULL");
    FAILS(bespoke_load_theta(ladder_path, &theta), BESPOKE_ERROR_FORMAT, ladder_path);
    /* A theta outlives its ladder. */
    OK(bespoke_ladder_theta(ladder, 8, &kept));
    bespoke_ladder_free(ladder);
    float x[2];
    solve(kept, x);
    CHECK(isfinite(x[0]) && isfinite(x[1]));
    bespoke_theta_free(kept);

    OK(bespoke_ladder_load(rk2_path, &ladder));
    OK(bespoke_ladder_theta(ladder, 100, &theta));
    CHECK(nfe_of(theta) == 4);
    bespoke_theta_free(theta);
    bespoke_ladder_free(ladder);

    FAILS(bespoke_ladder_load(NULL, &ladder), invalid, "path is NULL");
    CHECK(ladder == NULL);
    FAILS(bespoke_ladder_load(ladder_path, NULL), invalid, "out is NULL");
    FAILS(bespoke_ladder_load("/does/not/exist.json", &ladder), BESPOKE_ERROR_IO, "cannot read /does/not/exist.json: ");
    bespoke_ladder_free(NULL);
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    solvers(arguments[1]);
    ladders(arguments[1], arguments[2]);
    puts("ok");
    return 0;
}
