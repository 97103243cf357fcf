// What a page fault costs before anybody else is asked: a touch that the MMU refuses, the SIGSEGV
// handler, mprotect, and the instruction tried again. The pages of a memfd mapping are touched in
// sequence, each once.
//
//   local_trap [--pages N] [--passes N] [--kind read|write|upgrade] [--copy] [--cpu N]
//
// An upgrade is a write to a page that may be read. With --copy the handler first copies 4 KiB from
// another memfd mapping into the page's frame. The pages are lowered between passes, untimed, and
// the first pass, which warms up, is left out. Prints {"samplesUs":[…]}: each from before the touch
// until after it.

#define _GNU_SOURCE
#include <getopt.h>

#include "floor.h"

enum { kMaxPages = 1048576, kMaxPasses = 1000 };
enum { kWordsPerPage = kPageBytes / sizeof(uint64_t) };

typedef enum { kRead, kWrite, kUpgrade } Kind;

typedef struct {
  size_t pages;
  size_t passes;
  Kind kind;
  bool copy;
  int cpu;
} Options;

static Options options;
static size_t bytes;
static volatile uint64_t* application;  // the mapping whose protection counts
static uint64_t* frames;                // the same memory, always read-write
static uint64_t* source;                // what is copied: the home's frames
static volatile size_t traps;

static void OnSegv(int signal_number, siginfo_t* info, void* unused) {
  (void)unused;
  const uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)application;
  if (offset >= bytes) {
    signal(signal_number, SIG_DFL);
    return;
  }
  const size_t page = offset / kPageBytes;
  if (options.copy) {
    memcpy(frames + page * kWordsPerPage, source + page * kWordsPerPage, kPageBytes);
  }
  void* start = (void*)(application + page * kWordsPerPage);
  const int protection = options.kind == kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  if (mprotect(start, kPageBytes, protection) != 0) _exit(3);
  traps++;
}

// What page i must hold in a pass.
static uint64_t WordOf(size_t page, size_t pass) { return page * kMaxPasses + pass + 1; }

static void LowerAll(size_t pass) {
  for (size_t page = 0; page < options.pages; page++) {
    source[page * kWordsPerPage] = WordOf(page, pass);
    frames[page * kWordsPerPage] = options.copy ? 0 : WordOf(page, pass);
  }
  const int protection = options.kind == kUpgrade ? PROT_READ : PROT_NONE;
  if (mprotect((void*)application, bytes, protection) != 0) Fail("mprotect");
  traps = 0;
}

static void TouchAll(size_t pass, int64_t* samples_ns) {
  for (size_t page = 0; page < options.pages; page++) {
    volatile uint64_t* first = application + page * kWordsPerPage;
    const int64_t before_ns = NowNs();
    if (options.kind == kRead) {
      (void)*first;
    } else {
      first[1] = pass;
    }
    samples_ns[page] = NowNs() - before_ns;
    if (*first != WordOf(page, pass)) FailCheck("wrong data in page", page);
    if (options.kind != kRead && frames[page * kWordsPerPage + 1] != pass) {
      FailCheck("the write has not reached the frame of page", page);
    }
  }
  if (traps != options.pages) FailCheck("not one trap for each page", traps);
}

static void Usage(void) {
  fprintf(stderr,
          "usage: local_trap [--pages N] [--passes N] [--kind read|write|upgrade] [--copy] "
          "[--cpu N]\n");
  exit(2);
}

static Kind ParseKind(const char* text) {
  if (strcmp(text, "read") == 0) return kRead;
  if (strcmp(text, "write") == 0) return kWrite;
  if (strcmp(text, "upgrade") != 0) Usage();
  return kUpgrade;
}

static void ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"pages", required_argument, NULL, 'n'}, {"passes", required_argument, NULL, 'p'},
      {"kind", required_argument, NULL, 'k'},  {"copy", no_argument, NULL, 'y'},
      {"cpu", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0},
  };
  options = (Options){.pages = 1000, .passes = 1, .kind = kRead, .cpu = -1};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    switch (option) {
      case 'n':
        options.pages = ParseCount("pages", optarg, 1, kMaxPages);
        break;
      case 'p':
        options.passes = ParseCount("passes", optarg, 1, kMaxPasses - 1);
        break;
      case 'k':
        options.kind = ParseKind(optarg);
        break;
      case 'y':
        options.copy = true;
        break;
      case 'c':
        options.cpu = ParseCpu("cpu", optarg);
        break;
      default:
        Usage();
    }
  }
  if (optind != argc) Usage();
}

int main(int argc, char** argv) {
  ParseOptions(argc, argv);
  PinTo(options.cpu);
  bytes = options.pages * kPageBytes;
  const int fd = MakeMemfd("frames", bytes);
  frames = (uint64_t*)MapMemfd(fd, bytes, PROT_READ | PROT_WRITE);
  application = (volatile uint64_t*)MapMemfd(fd, bytes, PROT_READ);
  source = (uint64_t*)MapMemfd(MakeMemfd("source", bytes), bytes, PROT_READ | PROT_WRITE);
  memset(frames, 1, bytes);
  memset(source, 1, bytes);
  struct sigaction action = {.sa_sigaction = OnSegv, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);

  int64_t* samples_ns = Allocate((options.passes + 1) * options.pages, sizeof(*samples_ns));
  for (size_t pass = 0; pass <= options.passes; pass++) {
    LowerAll(pass);
    TouchAll(pass, samples_ns + pass * options.pages);
  }
  PrintSamples(samples_ns + options.pages, options.passes * options.pages);
  free(samples_ns);
  return 0;
}
