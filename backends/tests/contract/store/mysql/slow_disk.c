/* Preloaded into a database server: each wait for the disk takes 20 ms longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

typedef int sync_fn(int);

static int slowly(const char *name, int fd)
{
    usleep(20000);
    return ((sync_fn *)dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd)
{
    return slowly("fsync", fd);
}

int fdatasync(int fd)
{
    return slowly("fdatasync", fd);
}
