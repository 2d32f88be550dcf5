/* Preloaded into a slurmd (LD_PRELOAD) on a machine that has cgroup v1 mounted beside cgroup v2.
 *
 * Slurm's cgroup/v2 plugin refuses such a "hybrid" machine because /proc/PID/cgroup lists the v1 hierarchies too. Whoever
 * opens one of these files gets a copy that has the line of cgroup v2 only ("0::/..."), as on a machine without v1. All
 * other files are left alone. For test clusters: what Slurm then does in cgroup v2 is real.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The next definition of a function, which is the C library's. */
#define LIBC(type, name) ((type)dlsym(RTLD_NEXT, name))

typedef int (*open_fn)(const char *, int, ...);
typedef int (*openat_fn)(int, const char *, int, ...);
typedef FILE *(*fopen_fn)(const char *, const char *);

static int is_listing(const char *path)
{
	return path && fnmatch("/proc/*/cgroup", path, FNM_PATHNAME) == 0;
}

/* A file in memory with the listing's v2 line; -1 where the listing cannot be read or has none. */
static int v2_line(const char *path)
{
	char text[16384], *line;
	int copy = -1, listing = LIBC(open_fn, "open")(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = listing < 0 ? -1 : read(listing, text, sizeof text - 1);

	if (listing >= 0)
		close(listing);
	if (size <= 0)
		return -1;
	text[size] = 0;
	for (line = text; line && strncmp(line, "0::", 3); line = strchr(line, '\n'), line += line != NULL)
		;
	if (line) {
		size_t length = strcspn(line, "\n") + 1;

		copy = memfd_create("cgroup", MFD_CLOEXEC);
		if (copy >= 0 && write(copy, line, length) == (ssize_t)length && lseek(copy, 0, SEEK_SET) == 0)
			return copy;
		if (copy >= 0)
			close(copy);
	}
	return -1;
}

static mode_t mode_of(int flags, va_list more)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

#define OPEN(name)                                                                                     \
	int name(const char *path, int flags, ...)                                                     \
	{                                                                                              \
		va_list more;                                                                          \
		int copy = is_listing(path) ? v2_line(path) : -1;                                      \
		va_start(more, flags);                                                                 \
		mode_t mode = mode_of(flags, more);                                                    \
		va_end(more);                                                                          \
		return copy >= 0 ? copy : LIBC(open_fn, #name)(path, flags, mode);                     \
	}

#define OPENAT(name)                                                                                   \
	int name(int folder, const char *path, int flags, ...)                                         \
	{                                                                                              \
		va_list more;                                                                          \
		int copy = is_listing(path) ? v2_line(path) : -1;                                      \
		va_start(more, flags);                                                                 \
		mode_t mode = mode_of(flags, more);                                                    \
		va_end(more);                                                                          \
		return copy >= 0 ? copy : LIBC(openat_fn, #name)(folder, path, flags, mode);           \
	}

#define FOPEN(name)                                                                                    \
	FILE *name(const char *path, const char *mode)                                                 \
	{                                                                                              \
		int copy = is_listing(path) ? v2_line(path) : -1;                                      \
		return copy >= 0 ? fdopen(copy, mode) : LIBC(fopen_fn, #name)(path, mode);             \
	}

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)
