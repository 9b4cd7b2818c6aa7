#include <bespoke.h>
#include <stdio.h>

int main(int count, char **arguments) {
    bespoke_theta *theta = NULL;
    bespoke_theta_properties info = {.struct_size = sizeof info};
    if (count != 2 || bespoke_load_theta(arguments[1], &theta) != BESPOKE_OK) return 1;
    if (bespoke_theta_info(theta, &info) != BESPOKE_OK) return 1;
    printf("%s %s %u\n", bespoke_version(), info.family, info.nfe);
    bespoke_theta_free(theta);
    return 0;
}
