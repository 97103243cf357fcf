// Members without V8, for sanitizers: memory, faults and TCP as they are shipped, threads that
// touch pages, and an engine in C++ that knows just enough of the protocol to serve them. Rank 0
// homes all pages; each member is a process of its own, as native code keeps one member a process.
//
//   driver [touch|race|overflow]
//
// `race` and `overflow` are wrong on purpose: what the sanitizer must report.
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/spin.h"
#include "memory/fault.h"
#include "memory/region.h"
#include "transport/tcp/tcp_transport.h"

namespace pagemesh {
namespace {

constexpr int kMembers = 3;
constexpr int kThreads = 4;
constexpr uint32_t kPages = 256;
constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kRegion = 1;
constexpr uint32_t kTouches = 4000;  // of each thread, while its member is in the mesh
constexpr uint32_t kWakeToken = 0x80000000U;
constexpr int kEngineTickMs = 1;

uint32_t PatternOf(uint32_t page) { return page * 2654435761U + 1; }

class Member final : public FaultSink, public TransportClient {
 public:
  Member(int rank, Region* region)
      : rank_(rank), region_(region), epoll_(epoll_create1(0)), wake_(eventfd(0, EFD_NONBLOCK)) {
    transport_ = std::make_unique<TcpTransport>(epoll_.get(), this);
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u32 = kWakeToken;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
    SetFaultSink(this);
  }

  Transport* transport() { return transport_.get(); }
  bool joined() const { return transport_->IsOpen(rank_ == 0 ? 1 : 0); }
  int peers_gone() const { return peers_gone_; }
  uint32_t answers_taken() const { return answers_taken_.load(); }

  void Step() {
    epoll_event ready[16];
    const int count = epoll_wait(epoll_.get(), ready, 16, kEngineTickMs);
    for (int i = 0; i < count; i++) {
      if (ready[i].data.u32 == kWakeToken) {
        uint64_t ignored = 0;
        const ssize_t got = read(wake_.get(), &ignored, sizeof(ignored));
        (void)got;
      } else {
        transport_->OnReady(ready[i].data.u32, ready[i].events);
      }
    }
    transport_->Resume();
    if (rank_ == 0) transport_->Poll();
    FaultEvent fault;
    while (PopFault(&fault)) ServeEvent(fault);
    for (int i = 0; i < 4; i++) Lower(static_cast<uint32_t>(rand()) % kPages);
    transport_->Flush();
    outgoing_.clear();
  }

  // As Session::Destroy does it.
  void Leave() {
    SetFaultSink(nullptr);
    transport_->CloseAll();
    region_->Retire();
    WakeWaiters(region_, 0, kPages);
  }

  // No member of this driver shares memory with another.
  bool ReadDirectly(Region*, uint32_t, Access) override { return false; }
  bool ClaimDirectly(Region*, uint32_t) override { return false; }
  bool MayAnswer(Region*, uint32_t) override { return transport_->MayAnswer(0); }
  SendResult SendRequest(Region*, uint32_t page, uint8_t pending, uint32_t slot) override {
    const Record record = RecordOf(KindFor(pending), page);
    return transport_->TrySend(0, record, slot) ? SendResult::kSent : SendResult::kUnsent;
  }
  uint32_t SendReads(Region*, const uint32_t* pages, uint32_t count, void* scratch) override {
    static_assert(kRequestBytes == sizeof(Record));
    auto* records = static_cast<Record*>(scratch);
    for (uint32_t i = 0; i < count; i++) records[i] = RecordOf(kKindReadRequest, pages[i]);
    return transport_->TrySendMany(0, records, count);
  }
  void PollAnswers() override {
    if (transport_->PollAnswers()) WakeEngine();
  }
  void WatchAnswers() override {
    if (transport_->WatchAnswers()) WakeEngine();
  }
  bool BeginLooking(Region*, uint32_t) override { return transport_->BeginLooking(0); }
  void EndLooking(Region*, uint32_t) override { transport_->EndLooking(0); }
  void WakeEngine() override {
    const uint64_t one = 1;
    const ssize_t ignored = write(wake_.get(), &one, sizeof(one));
    (void)ignored;
  }

