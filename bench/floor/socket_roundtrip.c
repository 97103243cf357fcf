// The floor that a page fault over TCP stands on: two processes on one machine, one TCP connection
// over loopback. The client sends a small request, the server answers with a page's worth of
// bytes, and the client takes the time of every round trip.
//
//   socket_roundtrip [--iterations N] [--request-bytes N] [--reply-bytes N] [--spin] [--raw]
//                    [--client-cpu N] [--server-cpu N]
//
// Blocking sockets, so that both sides sleep while they wait; with --spin both poll instead.
// Where the two processes run decides more than anything else (5 us on one core against 70 us on
// two that sleep, on one machine): left alone, the scheduler chooses; the --*-cpu options pin.
// Prints one JSON object: {"medianUs","p99Us","iterations"}, and "samplesUs" with --raw.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWarmUpIterations = 200, kMaxIterations = 100000000, kMaxMessageBytes = 64 * 1024 * 1024 };

typedef struct {
  size_t iterations;
  size_t request_bytes;
  size_t reply_bytes;
  bool spin;
  bool raw;
  int client_cpu;  // -1: wherever the scheduler likes
  int server_cpu;
} Options;

static void Fail(const char* what) {
  fprintf(stderr, "socket_roundtrip: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t NowNs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void SendAll(int socket_fd, const unsigned char* bytes, size_t length, int flags) {
  while (length > 0) {
    const ssize_t sent = send(socket_fd, bytes, length, flags | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      Fail("send");
    }
    bytes += sent;
    length -= (size_t)sent;
  }
}

// False when the other side has closed the connection before the first byte.
static bool ReceiveAll(int socket_fd, unsigned char* bytes, size_t length, int flags) {
  size_t received = 0;
  while (received < length) {
    const ssize_t got = recv(socket_fd, bytes + received, length - received, flags);
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      Fail("recv");
    }
    if (got == 0) {
      if (received == 0) return false;
      errno = ECONNRESET;
      Fail("recv");
    }
    received += (size_t)got;
  }
  return true;
}

static void PinTo(int cpu) {
  if (cpu < 0) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET((size_t)cpu, &cpus);
  if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0) Fail("sched_setaffinity");
}

static void SetNoDelay(int socket_fd) {
  const int on = 1;
  if (setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) Fail("TCP_NODELAY");
}

static unsigned char* AllocateBytes(size_t length) {
  unsigned char* bytes = malloc(length);
  if (bytes == NULL) Fail("malloc");
  memset(bytes, 0x5a, length);
  return bytes;
}

static void Serve(int listener, const Options* options) {
  const int socket_fd = accept(listener, NULL, NULL);
  if (socket_fd < 0) Fail("accept");
  SetNoDelay(socket_fd);
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
  close(socket_fd);
}

static void MeasureRoundTrips(int socket_fd, const Options* options, int64_t* samples_ns) {
  unsigned char* request = AllocateBytes(options->request_bytes);
  unsigned char* reply = AllocateBytes(options->reply_bytes);
  const int flags = options->spin ? MSG_DONTWAIT : 0;
  for (size_t i = 0; i < kWarmUpIterations + options->iterations; ++i) {
    request[0] = (unsigned char)i;
    const int64_t before_ns = NowNs();
    SendAll(socket_fd, request, options->request_bytes, flags);
    if (!ReceiveAll(socket_fd, reply, options->reply_bytes, flags)) {
      errno = ECONNRESET;
      Fail("the server went away");
    }
    const int64_t after_ns = NowNs();
    if (reply[0] != request[0]) {
      fprintf(stderr, "socket_roundtrip: wrong answer in iteration %zu\n", i);
      exit(1);
    }
    if (i >= kWarmUpIterations) samples_ns[i - kWarmUpIterations] = after_ns - before_ns;
  }
  free(request);
  free(reply);
}

static int Listen(struct sockaddr_in* address) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) Fail("socket");
  memset(address, 0, sizeof(*address));
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr*)address, sizeof(*address)) != 0) Fail("bind");
  if (listen(listener, 1) != 0) Fail("listen");
  socklen_t length = sizeof(*address);
  if (getsockname(listener, (struct sockaddr*)address, &length) != 0) Fail("getsockname");
  return listener;
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
  int64_t* sorted_ns = malloc(count * sizeof(*sorted_ns));
  if (sorted_ns == NULL) Fail("malloc");
  memcpy(sorted_ns, samples_ns, count * sizeof(*sorted_ns));
  qsort(sorted_ns, count, sizeof(*sorted_ns), CompareSamples);
  printf("{\"medianUs\":%.3f,\"p99Us\":%.3f,\"iterations\":%zu", MedianUs(sorted_ns, count),
         P99Us(sorted_ns, count), count);
  if (options->raw) {
    printf(",\"samplesUs\":[");
    for (size_t i = 0; i < count; ++i) {
      printf("%s%.3f", i == 0 ? "" : ",", (double)samples_ns[i] / 1e3);
    }
    printf("]");
  }
  printf("}\n");
  free(sorted_ns);
}

static void Usage(void) {
  fprintf(stderr,
          "usage: socket_roundtrip [--iterations N] [--request-bytes N] [--reply-bytes N] "
          "[--spin] [--raw] [--client-cpu N] [--server-cpu N]\n");
  exit(2);
}

static size_t ParseCount(const char* option, const char* text, size_t least, size_t most) {
  char* end = NULL;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
    fprintf(stderr, "socket_roundtrip: --%s takes a whole number from %zu to %zu, not '%s'\n",
            option, least, most, text);
    exit(2);
  }
  return (size_t)value;
}

static Options ParseOptions(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"iterations", required_argument, NULL, 'i'},
      {"request-bytes", required_argument, NULL, 'q'},
      {"reply-bytes", required_argument, NULL, 'r'},
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
      case 's':
        options.spin = true;
        break;
      case 'c':
        options.client_cpu = (int)ParseCount("client-cpu", optarg, 0, CPU_SETSIZE - 1);
        break;
      case 'v':
        options.server_cpu = (int)ParseCount("server-cpu", optarg, 0, CPU_SETSIZE - 1);
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
  int64_t* samples_ns = calloc(options.iterations, sizeof(*samples_ns));
  if (samples_ns == NULL) Fail("calloc");
  struct sockaddr_in address;
  const int listener = Listen(&address);

  const pid_t server = fork();
  if (server < 0) Fail("fork");
  if (server == 0) {
    // A server that spins must not outlive a client that was killed.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    PinTo(options.server_cpu);
    Serve(listener, &options);
    return 0;
  }
  PinTo(options.client_cpu);
  const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) Fail("socket");
  if (connect(socket_fd, (struct sockaddr*)&address, sizeof(address)) != 0) Fail("connect");
  SetNoDelay(socket_fd);
  close(listener);
  MeasureRoundTrips(socket_fd, &options, samples_ns);
  close(socket_fd);

  int status = 0;
  if (waitpid(server, &status, 0) != server) Fail("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "socket_roundtrip: the server process failed (status %d)\n", status);
    return 1;
  }
  PrintReport(&options, samples_ns);
  free(samples_ns);
  return 0;
}
