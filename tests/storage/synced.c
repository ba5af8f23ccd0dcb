/* Notes how much of each file was brought to disk, so that a test can take away the rest, as a loss of power does.
 * SYNCED_DIRECTORY: for each file NAME that is synced, SYNCED_DIRECTORY/NAME holds the size that it had then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int noted(int fd, const char *function)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    struct stat before;
    char link[64], path[PATH_MAX], note[PATH_MAX];
    const char *directory = getenv("SYNCED_DIRECTORY");
    int known = fstat(fd, &before) == 0;
    int result = sync(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (result != 0 || !known || !S_ISREG(before.st_mode) || length < 0 || !directory)
        return result;
    path[length] = 0;
    snprintf(note, sizeof note, "%s/%s", directory, strrchr(path, '/') + 1);
    int out = open(note, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (out >= 0) {
        uint64_t size = before.st_size;
        if (pwrite(out, &size, sizeof size, 0) != sizeof size)
            abort();
        close(out);
    }
    return result;
}

int fsync(int fd) { return noted(fd, "fsync"); }
int fdatasync(int fd) { return noted(fd, "fdatasync"); }
