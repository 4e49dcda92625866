/* Stands between a process and its C library (LD_PRELOAD), for the proofs of the engine.
 *
 * Nothing happens until the process itself names the paths to watch. Then every call on them can be written
 * to a log, with its data, and one rule can make the Nth such call fail, come short, raise a signal, or be
 * the last thing that the process does. Calls on anything else go through untouched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { GO, FAIL, SHORT, KILL_BEFORE, KILL_TORN, KILL_AFTER, SIGNAL };

static struct { char role, path[PATH_MAX]; size_t length; } watched[8];
static int watches;
static int log_fd = -1;
static struct { char call[20], role; long nth, times; enum action action; long value; } rule;
static long matches;
static int signalled;
static __thread int paused;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t logging = PTHREAD_MUTEX_INITIALIZER;

/* What the process under test calls first. A path that ends in '/' stands for everything below it; the first
 * match counts. */
void interpose_watch(char role, const char *path)
{
    if (watches == sizeof watched / sizeof *watched)
        abort();
    watched[watches].role = role;
    snprintf(watched[watches].path, PATH_MAX, "%s", path);
    watched[watches++].length = strlen(path);
}

void interpose_log(int fd)
{
    log_fd = fd;
}

/* From the `nth` (first is 1) call of this name on a path of this role, `times` times; "*" and '*' are any. */
void interpose_rule(const char *call, char role, long nth, long times, int action, long value)
{
    snprintf(rule.call, sizeof rule.call, "%s", call);
    rule.role = role;
    rule.nth = nth;
    rule.times = times;
    rule.value = value;
    rule.action = action;
}

/* While paused, nothing that this thread does is watched. */
void interpose_pause(int pause)
{
    paused = pause;
}

static char role_of_path(const char *path)
{
    for (int i = 0; i < watches && !paused; i++) {
        size_t length = watched[i].length;
        int below = watched[i].path[length - 1] == '/';
        if (below ? strncmp(path, watched[i].path, length) == 0 : strcmp(path, watched[i].path) == 0)
            return watched[i].role;
    }
    return 0;
}

/* The path that a name in a folder stands for; itself where it says all. */
static const char *in_folder(int folder, const char *path, char *out)
{
    char link[40];
    ssize_t length;
    if (path[0] == '/' || folder < 0)
        return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, out, PATH_MAX - 1);
    if (length < 0)
        return path;
    snprintf(out + length, PATH_MAX - (size_t)length, "/%s", path);
    return out;
}

static char role_of(int fd)
{
    char link[40], path[PATH_MAX];
    ssize_t length;
    if (watches == 0 || paused)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return role_of_path(path);
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

static enum action judge(const char *call, char role)
{
    enum action action = GO;
    int slow;
    if (rule.action == GO || (strcmp(rule.call, "*") && strcmp(rule.call, call)))
        return GO;
    if (rule.role != '*' && rule.role != role)
        return GO;
    pthread_mutex_lock(&counting);
    matches++;
    if (matches >= rule.nth && matches < rule.nth + rule.times)
        action = rule.action;
    if (action == SIGNAL)
        signalled = 1;
    slow = signalled;
    pthread_mutex_unlock(&counting);
    if (action == KILL_BEFORE)
        die();
    if (action == SIGNAL)
        syscall(SYS_kill, getpid(), (int)rule.value);
    if (slow)
        /* Time for the process to notice the signal before its work is over. */
        usleep(4000);
    return action;
}

/* The log: one line of text a call, then its data. The lock is held from before the call until it is logged,
 * so that the order in the log is the order of the effects. */
static void enter(void)
{
    if (log_fd >= 0)
        pthread_mutex_lock(&logging);
}

static void put_log(const void *data, size_t length)
{
    while (length > 0) {
        ssize_t count = syscall(SYS_write, log_fd, data, length);
        if (count <= 0)
            abort();
        data = (const char *)data + count;
        length -= (size_t)count;
    }
}

static long leave(
    const char *call, char role, int fd, int64_t offset, int64_t asked, long result, const void *data, size_t length)
{
    int error = errno;
    if (log_fd >= 0) {
        struct stat status = {0};
        char line[200];
        if (fd >= 0)
            fstat(fd, &status);
        put_log(line, (size_t)snprintf(line, sizeof line, "%s %c %lu %ld %ld %ld %d %zu\n", call, role,
                    (unsigned long)status.st_ino, (long)offset, (long)asked, result, result < 0 ? error : 0, length));
        put_log(data, length);
        pthread_mutex_unlock(&logging);
    }
    errno = error;
    return result;
}

static long failed(void)
{
    errno = (int)rule.value;
    return -1;
}

/* Half, in whole sectors where there are any; or as many bytes as the rule says. */
static size_t shortened(size_t length)
{
    size_t half = length / 2;
    if (rule.value > 0)
        return (size_t)rule.value < length ? (size_t)rule.value : length;
    return half > 512 ? half / 512 * 512 : half;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* A call whose only outcomes are done and not done. */
#define AROUND(call, role, fd, offset, asked, data, length, expression) \
    enter(); \
    enum action action = judge(call, role); \
    long result = action == FAIL ? failed() : (expression); \
    result = leave(call, role, fd, offset, asked, result, data, length); \
    if (action == KILL_AFTER || action == KILL_TORN) \
        die(); \
    return result

#define DEFINE_READ(name, call, declared, asked_at, expression) \
    ssize_t name declared \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0) \
            return expression; \
        enter(); \
        enum action action = judge(call, role); \
        size_t asked = length; \
        if (action == SHORT) \
            length = shortened(length); \
        long result = action == FAIL ? failed() : (expression); \
        result = leave(call, role, fd, asked_at, (int64_t)asked, result, NULL, 0); \
        if (action == KILL_AFTER || action == KILL_TORN) \
            die(); \
        return result; \
    }

