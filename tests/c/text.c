/* A text-conditional model, asked from a callback: the samples of requests that share a length of text.
 *
 *     text CARD THETA < REQUESTS
 *
 * A request is its number of tokens, its guidance scale, the tokens' numbers and the noise's; a line is written for
 * each sample. All are solved as one batch, each with its own scale.
 */
#include <inttypes.h>

#include "check.h"

enum { MOST = 1 << 16 };

static float texts[MOST], noises[MOST];
static double scales[MOST];

static int numbers(float *into, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (scanf("%f", into + i) != 1) return 0;
    return 1;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    bespoke_model *model = NULL;
    OK(bespoke_model_open(arguments[1], "cpu", &model));
    bespoke_model_properties properties = {.struct_size = sizeof properties};
    OK(bespoke_model_info(model, &properties));
    CHECK(properties.input_count == 1 && properties.inputs[0].ndim == 2 && properties.inputs[0].shape[0] == -1);
    CHECK(strcmp(properties.inputs[0].name, "text") == 0);
    CHECK(strcmp(properties.inputs[0].shape_names[0], "tokens") == 0);
    CHECK(properties.scale_count == 1 && strcmp(properties.scales[0], "guidance_scale") == 0);
    const int64_t width = properties.inputs[0].shape[1];
    int64_t elements = 1, batch = 0, tokens = 0, own = 0;
    for (uint32_t i = 0; i < properties.ndim; i++) elements *= properties.shape[i];
    while (scanf("%" SCNd64 " %lf", &own, scales + batch) == 2) {
        CHECK(batch == 0 || own == tokens);
        tokens = own;
        CHECK((batch + 1) * elements <= MOST && (batch + 1) * tokens * width <= MOST);
        CHECK(numbers(texts + batch * tokens * width, tokens * width));
        CHECK(numbers(noises + batch * elements, elements));
        batch++;
    }
    CHECK(batch > 0);

    int64_t shape[4] = {batch, 1, 8, 8}, text_shape[3] = {batch, tokens, width};
    DLTensor x = tensor(noises, shape, 4), text = tensor(texts, text_shape, 3);
    bespoke_input input = {.name = "text", .tensor = &text};
    bespoke_condition condition = {.struct_size = sizeof condition,
                                   .batch = (uint32_t)batch,
                                   .guidance_scale = scales,
                                   .inputs = &input,
                                   .input_count = 1};
    bespoke_model_binding binding = {.struct_size = sizeof binding, .model = model, .condition = &condition};
    bespoke_theta *theta = NULL;
    bespoke_sampler *sampler = NULL;
    OK(bespoke_load_theta(arguments[2], &theta));
    OK(bespoke_sampler_new(theta, NULL, &sampler));
    OK(bespoke_sample(theta, sampler, &x, &x, bespoke_model_field, &binding));
    for (int64_t i = 0; i < batch * elements; i++) printf("%.9g%c", noises[i], (i + 1) % elements ? ' ' : '\n');
    bespoke_sampler_free(sampler);
    bespoke_theta_free(theta);
    bespoke_model_free(model);
    return 0;
}
