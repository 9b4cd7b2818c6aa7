/* Samples that stay on a device: by a fake one, whose memory this program may not touch, every solver gives the very
 * numbers that it gives in host memory.
 *
 *     device RK2_THETA NS_THETA FOLDER
 *     device stray RK2_THETA      crashes, since a callback touches the device's memory
 *
 * With BY_CUDA defined the arithmetic is that of bindings/cuda, compiled for the host.
 */
#define _DEFAULT_SOURCE
#include "check.h"
#include "fake_device.h"
#ifdef BY_CUDA
#include "bespoke_cuda.h"
#endif

#define BATCH 3
#define MOST (BATCH * 64)

static const DLDataType types[4] = {{kDLFloat, 32, 1}, {kDLFloat, 64, 1}, {kDLFloat, 16, 1}, {kDLBfloat, 16, 1}};
static bespoke_device_ops by_cuda;

static void *room(fake_device *device, size_t bytes) {
    void *memory = NULL;
    if (device == NULL) return malloc(bytes);
    CHECK(fake_allocate(device, bytes, &memory) == 0);
    return memory;
}

static void give_back(fake_device *device, void *memory) {
    if (device == NULL)
        free(memory);
    else
        CHECK(fake_release(device, memory) == 0);
}

static void enter(fake_device *device) {
    if (device != NULL) fake_open(device, 1);
}

static void leave(fake_device *device) {
    if (device != NULL) fake_open(device, -1);
}

/* A contiguous tensor of host memory, or of the device's. */
static DLTensor lent(fake_device *device, void *memory, DLDataType dtype, int64_t *shape) {
    DLTensor made = tensor(memory, shape, 2);
    made.dtype = dtype;
    if (device != NULL) made.device = fake_ops(device).device;
    return made;
}

static bespoke_sampler *sampler_of(const bespoke_theta *theta, fake_device *device) {
    bespoke_sampler *sampler = NULL;
    bespoke_sampler_options options;
    bespoke_device_ops ops;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    if (device != NULL) {
        ops = fake_ops(device);
        options.device_ops = &ops;
    }
    OK(bespoke_sampler_new(theta, &options, &sampler));
    return sampler;
}

/* u_t(x) = cos(3 t) - (1 + t) x */
static int32_t field(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    fake_device *device = user_data;
    if (device != NULL) {
        CHECK(t->device.device_type == (DLDeviceType)kDLExtDev && t->device.device_id == 3);
        CHECK(x->device.device_type == (DLDeviceType)kDLExtDev && u->device.device_type == (DLDeviceType)kDLExtDev);
    }
    enter(device);
    for (int64_t row = 0; row < x->shape[0]; row++) {
        const float time = ((const float *)t->data)[row];
        for (int64_t i = row * x->shape[1]; i < (row + 1) * x->shape[1]; i++) {
            const float value = cosf(3.0f * time) - (1.0f + time) * (float)fake_get(x->data, x->dtype, (uint64_t)i);
            fake_put(u->data, u->dtype, (uint64_t)i, value);
        }
    }
    leave(device);
    return 0;
}

static uint32_t nfe_of(const bespoke_theta *theta) {
    bespoke_theta_properties info = {.struct_size = sizeof info};
    OK(bespoke_theta_info(theta, &info));
    return info.nfe;
}

static uint32_t steps_of(const bespoke_theta *theta) {
    bespoke_theta_properties info = {.struct_size = sizeof info};
    OK(bespoke_theta_info(theta, &info));
    return info.steps;
}

/* The four ways to run a solve. */
enum { BY_STEPS, AS_A_WHOLE, BY_EVALUATIONS, BY_QUERIES, WAYS };

static void by_queries(bespoke_sampler *sampler, fake_device *device, DLTensor *x, DLTensor *u) {
    OK(bespoke_sampler_start(sampler, x));
    for (int evaluation = 0;; evaluation++) {
        const DLTensor *t, *states;
        OK(bespoke_sampler_query(sampler, &t, &states));
        if (t == NULL) break;
        field(device, t, states, u);
        const unsigned launches = device != NULL ? device->launches : 0;
        OK(bespoke_sampler_update(sampler, u));
        /* One launch, whatever the number of its terms. */
        if (device != NULL) CHECK(device->launches == launches + 1);
    }
    OK(bespoke_sampler_finish(sampler, x));
}

