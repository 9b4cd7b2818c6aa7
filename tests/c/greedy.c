/* Takes more memory than the test programs may have, and waits to be ended. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "check.h"

/* Bytes, and seconds that nobody waits for where the bound holds. */
enum { TAKEN = 640 << 20, PATIENCE = 60 };

int main(void) {
    char *memory = malloc(TAKEN);
    CHECK(memory != NULL);
    memset(memory, 1, TAKEN);
    struct timespec second = {1, 0};
    for (int i = 0; i < PATIENCE; i++) nanosleep(&second, NULL);
    CHECK(memory[TAKEN - 1] == 1);
    free(memory);
    puts("ok");
    return 0;
}
