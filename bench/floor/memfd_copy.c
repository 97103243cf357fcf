// The floor that a scan between two processes of one machine stands on: memcpy from one memfd
// mapping to another, all pages touched before.
//
//   memfd_copy [--mib N] [--passes N] [--cpu N]
//
// Prints {"samplesUs":[…]}: the time of each pass of N MiB, the first, which warms up, left out.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"

enum { kMaxPasses = 1000 };

static void Usage(void) {
  fprintf(stderr, "usage: memfd_copy [--mib N] [--passes N] [--cpu N]\n");
  exit(2);
}

// In page-sized calls, as pages are copied; the compiler may not drop one of them.
static int64_t TimeCopy(uint8_t* into, const uint8_t* from, size_t bytes) {
  const int64_t start_ns = NowNs();
  for (size_t offset = 0; offset < bytes; offset += kPageBytes) {
    memcpy(into + offset, from + offset, kPageBytes);
    atomic_signal_fence(memory_order_seq_cst);
  }
  return NowNs() - start_ns;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"mib", required_argument, NULL, 'm'},
      {"passes", required_argument, NULL, 'p'},
      {"cpu", required_argument, NULL, 'c'},
      {NULL, 0, NULL, 0},
  };
  size_t mib = 256;
  size_t passes = 3;
  int cpu = -1;
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'm':
        mib = ParseCount("mib", optarg, 1, 1048576);
        break;
      case 'p':
        passes = ParseCount("passes", optarg, 1, kMaxPasses);
        break;
      case 'c':
        cpu = ParseCpu("cpu", optarg);
        break;
      default:
        Usage();
    }
  }
  if (optind != argc) Usage();
  PinTo(cpu);
  const size_t bytes = mib * 1048576;
  uint8_t* from = MapMemfd(MakeMemfd("from", bytes), bytes, PROT_READ | PROT_WRITE);
  uint8_t* into = MapMemfd(MakeMemfd("into", bytes), bytes, PROT_READ | PROT_WRITE);
  for (size_t i = 0; i < bytes / sizeof(uint64_t); i++) ((uint64_t*)from)[i] = i;
  memset(into, 0, bytes);
  TimeCopy(into, from, bytes);
  int64_t samples_ns[kMaxPasses];
  for (size_t i = 0; i < passes; i++) samples_ns[i] = TimeCopy(into, from, bytes);
  if (memcmp(into, from, bytes) != 0) FailCheck("what was copied differs, bytes", bytes);
  PrintSamples(samples_ns, passes);
  return 0;
}
