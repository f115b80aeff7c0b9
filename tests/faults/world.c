/* What a process sees of its disk and its clock, between the C library and whoever calls it: recorded, failing, or stepped.
 *
 * Preloaded into every process of a test. WORLD_CONTROL names a file of the struct below, which the test changes while
 * they run; WORLD_FOLDER the folder whose files are meant; WORLD_LOG, if set, the log that tests/faults/power.py replays.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {                  /* tests/faults/world.py has the same */
    _Atomic int64_t offset;       /* ns that CLOCK_REALTIME is ahead of the true one */
    _Atomic int64_t unsynced;     /* 1: the kernel says that nobody sets its clock; 0: that somebody does; -1: the truth */
    _Atomic int64_t sync_ppm;     /* of a million calls of fsync, so many fail with EIO */
    _Atomic int64_t write_ppm;    /* of a million writes */
    _Atomic int64_t dead;         /* every access fails with EIO */
    _Atomic int64_t room;         /* bytes until the disk is full, -1: no end */
    _Atomic uint64_t seed;
    _Atomic uint64_t draws;
    _Atomic uint64_t failed;      /* calls that were failed so far */
};

static struct control *world;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER; /* the log has the order of the calls */

#define REAL(name) ({ static __typeof__(&name) it; if (!it) it = (__typeof__(&name))dlsym(RTLD_NEXT, #name); it; })

__attribute__((constructor)) static void begin(void) {
    const char *control = getenv("WORLD_CONTROL"), *where = getenv("WORLD_FOLDER"), *log = getenv("WORLD_LOG");
    if (!control || !where) return;
    int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDWR | O_CLOEXEC, 0);
    void *map = mmap(NULL, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || map == MAP_FAILED) abort();
    syscall(SYS_close, fd);
    strncpy(folder, where, sizeof folder - 1);
    folder_length = strlen(folder);
    if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    world = map;
}

/* Which descriptors are files of the folder. A number that was given to something else since has another inode. */
#define MAX_FD 65536
static struct { dev_t dev; ino_t ino; } known[MAX_FD];

static int inside(const char *path) {
    return world && path && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int ours(int fd, struct stat *st) {
    if (!world || fd < 0 || fd >= MAX_FD || !known[fd].ino || fstat(fd, st)) return 0;
    return st->st_ino == known[fd].ino && st->st_dev == known[fd].dev;
}

/* Record: one letter, u64 inode, u64 number, u32 length of what follows. */
static void note(char what, uint64_t inode, uint64_t number, const void *data, uint32_t length) {
    if (log_fd < 0) return;
    char head[21];
    head[0] = what;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &number, 8);
    memcpy(head + 17, &length, 4);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, length}};
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof head + length)) abort();
}

static void note_path(char what, uint64_t inode, const char *path) { note(what, inode, 0, path, strlen(path)); }

static int fail(int error) {
    atomic_fetch_add(&world->failed, 1);
    errno = error;
    return 1;
}

static int unlucky(int64_t ppm) {
    if (atomic_load(&world->dead)) return fail(EIO);
    if (!ppm) return 0;
    uint64_t x = atomic_load(&world->seed) + 0x9E3779B97F4A7C15u * (1 + atomic_fetch_add(&world->draws, 1));
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u; /* splitmix64 */
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (int64_t)((x ^ (x >> 31)) % 1000000) < ppm && fail(EIO);
}

/* How many of `n` bytes from `offset` on find room; -1 and ENOSPC where none does. */
static ssize_t fits(const struct stat *st, off_t offset, size_t n) {
    int64_t growth = offset + (int64_t)n - st->st_size, room = atomic_load(&world->room);
    if (room < 0 || growth <= 0) return n;
    if (growth > room) {
        if ((int64_t)n <= growth - room) return fail(ENOSPC), -1;
        n -= growth - room;
        growth = room;
    }
    atomic_fetch_sub(&world->room, growth);
    return n;
}

static void freed(int64_t bytes) {
    if (bytes > 0 && atomic_load(&world->room) >= 0) atomic_fetch_add(&world->room, bytes);
}

/* Opening */

static int opened(const char *path, int flags, mode_t mode) {
    if (unlucky(0)) return -1;
    pthread_mutex_lock(&order);
    struct stat before, st;
    int existed = !stat(path, &before);
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < MAX_FD && !fstat(fd, &st)) {
        known[fd].dev = st.st_dev;
        known[fd].ino = st.st_ino;
        if (!S_ISDIR(st.st_mode)) note_path(existed ? 'O' : 'C', st.st_ino, path);
        if (existed && (flags & O_TRUNC)) {
            note('T', st.st_ino, 0, NULL, 0);
            freed(before.st_size);
        }
    }
    pthread_mutex_unlock(&order);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list rest;                                                           \
        va_start(rest, flags);                                                  \
        mode_t mode = mode_of(flags, rest);                                     \
        va_end(rest);                                                           \
        if (inside(path)) return opened(path, flags, mode);                     \
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);                \
    }