  uint8_t* FrameFor(int, const Record& record, size_t* length) override {
    if (record.region != kRegion || record.page >= kPages) return nullptr;
    if ((region_->state(record.page).load() & kPageAcceptsData) == 0) return nullptr;
    *length = kPageBytes;
    return region_->frame(record.page);
  }
  bool OnRecord(int connection, int rank, const Record& record, const uint8_t*) override {
    if (record.kind == kKindCluster) {
      PM_CHECK(transport_->Bind(connection, static_cast<int>(record.words[0])));
    } else if (rank_ == 0) {
      Answer(rank, record);
    } else {
      const uint8_t to = record.kind == kKindData ? kStateRead : kStateWrite;
      Settle(record.page, to);
    }
    return true;
  }
  bool AnswerAtOnce(int, const Record&, Record*, const uint8_t**) override { return false; }
  // As Session does it: for threads that asked themselves.
  bool ExpectsAnswer(int rank, const Record& record, uint8_t** frame) override {
    uint8_t to = 0;
    const uint8_t from = AnsweredState(rank, record, &to);
    if (from == 0 || region_->state(record.page).load() != from) return false;
    *frame = record.payload_bytes > 0 ? region_->frame(record.page) : nullptr;
    return true;
  }
  bool TakeAnswer(int rank, const Record& record) override {
    uint8_t to = 0, from = AnsweredState(rank, record, &to);
    if (from == 0 || !region_->state(record.page).compare_exchange_strong(from, to)) return false;
    answers_taken_.fetch_add(1);
    WakeWaiters(region_, record.page, 1);
    return true;
  }
  bool DescribeSlot(uint32_t, uint32_t*, uint32_t*) override { return false; }
  bool DescribeRegion(uint32_t, RegionMemory*) override { return false; }
  int HomeOf(uint32_t, uint32_t) override { return 0; }
  void OnOpened(int connection) override {
    PM_CHECK(transport_->Bind(connection, 0));
    Record hello = RecordOf(kKindCluster, 0);
    hello.words[0] = static_cast<uint32_t>(rank_);
    outgoing_.push_back(hello);
    transport_->QueueTo(connection, &outgoing_.back(), nullptr);
  }
  void OnAccepted(int) override {}
  void OnClosed(int, int, uint32_t) override { peers_gone_++; }

 private:
  static Record RecordOf(uint32_t kind, uint32_t page) {
    Record record = {};
    record.kind = kind;
    record.view = 1;
    record.region = kRegion;
    record.page = page;
    return record;
  }
  static uint32_t KindFor(uint8_t pending) {
    if ((pending & kPageWantsWrite) == 0) return kKindReadRequest;
    return (pending & kPageReadable) != 0 ? kKindUpgradeRequest : kKindWriteRequest;
  }

  // From which state an answer takes its page; 0 if it is none.
  uint8_t AnsweredState(int rank, const Record& record, uint8_t* to) const {
    if (rank != 0 || record.region != kRegion || record.page >= kPages) return 0;
    if (record.payload_bytes != (record.kind == kKindGrant ? 0 : kPageBytes)) return 0;
    *to = record.kind == kKindData ? kStateRead : kStateWrite;
    if (record.kind == kKindData) return kStateReading | kPageDirect;
    if (record.kind == kKindDataExclusive) return kStateWriting | kPageDirect;
    return record.kind == kKindGrant ? kStateUpgrading | kPageDirect : 0;
  }

  // The home gives everybody what is asked for: nobody here depends on another one's writes.
  void Answer(int rank, const Record& request) {
    Record answer = RecordOf(kKindGrant, request.page);
    if (request.kind == kKindReadRequest) answer.kind = kKindData;
    if (request.kind == kKindWriteRequest) answer.kind = kKindDataExclusive;
    if (answer.kind != kKindGrant) answer.payload_bytes = kPageBytes;
    outgoing_.push_back(answer);
    transport_->Queue(rank, &outgoing_.back(), region_->frame(request.page));
  }

  void ServeEvent(const FaultEvent& fault) {
    if (rank_ == 0) {
      Settle(fault.page, kStateWrite);
    } else if (fault.unsent_state != 0) {
      outgoing_.push_back(RecordOf(KindFor(fault.unsent_state), fault.page));
      transport_->Queue(0, &outgoing_.back(), nullptr);
    }
  }

  void Settle(uint32_t page, uint8_t to) {
    std::atomic<uint8_t>& state = region_->state(page);
    uint8_t now = state.load();
    while (!state.compare_exchange_weak(now, to)) {
    }
    region_->Protect(page, 1, to == kStateRead ? PROT_READ : PROT_READ | PROT_WRITE);
    WakeWaiters(region_, page, 1);
  }

  // As if somebody else wanted the page.
  void Lower(uint32_t page) {
    std::atomic<uint8_t>& state = region_->state(page);
    uint8_t now = state.load();
    if (now != kStateRead && now != kStateWrite) return;
    if (CountWaiters(region_, page, 1) > 0) return;
    if (state.compare_exchange_strong(now, kStateNone)) region_->Protect(page, 1, PROT_NONE);
  }

