// What it takes at least that one process waits for another, by futexes in memory that both see.
//
//   futex_handover [--iterations N] [--copy] [--client-cpu N] [--server-cpu N]
//   futex_handover --one-way [--iterations N] [--hold-us N] [--client-cpu N] [--server-cpu N]
//
// There and back: the client wakes the server and sleeps until the server wakes it; with --copy it
// then copies 4 KiB from a memfd that the server has written to one of its own, as a page fault
// does. One way: the two hand a turn to each other, from before the wake-up until the other runs;
// whoever has the turn works for --hold-us first, so that the other sleeps by then. Nobody spins.
// Prints {"samplesUs":[…]}.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"

enum { kWarmUp = 100, kMaxIterations = 10000000, kPages = 256 };

typedef struct {
  size_t iterations;
  size_t hold_us;
  bool copy;
  bool one_way;
  int cpus[2];
} Options;

typedef struct {
  Signal request;  // there and back: of the client
  Signal answer;   // of the server
  Signal turn;     // one way: the number of the turn that has begun
  _Alignas(kCacheLineBytes) int64_t handed_ns;
} Shared;

static Shared* shared;
static uint64_t* home;   // the server's pages; the first word of each numbers the answer
static uint64_t* frame;  // the client's

static uint64_t* PageOf(uint64_t* pages, size_t i) {
  return pages + (i % kPages) * (kPageBytes / sizeof(uint64_t));
}

static void Serve(size_t count) {
  for (size_t i = 0; i < count; i++) {
    AwaitSignal(&shared->request, (uint32_t)i + 1);
    *PageOf(home, i) = i + 1;
    SetSignal(&shared->answer, (uint32_t)i + 1);
  }
}

static void MeasureRoundTrips(const Options* options, size_t count, int64_t* samples_ns) {
  for (size_t i = 0; i < count; i++) {
    const int64_t before_ns = NowNs();
    SetSignal(&shared->request, (uint32_t)i + 1);
    AwaitSignal(&shared->answer, (uint32_t)i + 1);
    if (options->copy) memcpy(PageOf(frame, i), PageOf(home, i), kPageBytes);
    const int64_t after_ns = NowNs();
    if (options->copy && *PageOf(frame, i) != i + 1) FailCheck("the page has not come", i);
    samples_ns[i] = after_ns - before_ns;
  }
}

// Turn i is handed by the process whose number is i's parity, and timed by the other.
static void TakeTurns(size_t me, const Options* options, size_t count, int64_t* samples_ns) {
  for (size_t i = 0; i < count; i++) {
    if (i % 2 == me) {
      WorkUs(options->hold_us);
      shared->handed_ns = NowNs();
      SetSignal(&shared->turn, (uint32_t)i + 1);
    } else {
      AwaitSignal(&shared->turn, (uint32_t)i + 1);
      samples_ns[i] = NowNs() - shared->handed_ns;
    }
  }
}

static void Usage(void) {
  fprintf(stderr,
          "usage: futex_handover [--one-way] [--iterations N] [--copy] [--hold-us N] "
          "[--client-cpu N] [--server-cpu N]\n");
  exit(2);
}

static Options ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"iterations", required_argument, NULL, 'i'},
      {"hold-us", required_argument, NULL, 'h'},
      {"copy", no_argument, NULL, 'y'},
      {"one-way", no_argument, NULL, 'o'},
      {"client-cpu", required_argument, NULL, 'c'},
      {"server-cpu", required_argument, NULL, 'v'},
      {NULL, 0, NULL, 0},
  };
  Options options = {.iterations = 1000, .cpus = {-1, -1}};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'i':
        options.iterations = ParseCount("iterations", optarg, 1, kMaxIterations);
        break;
      case 'h':
        options.hold_us = ParseCount("hold-us", optarg, 0, 1000000);
        break;
      case 'y':
        options.copy = true;
        break;
      case 'o':
        options.one_way = true;
        break;
      case 'c':
        options.cpus[0] = ParseCpu("client-cpu", optarg);
        break;
      case 'v':
        options.cpus[1] = ParseCpu("server-cpu", optarg);
        break;
      default:
        Usage();
    }
  }
  if (optind != argc || (options.one_way && options.copy)) Usage();
  if (!options.one_way && options.hold_us > 0) Usage();
  return options;
}

int main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const size_t count = kWarmUp + options.iterations;
  const size_t bytes = (size_t)kPages * kPageBytes;
  shared = MapShared(sizeof(*shared));
  int64_t* samples_ns = MapShared(count * sizeof(*samples_ns));
  home = (uint64_t*)MapMemfd(MakeMemfd("home", bytes), bytes, PROT_READ | PROT_WRITE);
  frame = (uint64_t*)MapMemfd(MakeMemfd("frame", bytes), bytes, PROT_READ | PROT_WRITE);
  memset(home, 0, bytes);
  memset(frame, 0, bytes);
  pid_t server;
  if (ForkPeer(&server)) {
    PinTo(options.cpus[1]);
    if (options.one_way) {
      TakeTurns(1, &options, count, samples_ns);
    } else {
      Serve(count);
    }
    return 0;
  }
  PinTo(options.cpus[0]);
  if (options.one_way) {
    TakeTurns(0, &options, count, samples_ns);
  } else {
    MeasureRoundTrips(&options, count, samples_ns);
  }
  ExpectGoodEnd(server);
  const uint32_t turns = atomic_load(options.one_way ? &shared->turn.value : &shared->answer.value);
  if (turns != count) FailCheck("not every turn was taken", turns);
  PrintSamples(samples_ns + kWarmUp, options.iterations);
  return 0;
}