#define DEFINE_WRITE(name, call, declared, asked_at, expression) \
    ssize_t name declared \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0) \
            return expression; \
        enter(); \
        enum action action = judge(call, role); \
        size_t asked = length; \
        int64_t start = asked_at; \
        if (action == SHORT || action == KILL_TORN) \
            length = shortened(length); \
        long result = action == FAIL ? failed() : (expression); \
        result = leave(call, role, fd, start, (int64_t)asked, result, data, result > 0 ? (size_t)result : 0); \
        if (action == KILL_AFTER || action == KILL_TORN) \
            die(); \
        return result; \
    }

#define HERE syscall(SYS_lseek, fd, 0L, SEEK_CUR)

DEFINE_READ(read, "read", (int fd, void *data, size_t length), HERE, real(fd, data, length))
DEFINE_READ(pread, "pread", (int fd, void *data, size_t length, off_t at), at, real(fd, data, length, at))
DEFINE_READ(pread64, "pread", (int fd, void *data, size_t length, off64_t at), at, real(fd, data, length, at))
DEFINE_WRITE(write, "write", (int fd, const void *data, size_t length), HERE, real(fd, data, length))
DEFINE_WRITE(pwrite, "pwrite", (int fd, const void *data, size_t length, off_t at), at, real(fd, data, length, at))
DEFINE_WRITE(pwrite64, "pwrite", (int fd, const void *data, size_t length, off64_t at), at, real(fd, data, length, at))

/* Vectors of one part become the plain call; longer ones are not made by what is tested. */
#define DEFINE_READV(name, declared, plain) \
    ssize_t name declared \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role && count == 1) \
            return pread64(fd, parts->iov_base, parts->iov_len, at); \
        return plain; \
    }

DEFINE_READV(preadv, (int fd, const struct iovec *parts, int count, off_t at), real(fd, parts, count, at))
DEFINE_READV(preadv64, (int fd, const struct iovec *parts, int count, off64_t at), real(fd, parts, count, at))

/* With RWF_NOWAIT it is a look at the page cache, which may well find nothing. */
#define DEFINE_READV2(name, offset_type) \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type at, int flags) \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0 || count != 1) \
            return real(fd, parts, count, at, flags); \
        if (flags == 0) \
            return pread64(fd, parts->iov_base, parts->iov_len, at); \
        struct iovec part = *parts; \
        enter(); \
        enum action action = judge("peek", role); \
        if (action == SHORT) \
            part.iov_len = shortened(part.iov_len); \
        long result = action == FAIL ? failed() : real(fd, &part, 1, at, flags); \
        result = leave("peek", role, fd, at, (int64_t)parts->iov_len, result, NULL, 0); \
        if (action == KILL_AFTER || action == KILL_TORN) \
            die(); \
        return result; \
    }

DEFINE_READV2(preadv2, off_t)
DEFINE_READV2(preadv64v2, off64_t)

int fsync(int fd)
{
    REAL(fsync);
    char role = role_of(fd);
    if (role == 0)
        return real(fd);
    AROUND("fsync", role, fd, 0, 0, NULL, 0, real(fd));
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    char role = role_of(fd);
    if (role == 0)
        return real(fd);
    AROUND("fdatasync", role, fd, 0, 0, NULL, 0, real(fd));
}

/* Linux closes the descriptor whatever close() says of it. */
int close(int fd)
{
    REAL(close);
    char role = role_of(fd);
    if (role == 0)
        return real(fd);
    enter();
    enum action action = judge("close", role);
    long result = leave("close", role, fd, 0, 0, 0, NULL, 0);
    result = real(fd);
    if (action == KILL_AFTER || action == KILL_TORN)
        die();
    return action == FAIL ? (int)failed() : (int)result;
}

#define DEFINE_FALLOCATE(name, offset_type) \
    int name(int fd, int mode, offset_type at, offset_type length) \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0) \
            return real(fd, mode, at, length); \
        char modes[12]; \
        AROUND("fallocate", role, fd, at, length, modes, (size_t)snprintf(modes, sizeof modes, "%d", mode), \
            real(fd, mode, at, length)); \
    }

DEFINE_FALLOCATE(fallocate, off_t)
DEFINE_FALLOCATE(fallocate64, off64_t)