static void by_evaluations(bespoke_sampler *sampler, fake_device *device, uint32_t nfe, DLTensor *x, DLTensor *u) {
    for (uint32_t k = 0; k < nfe; k++) {
        /* Any velocity will do: this one depends on the states. */
        float times[BATCH];
        int64_t shape[1] = {BATCH};
        for (int row = 0; row < BATCH; row++) times[row] = (float)k / (float)nfe;
        DLTensor t = tensor(times, shape, 1);
        if (device != NULL) t.device = fake_ops(device).device;
        field(device, &t, x, u);
        OK(bespoke_sampler_advance(sampler, k, x, u, x));
    }
}

/* x(1) of a batch, in `out`, whose numbers are `elements` a sample. */
static void solve(const bespoke_theta *theta, bespoke_sampler *sampler, fake_device *device, int way, DLDataType dtype,
                  int64_t elements, char *out) {
    int64_t shape[2] = {BATCH, elements};
    const size_t bytes = (size_t)(BATCH * elements) * dtype.bits / 8;
    DLTensor x = lent(device, room(device, bytes), dtype, shape), u = lent(device, room(device, bytes), dtype, shape);
    DLTensor x1 = lent(device, room(device, bytes), dtype, shape);
    enter(device);
    for (int64_t i = 0; i < BATCH * elements; i++) fake_put(x.data, dtype, (uint64_t)i, sin(1.7 * (double)i) * 1.5);
    leave(device);
    const DLTensor *end = &x;
    if (way == BY_STEPS) {
        for (uint32_t step = 0; step < steps_of(theta); step++)
            OK(bespoke_step(theta, sampler, step, &x, field, device));
    } else if (way == AS_A_WHOLE) {
        OK(bespoke_sample(theta, sampler, &x, &x1, field, device));
        end = &x1;
    } else if (way == BY_EVALUATIONS) {
        by_evaluations(sampler, device, nfe_of(theta), &x, &u);
    } else {
        by_queries(sampler, device, &x, &u);
    }
    enter(device);
    memcpy(out, end->data, bytes);
    leave(device);
    give_back(device, x.data);
    give_back(device, u.data);
    give_back(device, x1.data);
}

/* Every way and every dtype, on the device as in host memory; the second time without more of the device's memory. */
static void agree(const bespoke_theta *theta, const char *name, int64_t elements) {
    static char there[MOST * 8], here[MOST * 8];
    for (int type = 0; type < 4; type++) {
        const size_t bytes = (size_t)(BATCH * elements) * types[type].bits / 8;
        fake_device device = {.inner = by_cuda.struct_size != 0 ? &by_cuda : NULL};
        bespoke_sampler *far_sampler = sampler_of(theta, &device), *near_sampler = sampler_of(theta, NULL);
        for (int way = 0; way < WAYS; way++) {
            solve(theta, near_sampler, NULL, way, types[type], elements, here);
            for (int again = 0; again < 2; again++) {
                const unsigned held = fake_held(&device), had = device.allocations;
                memset(there, 0, sizeof there);
                solve(theta, far_sampler, &device, way, types[type], elements, there);
                if (memcmp(there, here, bytes) != 0) {
                    fprintf(stderr, "%s, way %d, %d bits of code %d, %d numbers: not the same numbers\n", name, way,
                            types[type].bits, types[type].code, (int)elements);
                    exit(1);
                }
                /* But for the three of the solve itself. */
                if (again) CHECK(device.allocations == had + 3 && fake_held(&device) == held);
            }
        }
        CHECK(device.answers == 0 && device.open == 0);
        bespoke_sampler_free(far_sampler);
        bespoke_sampler_free(near_sampler);
        CHECK(fake_held(&device) == 0);
    }
}

