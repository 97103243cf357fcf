// A barrier of several processes by hand: dissemination in ceil(log2 n) rounds (Hensgen, Finkel and
// Manber, "Two algorithms for barrier synchronization", 1988). In round k each process tells the
// one 2^k further on and waits for the one 2^k before.
//
//   barrier [--members N] [--iterations N] [--sockets] [--cpus N,N,…]
//
// By futexes in shared memory, or with --sockets by blocking TCP connections over loopback. Nobody
// spins. Process i runs on the (i mod count)-th of the cores. Prints {"samplesUs":[…]}: the time of
// each barrier at process 0, one after the other.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"
#include "sockets.h"

enum { kWarmUp = 50, kMaxMembers = 64, kMaxRounds = 6, kMaxIterations = 10000000 };

typedef struct {
  size_t members;
  size_t iterations;
  bool sockets;
  int cpus[CPU_SETSIZE];
  size_t cpu_count;
} Options;

typedef struct {
  Signal flags[kMaxMembers][kMaxRounds];  // counts up, by one for each barrier
  Signal arrived[kMaxMembers];            // the barrier that each has come to: only for the check
} Shared;

static Options options;
static size_t rounds;
static Shared* shared;
static int out[kMaxMembers][kMaxRounds];  // sockets by who sends on them
static int in[kMaxMembers][kMaxRounds];   // and by who receives

static void Connect(void) {
  for (size_t i = 0; i < options.members; i++) {
    for (size_t k = 0; k < rounds; k++) {
      int ends[2];
      ConnectPair(ends);
      out[i][k] = ends[0];
      in[(i + ((size_t)1 << k)) % options.members][k] = ends[1];
    }
  }
}

static void Pass(size_t me, uint64_t number) {
  for (size_t k = 0; k < rounds; k++) {
    if (options.sockets) {
      SendAll(out[me][k], &number, sizeof(number), 0);
      uint64_t told;
      MustReceive(in[me][k], &told, sizeof(told), 0);
      if (told != number) FailCheck("not the barrier that is due", (size_t)number);
    } else {
      const size_t next = (me + ((size_t)1 << k)) % options.members;
      SetSignal(&shared->flags[next][k], (uint32_t)number);
      AwaitSignal(&shared->flags[me][k], (uint32_t)number);
    }
  }
}

static void TakePart(size_t me, int64_t* samples_ns) {
  if (options.cpu_count > 0) PinTo(options.cpus[me % options.cpu_count]);
  for (size_t i = 1; i <= kWarmUp + options.iterations; i++) {
    atomic_store_explicit(&shared->arrived[me].value, (uint32_t)i, memory_order_relaxed);
    const int64_t before_ns = NowNs();
    Pass(me, i);
    const int64_t after_ns = NowNs();
    for (size_t other = 0; other < options.members; other++) {
      if (atomic_load_explicit(&shared->arrived[other].value, memory_order_relaxed) < i) {
        FailCheck("passed before this process had come", other);
      }
    }
    if (samples_ns != NULL && i > kWarmUp) samples_ns[i - kWarmUp - 1] = after_ns - before_ns;
  }
}

static void Usage(void) {
  fprintf(stderr, "usage: barrier [--members N] [--iterations N] [--sockets] [--cpus N,N,...]\n");
  exit(2);
}

static void ParseCpus(char* text) {
  for (char* part = strtok(text, ","); part != NULL; part = strtok(NULL, ",")) {
    if (options.cpu_count == CPU_SETSIZE) Usage();
    options.cpus[options.cpu_count++] = ParseCpu("cpus", part);
  }
}

static void ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"members", required_argument, NULL, 'n'},
      {"iterations", required_argument, NULL, 'i'},
      {"sockets", no_argument, NULL, 's'},
      {"cpus", required_argument, NULL, 'c'},
      {NULL, 0, NULL, 0},
  };
  options = (Options){.members = 2, .iterations = 1000};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'n':
        options.members = ParseCount("members", optarg, 2, kMaxMembers);
        break;
      case 'i':
        options.iterations = ParseCount("iterations", optarg, 1, kMaxIterations);
        break;
      case 's':
        options.sockets = true;
        break;
      case 'c':
        ParseCpus(optarg);
        break;
      default:
        Usage();
    }
  }
  if (optind != argc) Usage();
}

int main(int argc, char** argv) {
  ParseOptions(argc, argv);
  while (((size_t)1 << rounds) < options.members) rounds++;
  shared = MapShared(sizeof(*shared));
  if (options.sockets) Connect();
  int64_t* samples_ns = Allocate(options.iterations, sizeof(*samples_ns));
  pid_t others[kMaxMembers];
  for (size_t me = 1; me < options.members; me++) {
    if (ForkPeer(&others[me])) {
      TakePart(me, NULL);
      return 0;
    }
  }
  TakePart(0, samples_ns);
  for (size_t me = 1; me < options.members; me++) ExpectGoodEnd(others[me]);
  PrintSamples(samples_ns, options.iterations);
  free(samples_ns);
  return 0;
}
