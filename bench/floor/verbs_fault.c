// What a page fault over verbs costs with nothing of a DSM in it: no states, no directory, no
// credit, no engine, two processes with a thread each. One touches pages that it may not read; its
// SIGSEGV handler sends a 64-byte request, looks for the answer, raises the page and returns. The
// other looks for requests and answers each by an RDMA WRITE with immediate data into the page.
// Both look without pause, as perftest does.
//
//   verbs_fault --device NAME [--port N] [--gid-index N] [--iterations N]
//
// Prints one JSON object, {"samplesUs":[…]}: each from before the touch until after it.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <infiniband/verbs.h>
#include <sys/socket.h>

#include "floor.h"

enum {
  kRequestBytes = 64,
  kDepth = 64,
  kSignalEvery = 16,  // work requests between two completions
  kWarmUp = 20,
  kMaxIterations = 1000000,
};

struct Request {
  uint32_t page;
  uint8_t rest[kRequestBytes - sizeof(uint32_t)];
};

// What the two tell each other.
struct Offer {
  uint32_t qp_number, rkey;
  uint64_t address;
  union ibv_gid gid;
};

static const char* device_name;
static int port_number = 1, gid_index = 1;
static uint32_t iterations = 1000;

static struct ibv_context* context;
static struct ibv_pd* pd;
static struct ibv_cq* cq;
static struct ibv_qp* qp;
static struct ibv_mr* mr;  // pages: where they are read here, or written there
static struct Request receives[kDepth];
static struct ibv_mr* receives_mr;
static struct Offer theirs;
static uint32_t posted;  // work requests sent

static uint8_t* application;  // the mapping whose protection counts
static uint32_t page_count;

static void PostReceive(uint64_t index) {
  struct ibv_sge piece = {(uintptr_t)&receives[index], kRequestBytes, receives_mr->lkey};
  struct ibv_recv_wr request = {.wr_id = index, .sg_list = &piece, .num_sge = 1};
  struct ibv_recv_wr* bad;
  errno = ibv_post_recv(qp, &request, &bad);
  if (errno != 0) Fail("ibv_post_recv");
}

static void OpenDevice(uint8_t* pages) {
  int count;
  struct ibv_device** list = ibv_get_device_list(&count);
  for (int i = 0; list != NULL && i < count; i++) {
    if (strcmp(ibv_get_device_name(list[i]), device_name) == 0) context = ibv_open_device(list[i]);
  }
  if (context == NULL) Fail(device_name);
  pd = ibv_alloc_pd(context);
  cq = ibv_create_cq(context, 4 * kDepth, NULL, NULL, 0);
  if (pd == NULL || cq == NULL) Fail("ibv_create_cq");
  mr = ibv_reg_mr(pd, pages, (size_t)page_count * kPageBytes,
                  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  receives_mr = ibv_reg_mr(pd, receives, sizeof(receives), IBV_ACCESS_LOCAL_WRITE);
  if (mr == NULL || receives_mr == NULL) Fail("ibv_reg_mr");
  struct ibv_qp_init_attr attributes = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC};
  attributes.cap.max_send_wr = attributes.cap.max_recv_wr = kDepth;
  attributes.cap.max_send_sge = attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = kRequestBytes;
  qp = ibv_create_qp(pd, &attributes);
  if (qp == NULL) Fail("ibv_create_qp");
  struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = (uint8_t)port_number};
  init.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  errno = ibv_modify_qp(qp, &init,
                        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (errno != 0) Fail("ibv_modify_qp to INIT");
  for (uint64_t i = 0; i < kDepth; i++) PostReceive(i);
}

static void Connect(int socket_fd) {
  struct Offer mine = {.qp_number = qp->qp_num, .rkey = mr->rkey, .address = (uintptr_t)mr->addr};
  struct ibv_port_attr port;
  if (ibv_query_gid(context, (uint8_t)port_number, gid_index, &mine.gid) != 0) Fail("GID");
  if (ibv_query_port(context, (uint8_t)port_number, &port) != 0) Fail("port");
  if (write(socket_fd, &mine, sizeof(mine)) != sizeof(mine)) Fail("write");
  if (read(socket_fd, &theirs, sizeof(theirs)) != sizeof(theirs)) Fail("read");
  struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_RTR, .path_mtu = port.active_mtu};
  attributes.dest_qp_num = theirs.qp_number;
  attributes.max_dest_rd_atomic = 1;
  attributes.min_rnr_timer = 1;
  attributes.ah_attr.is_global = 1;
  attributes.ah_attr.grh.dgid = theirs.gid;
  attributes.ah_attr.grh.sgid_index = (uint8_t)gid_index;
  attributes.ah_attr.grh.hop_limit = 64;
  attributes.ah_attr.port_num = (uint8_t)port_number;
  errno = ibv_modify_qp(qp, &attributes,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                            IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (errno != 0) Fail("ibv_modify_qp to RTR");
  struct ibv_qp_attr send = {.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 6};
  send.rnr_retry = 6;
  send.max_rd_atomic = 1;
  errno = ibv_modify_qp(qp, &send,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                            IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  if (errno != 0) Fail("ibv_modify_qp to RTS");
  // Nobody sends before both are ready.
  uint8_t ready = 1;
  if (write(socket_fd, &ready, 1) != 1 || read(socket_fd, &ready, 1) != 1) Fail("the other side");
}

static void Post(struct ibv_send_wr* request) {
  if (++posted % kSignalEvery == 0) request->send_flags |= IBV_SEND_SIGNALED;
  struct ibv_send_wr* bad;
  errno = ibv_post_send(qp, request, &bad);
  if (errno != 0) Fail("ibv_post_send");
}

// Looks until something has come; the receive is posted again by the caller.
static struct ibv_wc WaitForReceive(void) {
  for (;;) {
    struct ibv_wc completion;
    const int count = ibv_poll_cq(cq, 1, &completion);
    if (count < 0) Fail("ibv_poll_cq");
    if (count == 0) continue;
    if (completion.status != IBV_WC_SUCCESS) {
      errno = EIO;
      Fail(ibv_wc_status_str(completion.status));
    }
    if ((completion.opcode & IBV_WC_RECV) != 0) return completion;
  }
}

static void OnSegv(int signal_number, siginfo_t* info, void* unused) {
  (void)unused;
  const uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)application;
  if (offset >= (uintptr_t)page_count * kPageBytes) {
    signal(signal_number, SIG_DFL);
    return;
  }
  struct Request message = {.page = (uint32_t)(offset / kPageBytes)};
  struct ibv_sge piece = {(uintptr_t)&message, kRequestBytes, 0};
  struct ibv_send_wr request = {.opcode = IBV_WR_SEND, .sg_list = &piece, .num_sge = 1};
  request.send_flags = IBV_SEND_INLINE;
  Post(&request);
  const struct ibv_wc completion = WaitForReceive();
  if (ntohl(completion.imm_data) != message.page) _exit(2);
  if (mprotect(application + (size_t)message.page * kPageBytes, kPageBytes, PROT_READ) != 0) {
    _exit(3);
  }
  PostReceive(completion.wr_id);
}