/* A launch for each update, another one for the times where they are asked for, and copies at both ends of a whole solve
 * alone: evaluations of a loop of the host's are a launch each. */
static void counts(const bespoke_theta *theta) {
    char out[MOST * 8];
    fake_device device = {0};
    bespoke_sampler *sampler = sampler_of(theta, &device);
    const uint32_t nfe = nfe_of(theta);
    for (int again = 0; again < 2; again++) {
        const unsigned launches = device.launches, copies = device.copies;
        solve(theta, sampler, &device, AS_A_WHOLE, types[0], 7, out);
        CHECK(device.launches == launches + 2 * nfe && device.copies == copies + 2);
    }
    const unsigned launches = device.launches, copies = device.copies;
    solve(theta, sampler, &device, BY_EVALUATIONS, types[0], 7, out);
    CHECK(device.launches == launches + nfe && device.copies == copies);
    bespoke_sampler_free(sampler);
}

/* Where the next state is wanted in the midst of the present one, that is read first. */
static void overlapping(const bespoke_theta *theta) {
    fake_device device = {0};
    bespoke_sampler *sampler = sampler_of(theta, &device);
    int64_t shape[2] = {2, 4};
    float *memory = room(&device, 64), apart[8], within[8];
    DLTensor x = lent(&device, memory, types[0], shape), u = lent(&device, room(&device, 32), types[0], shape),
             next = lent(&device, room(&device, 32), types[0], shape);
    enter(&device);
    for (int i = 0; i < 8; i++) {
        memory[i] = 0.3f * (float)i - 1.0f;
        ((float *)u.data)[i] = 0.7f - 0.2f * (float)i;
    }
    leave(&device);
    OK(bespoke_sampler_advance(sampler, 0, &x, &u, &next));
    CHECK(device.copies == 0 && device.launches == 1);
    enter(&device);
    memcpy(apart, next.data, sizeof apart);
    leave(&device);
    next.data = memory + 1;
    OK(bespoke_sampler_advance(sampler, 0, &x, &u, &next));
    CHECK(device.copies == 2 && device.launches == 2);
    enter(&device);
    memcpy(within, next.data, sizeof within);
    leave(&device);
    CHECK(memcmp(apart, within, sizeof apart) == 0);
    bespoke_sampler_free(sampler);
}

/* A velocity of another type than the states is read as it is. */
static void mixed_types(const bespoke_theta *theta) {
    fake_device device = {0};
    bespoke_sampler *sampler = sampler_of(theta, &device);
    int64_t shape[2] = {BATCH, 4};
    DLTensor x = lent(&device, room(&device, 48), types[0], shape),
             u = lent(&device, room(&device, 24), types[2], shape);
    enter(&device);
    for (uint64_t i = 0; i < 12; i++) {
        fake_put(x.data, x.dtype, i, 1.0);
        fake_put(u.data, u.dtype, i, 0.5);
    }
    leave(&device);
    OK(bespoke_sampler_start(sampler, &x));
    for (const DLTensor *t, *states;;) {
        OK(bespoke_sampler_query(sampler, &t, &states));
        if (t == NULL) break;
        OK(bespoke_sampler_update(sampler, &u));
    }
    OK(bespoke_sampler_finish(sampler, &x));
    enter(&device);
    for (int i = 0; i < 12; i++) CHECK(((float *)x.data)[i] == 1.5f);
    leave(&device);
    bespoke_sampler_free(sampler);
}

