// The floor that a lock handed over by TCP stands on: one small message to a process that sleeps in
// recv(), over loopback, from before send() until the other has it. Two processes do so in turn.
//
//   socket_message [--iterations N] [--hold-us N] [--client-cpu N] [--server-cpu N]
//
// Whoever has the turn works for --hold-us before it sends, as whoever holds a lock does: the other
// has gone to sleep by then. Prints {"samplesUs":[…]}.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"
#include "sockets.h"

enum { kWarmUp = 20, kMaxIterations = 10000000 };

typedef struct {
  int64_t sent_ns;
  uint64_t number;
} Message;

typedef struct {
  size_t iterations;
  size_t hold_us;
  int cpus[2];
} Options;

// Messages go to and fro; each side writes the samples of those that it gets.
static void TakeTurns(int socket_fd, size_t me, const Options* options, int64_t* samples_ns) {
  for (size_t i = 0; i < kWarmUp + options->iterations; i++) {
    if (i % 2 == me) {
      WorkUs(options->hold_us);
      const Message message = {.sent_ns = NowNs(), .number = i};
      SendAll(socket_fd, &message, sizeof(message), 0);
    } else {
      Message message;
      MustReceive(socket_fd, &message, sizeof(message), 0);
      const int64_t received_ns = NowNs();
      if (message.number != i) FailCheck("not the message that is due", i);
      if (i >= kWarmUp) samples_ns[i - kWarmUp] = received_ns - message.sent_ns;
    }
  }
}

static void Usage(void) {
  fprintf(stderr,
          "usage: socket_message [--iterations N] [--hold-us N] [--client-cpu N] "
          "[--server-cpu N]\n");
  exit(2);
}

static Options ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"iterations", required_argument, NULL, 'i'},
      {"hold-us", required_argument, NULL, 'h'},
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
  if (optind != argc) Usage();
  return options;
}

int main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  int64_t* samples_ns = MapShared(options.iterations * sizeof(*samples_ns));
  int ends[2];
  ConnectPair(ends);
  pid_t other;
  if (ForkPeer(&other)) {
    PinTo(options.cpus[1]);
    close(ends[0]);
    TakeTurns(ends[1], 1, &options, samples_ns);
    return 0;
  }
  PinTo(options.cpus[0]);
  close(ends[1]);
  TakeTurns(ends[0], 0, &options, samples_ns);
  ExpectGoodEnd(other);
  PrintSamples(samples_ns, options.iterations);
  return 0;
}
