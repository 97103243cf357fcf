// What the programs of this folder share: failing, the clock, options, memory that two processes
// see, futexes in it, and the form in which samples are printed.
#ifndef PAGEMESH_BENCH_FLOOR_FLOOR_H_
#define PAGEMESH_BENCH_FLOOR_FLOOR_H_

// Include with _GNU_SOURCE defined.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kPageBytes = 4096, kCacheLineBytes = 64 };

static inline void Fail(const char* what) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
  exit(1);
}

// What was measured is not what was meant: no figure.
static inline void FailCheck(const char* what, size_t where) {
  fprintf(stderr, "%s: %s (%zu)\n", program_invocation_short_name, what, where);
  exit(1);
}

static inline int64_t NowNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void SleepUs(size_t duration_us) {
  if (duration_us == 0) return;
  const struct timespec duration = {.tv_sec = (time_t)(duration_us / 1000000),
                                    .tv_nsec = (long)(duration_us % 1000000) * 1000};
  nanosleep(&duration, NULL);
}

// Keeps the core, as a program that works meanwhile does.
static inline void WorkUs(size_t duration_us) {
  if (duration_us == 0) return;
  const int64_t end_ns = NowNs() + (int64_t)duration_us * 1000;
  while (NowNs() < end_ns) continue;
}

// A negative core: wherever the scheduler likes.
static inline void PinTo(int cpu) {
  if (cpu < 0) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET((size_t)cpu, &cpus);
  if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0) Fail("sched_setaffinity");
}

static inline size_t ParseCount(const char* option, const char* text, size_t least, size_t most) {
  char* end = NULL;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
    fprintf(stderr, "%s: --%s takes a whole number from %zu to %zu, not '%s'\n",
            program_invocation_short_name, option, least, most, text);
    exit(2);
  }
  return (size_t)value;
}

static inline int ParseCpu(const char* option, const char* text) {
  return (int)ParseCount(option, text, 0, CPU_SETSIZE - 1);
}

static inline void* Allocate(size_t count, size_t item_bytes) {
  void* memory = calloc(count, item_bytes);
  if (memory == NULL) Fail("calloc");
  return memory;
}

// Memory that children made by fork share.
static inline void* MapShared(size_t bytes) {
  void* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Fail("mmap");
  return memory;
}

static inline int MakeMemfd(const char* name, size_t bytes) {
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) Fail("memfd_create");
  return fd;
}

static inline uint8_t* MapMemfd(int fd, size_t bytes, int protection) {
  void* memory = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) Fail("mmap of a memfd");
  return memory;
}

// A word that another process waits for, on a cache line of its own.
typedef struct {
  _Alignas(kCacheLineBytes) _Atomic uint32_t value;
} Signal;

// Sleeps until the word is `wanted`, which it reaches by counting up; no spinning.
static inline void AwaitSignal(Signal* signal, uint32_t wanted) {
  for (;;) {
    const uint32_t seen = atomic_load_explicit(&signal->value, memory_order_acquire);
    if ((int32_t)(seen - wanted) >= 0) return;
    if (syscall(SYS_futex, &signal->value, FUTEX_WAIT, seen, NULL, NULL, 0) != 0 &&
        errno != EAGAIN && errno != EINTR) {
      Fail("FUTEX_WAIT");
    }
  }
}

static inline void SetSignal(Signal* signal, uint32_t value) {
  atomic_store_explicit(&signal->value, value, memory_order_release);
  if (syscall(SYS_futex, &signal->value, FUTEX_WAKE, 1, NULL, NULL, 0) < 0) Fail("FUTEX_WAKE");
}

// True in the child, which must not outlive a parent that was killed.
static inline bool ForkPeer(pid_t* child) {
  *child = fork();
  if (*child < 0) Fail("fork");
  if (*child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  return *child == 0;
}

static inline void ExpectGoodEnd(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) Fail("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "%s: the other process failed (status %d)\n", program_invocation_short_name,
            status);
    exit(1);
  }
}

static inline void PrintArray(const int64_t* samples_ns, size_t count) {
  printf("\"samplesUs\":[");
  for (size_t i = 0; i < count; i++) {
    printf("%s%.3f", i == 0 ? "" : ",", (double)samples_ns[i] / 1e3);
  }
  printf("]");
}

static inline void PrintSamples(const int64_t* samples_ns, size_t count) {
  printf("{");
  PrintArray(samples_ns, count);
  printf("}\n");
}

#endif  // PAGEMESH_BENCH_FLOOR_FLOOR_H_