/* Samples of several thetas that join and leave: gives what each was when it left. */
static void coming_and_going(bespoke_theta *const *thetas, fake_device *device, float (*ends)[5]) {
    bespoke_sampler *sampler = sampler_of(thetas[0], device);
    int64_t one[2] = {1, 5}, all[2] = {0, 5};
    DLTensor x = lent(device, room(device, 20), types[0], one);
    float *u = room(device, 64 * 20);
    int started = 0, ended = 0, of_row[8];
    uint32_t batch = 0;
    while (ended < 12) {
        while (batch < 4 && started < 12) {
            enter(device);
            for (int i = 0; i < 5; i++) ((float *)x.data)[i] = 0.3f * (float)(started + i) - 1.0f;
            leave(device);
            OK(bespoke_sampler_join(sampler, thetas[started % 3], &x));
            of_row[batch++] = started++;
            if (started % 2) break;
        }
        const DLTensor *t, *states;
        OK(bespoke_sampler_query(sampler, &t, &states));
        if (t != NULL) {
            all[0] = batch;
            DLTensor velocity = lent(device, u, types[0], all);
            field(device, t, states, &velocity);
            const unsigned launches = device != NULL ? device->launches : 0;
            OK(bespoke_sampler_update(sampler, &velocity));
            /* At whatever stages of whatever solvers the samples are. */
            if (device != NULL) CHECK(device->launches == launches + 1);
        }
        for (uint32_t row = 0; row < batch; row++) {
            bespoke_row at = {.struct_size = sizeof at};
            OK(bespoke_sampler_row(sampler, row, &at));
            if (at.evaluations < at.nfe) continue;
            OK(bespoke_sampler_leave(sampler, row, &x));
            enter(device);
            memcpy(ends[of_row[row]], x.data, 20);
            leave(device);
            of_row[row--] = of_row[--batch];
            ended++;
        }
    }
    bespoke_sampler_free(sampler);
    give_back(device, x.data);
    give_back(device, u);
}

static void continuous(bespoke_theta *const *thetas) {
    static float here[12][5], there[12][5];
    fake_device device = {.inner = by_cuda.struct_size != 0 ? &by_cuda : NULL};
    coming_and_going(thetas, NULL, here);
    coming_and_going(thetas, &device, there);
    CHECK(memcmp(here, there, sizeof here) == 0);
    CHECK(fake_held(&device) == 0);
}

static int32_t broken(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    fake_device *device = user_data;
    field(user_data, t, x, u);
    enter(device);
    ((float *)u->data)[u->shape[1]] = NAN;
    leave(device);
    return 0;
}

static int32_t refuses(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    (void)user_data, (void)t, (void)x, (void)u;
    return 5;
}

/* What is not finite is told when it is asked for. */
static void not_finite(const bespoke_theta *theta) {
    uint8_t answers[BATCH];
    int64_t shape[2] = {BATCH, 4};
    fake_device device = {.inner = by_cuda.struct_size != 0 ? &by_cuda : NULL};
    bespoke_sampler *sampler = sampler_of(theta, &device);
    DLTensor x = lent(&device, room(&device, 48), types[0], shape);
    enter(&device);
    for (uint64_t i = 0; i < 12; i++) fake_put(x.data, x.dtype, i, 1.0);
    leave(&device);
    FAILS(bespoke_sampler_finite(sampler, BATCH, answers), BESPOKE_ERROR_STATE, "the sampler holds no samples");
    OK(bespoke_sample(theta, sampler, &x, &x, broken, &device));
    CHECK(device.answers == 0);
    OK(bespoke_sampler_finite(sampler, BATCH, answers));
    CHECK(device.answers == 1 && answers[0] == 1 && answers[1] == 0 && answers[2] == 1);
    FAILS(bespoke_sampler_finite(NULL, BATCH, answers), BESPOKE_ERROR_INVALID, "sampler is NULL");
    FAILS(bespoke_sampler_finite(sampler, BATCH, NULL), BESPOKE_ERROR_INVALID, "finite is NULL");
    FAILS(bespoke_sampler_finite(sampler, 2, answers), BESPOKE_ERROR_INVALID,
          "count is 2, expected 3, the number of samples");
    bespoke_sampler_free(sampler);

    /* In host memory too. */
    float numbers[12] = {0};
    sampler = sampler_of(theta, NULL);
    x = lent(NULL, numbers, types[0], shape);
    OK(bespoke_sampler_start(sampler, &x));
    OK(bespoke_sampler_finite(sampler, BATCH, answers));
    CHECK(answers[0] == 1 && answers[1] == 1 && answers[2] == 1);
    numbers[4] = INFINITY;
    OK(bespoke_sampler_start(sampler, &x));
    OK(bespoke_sampler_finite(sampler, BATCH, answers));
    CHECK(answers[0] == 1 && answers[1] == 0 && answers[2] == 1);
    bespoke_sampler_free(sampler);
}