  const int rank_;
  Region* const region_;
  UniqueFd epoll_, wake_;
  std::unique_ptr<Transport> transport_;
  std::deque<Record> outgoing_;  // until Flush
  int peers_gone_ = 0;
  std::atomic<uint32_t> answers_taken_{0};
};

struct Work {
  Region* region;
  std::atomic<bool> left{false};
  std::atomic<int> busy{kThreads};
  std::atomic<uint32_t> wrong{0};
};

// Reads what the home wrote, writes a word of its own; goes on for a while after the member has
// left.
void TouchPages(Work* work, uint32_t thread) {
  volatile uint32_t* words = reinterpret_cast<volatile uint32_t*>(work->region->base());
  uint32_t random = thread * 7919 + 1;
  for (uint32_t done = 0, after = 0; after < 200;) {
    random = random * 1664525U + 1013904223U;
    const uint32_t page = (random >> 8) % kPages;
    const bool left_before = work->left.load();
    const uint32_t found = words[page * (kPageBytes / 4)];
    if (!left_before && found != PatternOf(page) && !work->left.load()) work->wrong.fetch_add(1);
    if (random % 3 == 0) words[page * (kPageBytes / 4) + 1 + thread] = random;
    if (++done == kTouches) work->busy.fetch_sub(1);
    if (left_before) after++;
  }
}

int RunMember(int rank, int port, int port_pipe) {
  const size_t bytes = static_cast<size_t>(kPages) * kPageBytes;
  // A free place where the sanitizers expect an application's memory.
  void* place = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(place, bytes);
  RegionOptions options;
  options.id = kRegion;
  options.page_bytes = kPageBytes;
  options.page_count = kPages;
  options.base = reinterpret_cast<uint64_t>(place);
  options.placement = Placement::kFixed;
  options.rank = static_cast<uint32_t>(rank);
  options.size = kMembers;
  ProtectionBudget::Configure(0);
  options.back_end = UseSigsegv();
  PM_CHECK(options.back_end != nullptr);
  Region* region = Region::Map(options);
  PM_CHECK_STATE(region != nullptr, errno, rank);
  for (uint32_t page = 0; page < kPages && rank == 0; page++) {
    reinterpret_cast<uint32_t*>(region->frame(page))[0] = PatternOf(page);
  }
  Member member(rank, region);
  if (rank == 0) {
    const int own_port = member.transport()->Listen("127.0.0.1", 0);
    PM_CHECK_STATE(own_port > 0, own_port, 0);
    for (int i = 1; i < kMembers; i++) {
      PM_CHECK(write(port_pipe, &own_port, sizeof(own_port)) == sizeof(own_port));
    }
  } else {
    PM_CHECK(member.transport()->Connect("127.0.0.1", static_cast<uint16_t>(port)) > 0);
  }
  while (!member.joined()) member.Step();

  Work work;
  work.region = region;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; i++) threads.emplace_back(TouchPages, &work, i);
  while (work.busy.load() > 0 || (rank == 0 && member.peers_gone() < kMembers - 1)) member.Step();
  work.left.store(true);
  member.Leave();
  for (std::thread& thread : threads) thread.join();
  const uint64_t faults = region->stats().read_faults.load() + region->stats().write_faults.load();
  printf("rank %d: %llu faults, %u wrong\n", rank, static_cast<unsigned long long>(faults),
         work.wrong.load());
  region->Unref();
  const bool took = rank == 0 || member.answers_taken() > 0;  // threads did so, not the engine
  return work.wrong.load() == 0 && faults > 100 && took ? 0 : 1;
}

int RunMesh() {
  int ends[2];
  PM_CHECK(pipe(ends) == 0);
  pid_t children[kMembers];
  for (int rank = 0; rank < kMembers; rank++) {
    children[rank] = fork();
    if (children[rank] != 0) continue;
    int port = 0;
    if (rank > 0) PM_CHECK(read(ends[0], &port, sizeof(port)) == sizeof(port));
    exit(RunMember(rank, port, ends[1]));
  }
  int failed = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) failed = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  }
  return failed;
}

int RunRace() {
  static int unguarded = 0;
  std::thread other([] { unguarded++; });
  unguarded++;
  other.join();
  return unguarded == 2 ? 0 : 1;
}

int RunOverflow() {
  std::vector<uint8_t> bytes(8);
  volatile uint8_t* at = bytes.data();
  at[8] = 1;
  return 0;
}

}  // namespace
}  // namespace pagemesh

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "touch";
  if (strcmp(mode, "touch") == 0) return pagemesh::RunMesh();
  if (strcmp(mode, "race") == 0) return pagemesh::RunRace();
  if (strcmp(mode, "overflow") == 0) return pagemesh::RunOverflow();
  fprintf(stderr, "usage: driver [touch|race|overflow]\n");
  return 2;
}
