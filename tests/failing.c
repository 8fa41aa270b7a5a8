/* System calls that fail as they do on a disk that is full or breaks: preloaded into a process, which
   arms it. Only what concerns files below one folder is counted and fails. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *root = "", *failed = "";
static int calls, first, last, error, growing;

/* Has the calls from `from` to `to` fail; `space`: only calls that need space are counted. */
void arm(const char *folder, int from, int to, int number, int space) {
  calls = 0, failed = "", root = folder, first = from, last = to, error = number, growing = space;
}

int counted(void) { return calls; }

const char *broken(void) { return failed; } /* the first one that failed */

static int fails(const char *call, int fd, const char *path, int space) {
  char link[32], own[PATH_MAX];
  int before = errno, n;
  if (!*root || (growing && !space)) return 0;
  if (!path || (*path != '/' && fd >= 0)) { /* below an open folder */
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, own, sizeof own - 1);
    own[length < 0 ? 0 : length] = 0;
    path = own;
  }
  errno = before;
  if (strncmp(path, root, strlen(root))) return 0;
  n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (n < first || n > last) return 0;
  if (!*failed) failed = call;
  errno = error;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(type, bad, name, parameters, arguments, fd, path, space) \
  type name parameters {                                              \
    if (fails(#name, fd, path, space)) return bad;                    \
    return REAL(name) arguments;                                      \
  }
#define OPEN(name, parameters, arguments, at)                                           \
  int name parameters {                                                                 \
    va_list more;                                                                       \
    va_start(more, flags);                                                              \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;             \
    va_end(more);                                                                       \
    if (fails(#name, at, path, flags & O_CREAT && access(path, F_OK))) return -1;       \
    return REAL(name) arguments;                                                        \
  }
#define CONTROL(name)                                                \
  int name(int fd, int command, ...) {                               \
    va_list more;                                                    \
    va_start(more, command);                                         \
    void *argument = va_arg(more, void *);                           \
    va_end(more);                                                    \
    if (command == F_SETLK && fails("lock", fd, NULL, 0)) return -1; \
    return REAL(name)(fd, command, argument);                        \
  }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), -1)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), -1)
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)
CONTROL(fcntl)
CONTROL(fcntl64)
WRAP(ssize_t, -1, read, (int fd, void *to, size_t n), (fd, to, n), fd, NULL, 0)
WRAP(ssize_t, -1, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), fd, NULL, 0)
WRAP(ssize_t, -1, pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at), fd, NULL, 0)
WRAP(ssize_t, -1, write, (int fd, const void *of, size_t n), (fd, of, n), fd, NULL, 1)
WRAP(ssize_t, -1, pwrite, (int fd, const void *of, size_t n, off_t at), (fd, of, n, at), fd, NULL, 1)
WRAP(ssize_t, -1, pwrite64, (int fd, const void *of, size_t n, off64_t at), (fd, of, n, at), fd,
     NULL, 1)
/* Nobody pulls a plug here, and a disk takes its time. */
int fsync(int fd) { return -fails("fsync", fd, NULL, 1); }
int fdatasync(int fd) { return -fails("fdatasync", fd, NULL, 1); }
WRAP(int, -1, ftruncate, (int fd, off_t n), (fd, n), fd, NULL, 1)
WRAP(int, -1, ftruncate64, (int fd, off64_t n), (fd, n), fd, NULL, 1)
WRAP(int, -1, fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n), fd, NULL, 1)
WRAP(int, -1, stat, (const char *path, struct stat *to), (path, to), -1, path, 0)
WRAP(int, -1, stat64, (const char *path, struct stat64 *to), (path, to), -1, path, 0)
WRAP(int, -1, lstat, (const char *path, struct stat *to), (path, to), -1, path, 0)
WRAP(int, -1, lstat64, (const char *path, struct stat64 *to), (path, to), -1, path, 0)
WRAP(int, -1, fstat, (int fd, struct stat *to), (fd, to), fd, NULL, 0)
WRAP(int, -1, fstat64, (int fd, struct stat64 *to), (fd, to), fd, NULL, 0)
WRAP(int, -1, unlink, (const char *path), (path), -1, path, 0)
WRAP(int, -1, unlinkat, (int at, const char *path, int flags), (at, path, flags), at, NULL, 0)
WRAP(int, -1, rmdir, (const char *path), (path), -1, path, 0)
WRAP(int, -1, rename, (const char *path, const char *to), (path, to), -1, path, 1)
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), -1, path, 1)
WRAP(DIR *, NULL, opendir, (const char *path), (path), -1, path, 0)
WRAP(DIR *, NULL, fdopendir, (int fd), (fd), fd, NULL, 0)