static void BeHome(int socket_fd) {
  const size_t bytes = (size_t)page_count * kPageBytes;
  uint8_t* pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) Fail("mmap");
  memset(pages, 7, bytes);
  OpenDevice(pages);
  Connect(socket_fd);
  for (uint32_t served = 0; served < page_count; served++) {
    const struct ibv_wc completion = WaitForReceive();
    const uint32_t page = receives[completion.wr_id].page;
    if (page >= page_count) Fail("a page that is not");
    PostReceive(completion.wr_id);
    struct ibv_sge piece = {(uintptr_t)(pages + (size_t)page * kPageBytes), kPageBytes, mr->lkey};
    struct ibv_send_wr request = {.opcode = IBV_WR_RDMA_WRITE_WITH_IMM, .sg_list = &piece};
    request.num_sge = 1;
    request.imm_data = htonl(page);
    request.wr.rdma.remote_addr = theirs.address + (uint64_t)page * kPageBytes;
    request.wr.rdma.rkey = theirs.rkey;
    Post(&request);
  }
  uint8_t done;
  if (read(socket_fd, &done, 1) != 1) Fail("the other side");
}

static void Touch(int socket_fd) {
  const size_t bytes = (size_t)page_count * kPageBytes;
  const int fd = memfd_create("verbs_fault", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) Fail("memfd_create");
  uint8_t* frames = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  application = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
  if (frames == MAP_FAILED || application == MAP_FAILED) Fail("mmap");
  OpenDevice(frames);
  Connect(socket_fd);
  struct sigaction action = {.sa_sigaction = OnSegv, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  int64_t* samples_ns = Allocate(page_count, sizeof(*samples_ns));
  for (uint32_t i = 0; i < page_count; i++) {
    // Neighbours would merge into one mapping, which is less work than pages here and there.
    const uint32_t page = (uint32_t)(((uint64_t)i * 7919) % page_count);
    const int64_t start_ns = NowNs();
    const uint8_t value = *(volatile uint8_t*)(application + (size_t)page * kPageBytes);
    samples_ns[i] = NowNs() - start_ns;
    if (value != 7) Fail("the page has not come");
  }
  const uint8_t done = 1;
  if (write(socket_fd, &done, 1) != 1) Fail("write");
  PrintSamples(samples_ns + kWarmUp, page_count - kWarmUp);
  free(samples_ns);
}

int main(int argc, char** argv) {
  const struct option options[] = {{"device", required_argument, NULL, 'd'},
                                   {"port", required_argument, NULL, 'p'},
                                   {"gid-index", required_argument, NULL, 'g'},
                                   {"iterations", required_argument, NULL, 'n'},
                                   {0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (option == 'd') device_name = optarg;
    if (option == 'p') port_number = (int)ParseCount("port", optarg, 0, 255);
    if (option == 'g') gid_index = (int)ParseCount("gid-index", optarg, 0, 255);
    if (option == 'n') iterations = (uint32_t)ParseCount("iterations", optarg, 1, kMaxIterations);
    if (option == '?') return 2;
  }
  if (device_name == NULL || optind != argc) {
    fprintf(stderr,
            "usage: verbs_fault --device NAME [--port N] [--gid-index N] [--iterations N]\n");
    return 2;
  }
  page_count = iterations + kWarmUp;
  if (page_count % 7919 == 0) page_count++;  // or the steps would not come by every page
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) Fail("socketpair");
  pid_t home;
  if (ForkPeer(&home)) {  // before the device is open, which does not survive a fork
    close(sockets[0]);
    BeHome(sockets[1]);
    return 0;
  }
  close(sockets[1]);
  Touch(sockets[0]);
  ExpectGoodEnd(home);
  return 0;
}