/* What a table or a tensor lacks is named. */
static void refusals(const bespoke_theta *theta) {
    fake_device device = {0};
    bespoke_sampler *sampler = NULL;
    bespoke_device_ops ops = fake_ops(&device);
    bespoke_sampler_options options = {.struct_size = sizeof options, .device_ops = &ops};
#define LACKS(operation)                                                             \
    do {                                                                             \
        ops = fake_ops(&device);                                                     \
        ops.operation = NULL;                                                        \
        FAILS(bespoke_sampler_new(theta, &options, &sampler), BESPOKE_ERROR_INVALID, \
              "options.device_ops." #operation " is NULL, expected a function");     \
        CHECK(sampler == NULL);                                                      \
    } while (0)
    LACKS(allocate);
    LACKS(release);
    LACKS(combine);
    LACKS(copy);
    LACKS(finite);
    ops = fake_ops(&device);
    ops.struct_size = 5;
    FAILS(bespoke_sampler_new(theta, &options, &sampler), BESPOKE_ERROR_INVALID, "bespoke_device_ops.struct_size is 5");

    const bespoke_status invalid = BESPOKE_ERROR_INVALID;
    float numbers[8] = {0};
    int64_t shape[2] = {2, 4}, strides[2] = {1, 2};
    DLTensor near_x = lent(NULL, numbers, types[0], shape);
    DLTensor x = lent(&device, room(&device, 32), types[0], shape),
             u = lent(&device, room(&device, 32), types[0], shape);
    sampler = sampler_of(theta, &device);
    enter(&device);
    for (int i = 0; i < 8; i++) ((float *)x.data)[i] = ((float *)u.data)[i] = 0.5f;
    leave(&device);
    const char *elsewhere = "x.device is on kDLCPU:0, expected on kDLExtDev:3, the sampler's";
    FAILS(bespoke_step(theta, sampler, 0, &near_x, field, NULL), invalid, elsewhere);
    FAILS(bespoke_sampler_start(sampler, &near_x), invalid, "x0.device is on kDLCPU:0");
    FAILS(bespoke_sampler_join(sampler, NULL, &near_x), invalid, "x0.device is on kDLCPU:0");
    FAILS(bespoke_sample(theta, sampler, &x, &near_x, field, NULL), invalid, "x1.device is on kDLCPU:0");
    FAILS(bespoke_sampler_advance(sampler, 0, &x, &near_x, &x), invalid, "u.device is on kDLCPU:0");
    FAILS(bespoke_sampler_advance(sampler, 0, &x, &u, &near_x), invalid, "next.device is on kDLCPU:0");
    x.device.device_id = 2;
    FAILS(bespoke_sampler_start(sampler, &x), invalid, "x0.device is on kDLExtDev:2, expected on kDLExtDev:3");
    x.device.device_id = 3;
    x.strides = strides;
    FAILS(bespoke_sampler_start(sampler, &x), invalid, "x0.strides is not contiguous, expected NULL or contiguous");
    x.strides = NULL;
    OK(bespoke_sampler_start(sampler, &x));
    const DLTensor *t, *states;
    OK(bespoke_sampler_query(sampler, &t, &states));
    FAILS(bespoke_sampler_update(sampler, &near_x), invalid, "u.device is on kDLCPU:0");
    FAILS(bespoke_sampler_update(sampler, states), invalid, "u.data is overlapping the sampler's own memory");
    FAILS(bespoke_sampler_join(sampler, theta, states), invalid, "x0.data is overlapping the sampler's own memory");
    FAILS(bespoke_sampler_finish(sampler, &near_x), invalid, "x.device is on kDLCPU:0");
    int64_t one[2] = {1, 4};
    near_x.shape = one;
    FAILS(bespoke_sampler_leave(sampler, 0, &near_x), invalid, "x.device is on kDLCPU:0");
    /* Without a table as ever. */
    bespoke_sampler *near_sampler = sampler_of(theta, NULL);
    FAILS(bespoke_sampler_start(near_sampler, &x), invalid, "x0.device is on kDLExtDev, expected host memory");
    bespoke_sampler_free(near_sampler);

    /* An operation that fails. */
    OK(bespoke_sampler_query(sampler, &t, &states));
    device.no_launch = 1;
    FAILS(bespoke_sampler_update(sampler, &u), BESPOKE_ERROR_CALLBACK, "the device_ops.combine callback answered 7");
    FAILS(bespoke_sampler_query(sampler, &t, &states), BESPOKE_ERROR_STATE, "the solve failed: start a new one");
    device.no_launch = 0;
    /* What was never computed is given to nobody. */
    DLTensor alone = lent(&device, room(&device, 16), types[0], one);
    FAILS(bespoke_sampler_leave(sampler, 0, &alone), BESPOKE_ERROR_STATE, "the solve failed: start a new one");
    FAILS(bespoke_sampler_join(sampler, theta, &alone), BESPOKE_ERROR_STATE, "the solve failed: start a new one");
    device.no_copy = 1;
    FAILS(bespoke_sampler_start(sampler, &x), BESPOKE_ERROR_CALLBACK, "the device_ops.copy callback answered 7");
    FAILS(bespoke_sampler_leave(sampler, 0, &alone), BESPOKE_ERROR_STATE, "the sampler holds no samples");
    device.no_copy = 0;
    OK(bespoke_sampler_join(sampler, theta, &alone));
    OK(bespoke_sample(theta, sampler, &x, &x, field, &device));
    FAILS(bespoke_sample(theta, sampler, &x, &x, refuses, &device), BESPOKE_ERROR_CALLBACK,
          "the velocity callback answered 5");
    int64_t large[2] = {512, 4};
    x = lent(&device, room(&device, 8192), types[0], large);
    device.no_memory = 1;
    FAILS(bespoke_sampler_start(sampler, &x), BESPOKE_ERROR_MEMORY, "cannot allocate 8192 bytes");
    device.no_memory = 0;
    OK(bespoke_sampler_start(sampler, &x));
    /* What a smaller solve left is not carried into a larger one. */
    int64_t larger[2] = {513, 4};
    x = lent(&device, room(&device, 8208), types[0], larger);
    const unsigned copies = device.copies;
    OK(bespoke_sampler_start(sampler, &x));
    CHECK(device.copies == copies + 1);
    /* What of a launch that failed was done is not known. */
    device.no_launch = 1;
    FAILS(bespoke_sampler_leave(sampler, 0, NULL), BESPOKE_ERROR_CALLBACK,
          "the device_ops.combine callback answered 7");
    device.no_launch = 0;
    FAILS(bespoke_sampler_leave(sampler, 0, &alone), BESPOKE_ERROR_STATE, "the solve failed: start a new one");
    bespoke_sampler_free(sampler);
}

/* A network that is given its states where `user_data`, a device or NULL for the host, has them. */
static int32_t network(void *user_data, const bespoke_call *call) {
    fake_device *device = user_data;
    const DLTensor *x = call->x;
    const float *times = call->time->data;
    const int64_t *classes = call->inputs[0].tensor->data;
    CHECK(call->time->device.device_type == kDLCPU && call->inputs[0].tensor->device.device_type == kDLCPU);
    CHECK(x->device.device_type == (device == NULL ? kDLCPU : (DLDeviceType)kDLExtDev));
    CHECK(x->device.device_id == (device == NULL ? 0 : 3) && call->output->device.device_id == x->device.device_id);
    enter(device);
    for (int64_t row = 0; row < x->shape[0]; row++)
        for (int64_t i = row * x->shape[1]; i < (row + 1) * x->shape[1]; i++)
            ((float *)call->output->data)[i] =
                cosf(times[row] / 300.0f) + 0.1f * (float)classes[row] - 0.7f * ((const float *)x->data)[i];
    leave(device);
    return 0;
}

static int32_t refusing(void *user_data, const bespoke_call *call) {
    (void)user_data, (void)call;
    return 9;
}

/* Guided and plain samples at times of their own: velocity and prediction of a model on the device, and of the host's. */
static void model(const char *folder) {
    static const char card[] =
        "{\"format\": \"bespoke-model\", \"version\": 1, \"runtime\": \"host\", \"shape\": [5], \"output\": "
        "\"epsilon\","
        " \"scheduler\": {\"name\": \"vp\"}, \"classes\": 10, \"null_class\": 10,"
        " \"time\": {\"direction\": \"data-to-noise\", \"scale\": 1000, \"end\": 0.999}}";
    char path[4096];
    snprintf(path, sizeof path, "%s/device-card.json", folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(card, file) >= 0 && fclose(file) == 0);

    fake_device device = {.inner = by_cuda.struct_size != 0 ? &by_cuda : NULL};
    bespoke_device_ops ops = fake_ops(&device);
    bespoke_model *far = NULL, *near = NULL, *none = NULL;
    OK(bespoke_model_host_on_device(path, &ops, network, &device, &far));
    OK(bespoke_model_host(path, network, NULL, &near));
    int64_t shape[2] = {4, 5}, batch[1] = {4}, classes[4] = {3, 0, 9, 4};
    double scales[4] = {1, 3.5, 1, 0.5};
    float times[4] = {0.0f, 0.25f, 0.25f, 1.0f}, x[20], u[20], x1[20], there[20];
    for (int i = 0; i < 20; i++) x[i] = sinf(1.7f * (float)i);
    DLTensor t = tensor(times, batch, 1), near_x = tensor(x, shape, 2), near_u = tensor(u, shape, 2),
             near_x1 = tensor(x1, shape, 2);
    DLTensor far_x = lent(&device, room(&device, 80), types[0], shape),
             far_u = lent(&device, room(&device, 80), types[0], shape),
             far_x1 = lent(&device, room(&device, 80), types[0], shape);
    unsigned held = 0;
    for (int guided = 0; guided < 3; guided++) {
        bespoke_condition condition = {.struct_size = sizeof condition, .batch = 4, .classes = classes};
        if (guided != 1) condition.guidance_scale = scales;
        enter(&device);
        memcpy(far_x.data, x, sizeof x);
        leave(&device);
        OK(bespoke_model_velocity(near, &condition, &t, &near_x, &near_u));
        OK(bespoke_model_velocity(far, &condition, &t, &far_x, &far_u));
        OK(bespoke_model_prediction(near, &t, &near_x, &near_u, &near_x1));
        OK(bespoke_model_prediction(far, &t, &far_x, &far_u, &far_x1));
        enter(&device);
        memcpy(there, far_u.data, sizeof there);
        CHECK(memcmp(there, u, sizeof u) == 0);
        memcpy(there, far_x1.data, sizeof there);
        /* The host multiplies in float64. */
        for (int i = 0; i < 20; i++) CHECK(fabsf(there[i] - x1[i]) <= 4e-6f * (1.0f + fabsf(x1[i])));
        leave(&device);
        if (guided == 2) CHECK(device.allocations == held);
        held = device.allocations;
    }

    FAILS(bespoke_model_velocity(far, NULL, &t, &near_x, &far_u), BESPOKE_ERROR_INVALID,
          "x.device is on kDLCPU:0, expected on kDLExtDev:3, the model's");
    FAILS(bespoke_model_velocity(far, NULL, &t, &far_x, &near_u), BESPOKE_ERROR_INVALID, "u.device is on kDLCPU:0");
    FAILS(bespoke_model_velocity(near, NULL, &t, &far_x, &near_u), BESPOKE_ERROR_INVALID, "x.device is on kDLExtDev");
    t.device = ops.device;
    FAILS(bespoke_model_velocity(far, NULL, &t, &far_x, &far_u), BESPOKE_ERROR_INVALID, "t.device is on kDLExtDev");
    t.device.device_type = kDLCPU;
    far_u.dtype = types[2];
    FAILS(bespoke_model_velocity(far, NULL, &t, &far_x, &far_u), BESPOKE_ERROR_INVALID,
          "u.dtype is float16, expected float32");
    FAILS(bespoke_model_host_on_device(path, NULL, network, NULL, &none), BESPOKE_ERROR_INVALID, "ops is NULL");
    FAILS(bespoke_model_host_on_device(path, &ops, NULL, NULL, &none), BESPOKE_ERROR_INVALID, "network is NULL");
    FAILS(bespoke_model_host_on_device(NULL, &ops, network, NULL, &none), BESPOKE_ERROR_INVALID, "path is NULL");
    ops.finite = NULL;
    FAILS(bespoke_model_host_on_device(path, &ops, network, NULL, &none), BESPOKE_ERROR_INVALID,
          "ops.finite is NULL, expected a function");
    CHECK(none == NULL);
    ops = fake_ops(&device);
    OK(bespoke_model_host_on_device(path, &ops, refusing, NULL, &none));
    far_u.dtype = types[0];
    bespoke_condition condition = {.struct_size = sizeof condition, .batch = 4, .classes = classes};
    FAILS(bespoke_model_velocity(none, &condition, &t, &far_x, &far_u), BESPOKE_ERROR_CALLBACK,
          "the network callback answered 9");
    bespoke_model_free(none);
    bespoke_model_free(far);
    bespoke_model_free(near);
    CHECK(fake_held(&device) == 3);
}

static int32_t strays(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    (void)user_data, (void)t;
    ((float *)u->data)[0] = ((const float *)x->data)[0];
    return 0;
}

static int stray(const char *path) {
    bespoke_theta *theta = NULL;
    fake_device device = {0};
    int64_t shape[2] = {1, 4};
    OK(bespoke_load_theta(path, &theta));
    DLTensor x = lent(&device, room(&device, 16), types[0], shape);
    bespoke_sample(theta, sampler_of(theta, &device), &x, &x, strays, NULL);
    puts("nothing stops a stray access");
    return 0;
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "stray") == 0) return stray(arguments[2]);
    if (count != 4) return 2;
    bespoke_theta *thetas[3] = {NULL, NULL, NULL};
