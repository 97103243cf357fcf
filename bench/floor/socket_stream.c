// The floor that a scan over TCP stands on: how quickly bytes come by one connection over loopback
// when nothing is asked and nothing looked at. One process sends, the other receives.
//
//   socket_stream [--mib N] [--passes N] [--client-cpu N] [--server-cpu N]
//
// Both use one buffer of 256 KiB again and again. Prints {"samplesUs":[…]}: the time of each pass
// of N MiB, the first, which warms up, left out.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"
#include "sockets.h"

enum { kChunkBytes = 256 * 1024, kMaxPasses = 1000 };

typedef struct {
  size_t mib;
  size_t passes;
  int client_cpu;
  int server_cpu;
} Options;

static size_t ChunkCount(const Options* options) { return options->mib * (1048576 / kChunkBytes); }

// A pass is asked for by one byte, and numbers its chunks in their first words.
static void Stream(int socket_fd, const Options* options) {
  uint64_t* chunk = Allocate(1, kChunkBytes);
  uint8_t go;
  while (ReceiveAll(socket_fd, &go, 1, 0)) {
    for (size_t i = 0; i < ChunkCount(options); i++) {
      chunk[0] = i;
      SendAll(socket_fd, chunk, kChunkBytes, 0);
    }
  }
  free(chunk);
}

static int64_t TimePass(int socket_fd, const Options* options, uint64_t* chunk) {
  const uint8_t go = 1;
  const int64_t start_ns = NowNs();
  SendAll(socket_fd, &go, 1, 0);
  for (size_t i = 0; i < ChunkCount(options); i++) {
    MustReceive(socket_fd, chunk, kChunkBytes, 0);
    if (chunk[0] != i) FailCheck("not the chunk that is due", i);
  }
  return NowNs() - start_ns;
}

static void Usage(void) {
  fprintf(stderr,
          "usage: socket_stream [--mib N] [--passes N] [--client-cpu N] [--server-cpu N]\n");
  exit(2);
}

static Options ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"mib", required_argument, NULL, 'm'},
      {"passes", required_argument, NULL, 'p'},
      {"client-cpu", required_argument, NULL, 'c'},
      {"server-cpu", required_argument, NULL, 'v'},
      {NULL, 0, NULL, 0},
  };
  Options options = {.mib = 256, .passes = 3, .client_cpu = -1, .server_cpu = -1};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'm':
        options.mib = ParseCount("mib", optarg, 1, 1048576);
        break;
      case 'p':
        options.passes = ParseCount("passes", optarg, 1, kMaxPasses);
        break;
      case 'c':
        options.client_cpu = ParseCpu("client-cpu", optarg);
        break;
      case 'v':
        options.server_cpu = ParseCpu("server-cpu", optarg);
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
  int ends[2];
  ConnectPair(ends);
  pid_t sender;
  if (ForkPeer(&sender)) {
    PinTo(options.server_cpu);
    close(ends[0]);
    Stream(ends[1], &options);
    return 0;
  }
  PinTo(options.client_cpu);
  close(ends[1]);
  uint64_t* chunk = Allocate(1, kChunkBytes);
  int64_t samples_ns[kMaxPasses];
  TimePass(ends[0], &options, chunk);
  for (size_t i = 0; i < options.passes; i++) samples_ns[i] = TimePass(ends[0], &options, chunk);
  close(ends[0]);
  ExpectGoodEnd(sender);
  PrintSamples(samples_ns, options.passes);
  free(chunk);
  return 0;
}