#define OPENAT(name)                                                            \
    int name(int at, const char *path, int flags, ...) {                        \
        va_list rest;                                                           \
        va_start(rest, flags);                                                  \
        mode_t mode = mode_of(flags, rest);                                     \
        va_end(rest);                                                           \
        if (inside(path)) return opened(path, flags, mode);                     \
        return syscall(SYS_openat, at, path, flags, mode);                      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* Reading and writing */

ssize_t read(int fd, void *buffer, size_t n) {
    struct stat st;
    if (ours(fd, &st) && unlucky(0)) return -1;
    return REAL(read)(fd, buffer, n);
}

ssize_t pread64(int fd, void *buffer, size_t n, off64_t offset) {
    struct stat st;
    if (ours(fd, &st) && unlucky(0)) return -1;
    return REAL(pread64)(fd, buffer, n, offset);
}
ssize_t pread(int fd, void *buffer, size_t n, off_t offset) __attribute__((alias("pread64")));

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
    struct stat st;
    if (!ours(fd, &st)) return REAL(pwrite64)(fd, data, n, offset);
    if (unlucky(atomic_load(&world->write_ppm))) return -1;
    pthread_mutex_lock(&order);
    ssize_t done = fits(&st, offset, n);
    if (done >= 0) done = REAL(pwrite64)(fd, data, done, offset);
    if (done > 0) note('W', st.st_ino, offset, data, done);
    pthread_mutex_unlock(&order);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) __attribute__((alias("pwrite64")));

ssize_t write(int fd, const void *data, size_t n) {
    struct stat st;
    if (!ours(fd, &st)) return REAL(write)(fd, data, n);
    if (unlucky(atomic_load(&world->write_ppm))) return -1;
    pthread_mutex_lock(&order);
    off_t offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t done = fits(&st, offset, n);
    if (done >= 0) done = REAL(write)(fd, data, done);
    if (done > 0) note('W', st.st_ino, offset, data, done);
    pthread_mutex_unlock(&order);
    return done;
}

/* Sizes and names */

int ftruncate64(int fd, off64_t size) {
    struct stat st;
    if (!ours(fd, &st)) return REAL(ftruncate64)(fd, size);
    if (unlucky(atomic_load(&world->write_ppm))) return -1;
    pthread_mutex_lock(&order);
    int failed = REAL(ftruncate64)(fd, size);
    if (!failed) {
        note('T', st.st_ino, size, NULL, 0);
        freed(st.st_size - size);
    }
    pthread_mutex_unlock(&order);
    return failed;
}
int ftruncate(int fd, off_t size) __attribute__((alias("ftruncate64")));

int posix_fallocate64(int fd, off64_t offset, off64_t n) {
    struct stat st;
    if (!ours(fd, &st)) return REAL(posix_fallocate64)(fd, offset, n);
    if (unlucky(atomic_load(&world->write_ppm))) return EIO;
    pthread_mutex_lock(&order);
    int failed = fits(&st, offset, n) < (ssize_t)n ? ENOSPC : REAL(posix_fallocate64)(fd, offset, n);
    if (!failed && offset + n > st.st_size) note('T', st.st_ino, offset + n, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}
int posix_fallocate(int fd, off_t offset, off_t n) __attribute__((alias("posix_fallocate64")));

int unlink(const char *path) {
    struct stat st;
    if (!inside(path)) return REAL(unlink)(path);
    if (unlucky(0)) return -1;
    pthread_mutex_lock(&order);
    int there = !stat(path, &st), failed = REAL(unlink)(path);
    if (!failed) note_path('U', 0, path);
    if (!failed && there && st.st_nlink == 1) freed(st.st_size);
    pthread_mutex_unlock(&order);
    return failed;
}

int rename(const char *from, const char *to) {
    struct stat st;
    if (!inside(from) || !inside(to)) return REAL(rename)(from, to);
    if (unlucky(0)) return -1;
    pthread_mutex_lock(&order);
    int there = !stat(to, &st), failed = REAL(rename)(from, to);
    if (!failed) {
        char both[2 * PATH_MAX];
        size_t n = strlen(from), m = strlen(to);
        memcpy(both, from, n + 1);
        memcpy(both + n + 1, to, m);
        note('R', 0, 0, both, n + 1 + m);
        if (there) freed(st.st_size);
    }
    pthread_mutex_unlock(&order);
    return failed;
}

int statvfs64(const char *path, struct statvfs64 *disk) {
    int failed = inside(path) && unlucky(0) ? -1 : REAL(statvfs64)(path, disk);
    int64_t room = world ? atomic_load(&world->room) : -1;
    if (!failed && inside(path) && room >= 0) disk->f_bavail = disk->f_bfree = room / disk->f_frsize;
    return failed;
}
int statvfs(const char *path, struct statvfs *disk) { return statvfs64(path, (struct statvfs64 *)disk); }

static int synced(int fd, int (*sync)(int)) {
    struct stat st;
    if (!ours(fd, &st)) return sync(fd);
    if (unlucky(atomic_load(&world->sync_ppm))) return -1;
    pthread_mutex_lock(&order);
    int failed = log_fd < 0 && sync(fd); /* where the log stands for the disk, there is nothing to wait for */
    if (!failed) note(S_ISDIR(st.st_mode) ? 'D' : 'S', st.st_ino, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}
int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

/* The clock: only the one on the wall can be wrong. */

static int64_t offset(void) { return world ? atomic_load(&world->offset) : 0; }

static void shift(struct timespec *now) {
    int64_t ns = now->tv_sec * 1000000000LL + now->tv_nsec + offset();
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = REAL(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(now);
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (at) *at = exact.tv_sec;
    return exact.tv_sec;
}

int adjtimex(struct timex *state) {
    int answer = REAL(adjtimex)(state);
    int64_t unsynced = world ? atomic_load(&world->unsynced) : -1;
    if (unsynced < 0 || answer < 0) return answer;
    state->status = unsynced ? state->status | STA_UNSYNC : state->status & ~STA_UNSYNC;
    state->time.tv_sec += offset() / 1000000000;
    return unsynced ? TIME_ERROR : TIME_OK;
}
int ntp_adjtime(struct timex *state) __attribute__((alias("adjtimex")));