#ifdef BY_CUDA
    bespoke_cuda gpu = {0};
    bespoke_cuda_ops(&gpu, &by_cuda);
    CHECK(by_cuda.device.device_type == kDLCUDA && by_cuda.context == &gpu);
#endif
    OK(bespoke_load_theta(arguments[1], &thetas[0]));
    OK(bespoke_load_theta(arguments[2], &thetas[1]));
    OK(bespoke_theta_solver("dpm++2m", 6, "vp", &thetas[2]));
    const char *solvers[] = {"euler",     "midpoint", "heun",         "ralston",      "rk4",     "ab2",     "ab3",
                             "ab4",       "ddim",     "dpm-solver-2", "dpm-solver-3", "dpm++2m", "dpm++3m", "unipc",
                             "unipc-bh1", "unipc3",   "unipc3-bh1",   "deis1",        "deis2",   "deis3",   "ipndm"};
    for (int i = 0; i < 3; i++) {
        /* Where vectors fit, and where they do not. */
        agree(thetas[i], "a theta", 64);
        agree(thetas[i], "a theta", 7);
        counts(thetas[i]);
    }
    for (size_t i = 0; i < sizeof solvers / sizeof *solvers; i++) {
        bespoke_theta *theta = NULL;
        OK(bespoke_theta_solver(solvers[i], 12, "vp", &theta));
        agree(theta, solvers[i], 7);
        bespoke_theta_free(theta);
    }
    bespoke_theta *edm = NULL;
    OK(bespoke_theta_solver("edm", 7, "edm", &edm));
    agree(edm, "edm", 16);
    bespoke_theta_free(edm);
    overlapping(thetas[0]);
    mixed_types(thetas[0]);
    continuous(thetas);
    not_finite(thetas[0]);
    refusals(thetas[0]);
    model(arguments[3]);
    for (int i = 0; i < 3; i++) bespoke_theta_free(thetas[i]);
    puts("ok");
    return 0;
}