#define DEFINE_FTRUNCATE(name, offset_type) \
    int name(int fd, offset_type length) \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0) \
            return real(fd, length); \
        AROUND("ftruncate", role, fd, length, 0, NULL, 0, real(fd, length)); \
    }

DEFINE_FTRUNCATE(ftruncate, off_t)
DEFINE_FTRUNCATE(ftruncate64, off64_t)

#define DEFINE_LSEEK(name, offset_type) \
    offset_type name(int fd, offset_type at, int whence) \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0) \
            return real(fd, at, whence); \
        AROUND("lseek", role, fd, at, whence, NULL, 0, real(fd, at, whence)); \
    }

DEFINE_LSEEK(lseek, off_t)
DEFINE_LSEEK(lseek64, off64_t)

int flock(int fd, int operation)
{
    REAL(flock);
    char role = role_of(fd);
    if (role == 0)
        return real(fd, operation);
    AROUND("flock", role, fd, 0, operation, NULL, 0, real(fd, operation));
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    char role = role_of(fd);
    if (role == 0)
        return real(fd, request, argument);
    AROUND("ioctl", role, fd, 0, (int64_t)request, NULL, 0, real(fd, request, argument));
}

#define DEFINE_FADVISE(name, offset_type) \
    int name(int fd, offset_type at, offset_type length, int advice) \
    { \
        REAL(name); \
        char role = role_of(fd); \
        if (role == 0 || judge("fadvise", role) != FAIL) \
            return real(fd, at, length, advice); \
        return (int)rule.value; \
    }

DEFINE_FADVISE(posix_fadvise, off_t)
DEFINE_FADVISE(posix_fadvise64, off64_t)

static int opened(int fd, const char *path, int flags, char role)
{
    return (int)leave("open", role, fd, flags, 0, fd, path, strlen(path));
}

#define DEFINE_OPEN(name, declared, named, expression) \
    int name declared \
    { \
        REAL(name); \
        char place[PATH_MAX] = ""; \
        (void)place; \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        const char *whole = named; \
        char role = role_of_path(whole); \
        if (role == 0) \
            return expression; \
        enter(); \
        enum action action = judge("open", role); \
        int fd = opened(action == FAIL ? (int)failed() : (expression), whole, flags, role); \
        if (action == KILL_AFTER || action == KILL_TORN) \
            die(); \
        return fd; \
    }

DEFINE_OPEN(open, (const char *path, int flags, ...), path, real(path, flags, mode))
DEFINE_OPEN(open64, (const char *path, int flags, ...), path, real(path, flags, mode))
DEFINE_OPEN(openat, (int folder, const char *path, int flags, ...), in_folder(folder, path, place), real(folder, path, flags, mode))
DEFINE_OPEN(openat64, (int folder, const char *path, int flags, ...), in_folder(folder, path, place), real(folder, path, flags, mode))

static size_t both(char *out, const char *from, const char *to)
{
    size_t first = strlen(from) + 1, second = strlen(to);
    if (first + second > 2 * PATH_MAX)
        abort();
    memcpy(out, from, first);
    memcpy(out + first, to, second);
    return first + second;
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    char role = role_of_path(to), names[2 * PATH_MAX];
    if (role == 0)
        return real(from, to);
    AROUND("rename", role, -1, 0, 0, names, both(names, from, to), real(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    REAL(renameat);
    char old[PATH_MAX], new[PATH_MAX], names[2 * PATH_MAX];
    const char *whole = in_folder(to_folder, to, new);
    char role = role_of_path(whole);
    if (role == 0)
        return real(from_folder, from, to_folder, to);
    AROUND("rename", role, -1, 0, 0, names, both(names, in_folder(from_folder, from, old), whole),
        real(from_folder, from, to_folder, to));
}

int link(const char *from, const char *to)
{
    REAL(link);
    char role = role_of_path(to), names[2 * PATH_MAX];
    if (role == 0)
        return real(from, to);
    AROUND("link", role, -1, 0, 0, names, both(names, from, to), real(from, to));
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    REAL(linkat);
    char old[PATH_MAX], new[PATH_MAX], names[2 * PATH_MAX];
    const char *whole = in_folder(to_folder, to, new);
    char role = role_of_path(whole);
    if (role == 0)
        return real(from_folder, from, to_folder, to, flags);
    AROUND("link", role, -1, 0, 0, names, both(names, in_folder(from_folder, from, old), whole),
        real(from_folder, from, to_folder, to, flags));
}

int unlink(const char *path)
{
    REAL(unlink);
    char role = role_of_path(path);
    if (role == 0)
        return real(path);
    AROUND("unlink", role, -1, 0, 0, path, strlen(path), real(path));
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    char place[PATH_MAX];
    const char *whole = in_folder(folder, path, place);
    char role = role_of_path(whole);
    if (role == 0)
        return real(folder, path, flags);
    AROUND("unlink", role, -1, 0, 0, whole, strlen(whole), real(folder, path, flags));
}
