/* A host that loads the library, lets a thread use it, unloads it, and only then lets that thread end.
 *
 *     unload LIBRARY THETA COPY
 */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <pthread.h>

#include "check.h"

enum { ROUNDS = 20 };

static void *library;
static const char *source, *copy;
static pthread_barrier_t barrier;

/* ISO C has no conversion of what dlsym gives to a function. */
static void find(const char *name, void *function) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL) exit(3);
    memcpy(function, &symbol, sizeof symbol);
}

static void *work(void *nothing) {
    bespoke_status (*load)(const char *, bespoke_theta **);
    bespoke_status (*save)(const bespoke_theta *, const char *);
    const char *(*last)(void);
    void (*give_back)(bespoke_theta *);
    bespoke_theta *theta = NULL;
    find("bespoke_load_theta", &load);
    find("bespoke_theta_save", &save);
    find("bespoke_theta_free", &give_back);
    find("bespoke_last_error_message", &last);
    /* A message and a temporary file's name: both are kept for the thread. */
    if (load("", &theta) != BESPOKE_ERROR_IO || strlen(last()) == 0) exit(4);
    if (load(source, &theta) != BESPOKE_OK || save(theta, copy) != BESPOKE_OK) exit(5);
    give_back(theta);
    pthread_barrier_wait(&barrier);
    /* The library is gone now. */
    pthread_barrier_wait(&barrier);
    return nothing;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    source = arguments[2];
    copy = arguments[3];
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread;
        library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) exit(6);
        if (pthread_barrier_init(&barrier, NULL, 2) != 0) exit(7);
        if (pthread_create(&thread, NULL, work, NULL) != 0) exit(8);
        pthread_barrier_wait(&barrier);
        if (dlclose(library) != 0) exit(9);
        pthread_barrier_wait(&barrier);
        if (pthread_join(thread, NULL) != 0) exit(10);
        pthread_barrier_destroy(&barrier);
    }
    puts("ok");
    return 0;
}
