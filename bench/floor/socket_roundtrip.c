// The floor that a page fault over TCP stands on: two processes on one machine, one TCP connection
// over loopback. The client sends a small request, the server answers with a page's worth of
// bytes, and the client takes the time of every round trip.
//
//   socket_roundtrip [--iterations N] [--request-bytes N] [--reply-bytes N] [--spin] [--raw]
//                    [--pause-us N] [--client-cpu N] [--server-cpu N]
//
// Blocking sockets, so that both sides sleep while they wait; with --spin both poll instead, and
// with --pause-us the client sleeps before each request, so that both cores have gone to sleep.
// Where the two processes run decides more than anything else (5 us on one core against 70 us on
// two that sleep, on one machine): left alone, the scheduler chooses; the --*-cpu options pin.
// Prints one JSON object: {"medianUs","p99Us","iterations"}, and "samplesUs" with --raw.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"
#include "sockets.h"

enum { kMaxWarmUp = 200, kMaxIterations = 100000000, kMaxMessageBytes = 64 * 1024 * 1024 };

typedef struct {
  size_t iterations;
  size_t request_bytes;
  size_t reply_bytes;
  size_t pause_us;
  bool spin;
  bool raw;
  int client_cpu;
  int server_cpu;
} Options;

static unsigned char* AllocateBytes(size_t length) {
  unsigned char* bytes = Allocate(length, 1);
  memset(bytes, 0x5a, length);
  return bytes;
}

static void Serve(int socket_fd, const Options* options) {
  unsigned char* request = AllocateBytes(options->request_bytes);
  unsigned char* reply = AllocateBytes(options->reply_bytes);
  const int flags = options->spin ? MSG_DONTWAIT : 0;
  while (ReceiveAll(socket_fd, request, options->request_bytes, flags)) {
    // The first byte comes back, so that the client can tell an answer from a leftover.
    reply[0] = request[0];
    SendAll(socket_fd, reply, options->reply_bytes, flags);
  }
  free(request);
  free(reply);
}

static void MeasureRoundTrips(int socket_fd, const Options* options, int64_t* samples_ns) {
  unsigned char* request = AllocateBytes(options->request_bytes);
  unsigned char* reply = AllocateBytes(options->reply_bytes);
  const int flags = options->spin ? MSG_DONTWAIT : 0;
  // Pauses take long, and what there is to warm up is warm after a few.
  const size_t warm_up = options->pause_us > 0 ? kMaxWarmUp / 20 : kMaxWarmUp;
  for (size_t i = 0; i < warm_up + options->iterations; ++i) {
    request[0] = (unsigned char)i;
    SleepUs(options->pause_us);
    const int64_t before_ns = NowNs();
    SendAll(socket_fd, request, options->request_bytes, flags);
    MustReceive(socket_fd, reply, options->reply_bytes, flags);
    const int64_t after_ns = NowNs();
    if (reply[0] != request[0]) FailCheck("wrong answer in iteration", i);
    if (i >= warm_up) samples_ns[i - warm_up] = after_ns - before_ns;
  }
  free(request);
  free(reply);
}

static int CompareSamples(const void* left, const void* right) {
  const int64_t a = *(const int64_t*)left;
  const int64_t b = *(const int64_t*)right;
  return (a > b) - (a < b);
}

static double MedianUs(const int64_t* sorted_ns, size_t count) {
  const int64_t low = sorted_ns[(count - 1) / 2];
  const int64_t high = sorted_ns[count / 2];
  return (double)(low + high) / 2e3;
}

// Nearest rank: the smallest sample that at least 99 % of the samples do not exceed.
static double P99Us(const int64_t* sorted_ns, size_t count) {
  const size_t rank = (count * 99 + 99) / 100;
  return (double)sorted_ns[rank - 1] / 1e3;
}

static void PrintReport(const Options* options, int64_t* samples_ns) {
  const size_t count = options->iterations;
  int64_t* sorted_ns = Allocate(count, sizeof(*sorted_ns));
  memcpy(sorted_ns, samples_ns, count * sizeof(*sorted_ns));
  qsort(sorted_ns, count, sizeof(*sorted_ns), CompareSamples);
  printf("{\"medianUs\":%.3f,\"p99Us\":%.3f,\"iterations\":%zu", MedianUs(sorted_ns, count),
         P99Us(sorted_ns, count), count);
  if (options->raw) {
    printf(",");
    PrintArray(samples_ns, count);
  }
  printf("}\n");
  free(sorted_ns);
}

static void Usage(void) {
  fprintf(stderr,
          "usage: socket_roundtrip [--iterations N] [--request-bytes N] [--reply-bytes N] "
          "[--spin] [--raw] [--pause-us N] [--client-cpu N] [--server-cpu N]\n");
  exit(2);
}

static Options ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"iterations", required_argument, NULL, 'i'},
      {"request-bytes", required_argument, NULL, 'q'},
      {"reply-bytes", required_argument, NULL, 'r'},
      {"pause-us", required_argument, NULL, 'p'},
      {"client-cpu", required_argument, NULL, 'c'},
      {"server-cpu", required_argument, NULL, 'v'},
      {"spin", no_argument, NULL, 's'},
      {"raw", no_argument, NULL, 'w'},
      {NULL, 0, NULL, 0},
  };
  Options options = {.iterations = 10000,
                     .request_bytes = 8,
                     .reply_bytes = 4096,
                     .client_cpu = -1,
                     .server_cpu = -1};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'i':
        options.iterations = ParseCount("iterations", optarg, 1, kMaxIterations);
        break;
      case 'q':
        options.request_bytes = ParseCount("request-bytes", optarg, 1, kMaxMessageBytes);
        break;
      case 'r':
        options.reply_bytes = ParseCount("reply-bytes", optarg, 1, kMaxMessageBytes);
        break;
      case 'p':
        options.pause_us = ParseCount("pause-us", optarg, 0, 1000000);
        break;
      case 's':
        options.spin = true;
        break;
      case 'c':
        options.client_cpu = ParseCpu("client-cpu", optarg);
        break;
      case 'v':
        options.server_cpu = ParseCpu("server-cpu", optarg);
        break;
      case 'w':
        options.raw = true;
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
  int64_t* samples_ns = Allocate(options.iterations, sizeof(*samples_ns));
  int ends[2];
  ConnectPair(ends);
  pid_t server;
  if (ForkPeer(&server)) {
    PinTo(options.server_cpu);
    close(ends[0]);
    Serve(ends[1], &options);
    return 0;
  }
  PinTo(options.client_cpu);
  close(ends[1]);
  MeasureRoundTrips(ends[0], &options, samples_ns);
  close(ends[0]);
  ExpectGoodEnd(server);
  PrintReport(&options, samples_ns);
  free(samples_ns);
  return 0;
}
