// Two members without V8, to count what a page fault costs in instructions: the session, the fault
// path and TCP as they are shipped, and in the place of the protocol the few lines that these
// faults need. Rank 0 homes all pages. One fault at a time, so that each run does the same.
//
//   faults read|upgrade|planted
//
// `planted` is an upgrade that costs more on purpose: what must be found out.
//
// callgrind dumps and zeroes its counts whenever `Moment` is called: the second dump of each of the
// two processes is that of kPages faults.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/check.h"
#include "base/futex_lock.h"
#include "binding/session.h"

// What callgrind is told of by name. Not inlined, and not empty, or there would be no call.
extern "C" __attribute__((noinline)) void Moment() { asm volatile("" ::: "memory"); }

namespace pagemesh {
namespace {

constexpr uint32_t kPages = 500;
constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kRegion = 1;
constexpr uint32_t kEvents = 16;
constexpr uint32_t kActions = 16;

volatile uint32_t planted_sum = 0;

__attribute__((noinline)) void PlantedWork() {
  for (uint32_t i = 0; i < 50; i++) planted_sum = planted_sum + i;
}

// An engine in C++: steps what one read or upgrade of a clean page takes.
class Engine {
 public:
  Engine(Session* session, int rank, bool planted)
      : session_(session), rank_(rank), planted_(planted) {}

  bool joined() const { return joined_; }
  uint32_t served() const { return served_; }

  void Step() {
    const uint32_t actions = action_count_;
    action_count_ = 0;
    const int count =
        session_->Exchange(actions_, actions, reinterpret_cast<const uint8_t*>(&rank_),
                           sizeof(rank_), events_, kEvents, blobs_, sizeof(blobs_), 100, false);
    for (int i = 0; i < count; i++) OnEvent(events_[i]);
  }

 private:
  Entry* Act(uint32_t kind, uint32_t word0, uint32_t word1, uint32_t word2) {
    PM_CHECK_STATE(action_count_ < kActions, action_count_, kind);
    Entry* action = &actions_[action_count_++];
    *action = {};
    action->kind = kind;
    action->words[0] = word0;
    action->words[1] = word1;
    action->words[2] = word2;
    action->record.view = 1;
    action->record.region = kRegion;
    return action;
  }

  void OnEvent(const Entry& event) {
    switch (event.kind) {
      case kEventOpened:
        PM_CHECK(session_->transport()->Bind(static_cast<int>(event.words[0]), 0));
        Greet(event.words[0]);
        return;
      case kEventClusterFrame:
        joined_ = true;
        if (rank_ == 1) return;
        PM_CHECK(session_->transport()->Bind(static_cast<int>(event.words[0]), 1));
        Greet(event.words[0]);
        return;
      case kEventMessage:
        rank_ == 0 ? Answer(event.record) : Settle(event.record);
        return;
      case kEventWake:  // the pages are to be given up
        for (uint32_t page = 0; page < kPages; page++) region()->state(page).store(kStateNone);
        Act(kActionProtect, PROT_NONE, kPages, 0);
        return;
      default:
        return;
    }
  }

  void Greet(uint32_t connection) {
    Entry* greeting = Act(kActionSendBlobTo, connection, 0, sizeof(rank_));
    greeting->record.kind = kKindCluster;
    greeting->record.payload_bytes = sizeof(rank_);
  }

  void Answer(const Record& request) {
    const bool read = request.kind == kKindReadRequest;
    Entry* answer = Act(read ? kActionSendPage : kActionSend, 1, 0, 0);
    answer->record.kind = read ? kKindData : kKindGrant;
    answer->record.payload_bytes = read ? kPageBytes : 0;
    answer->record.page = request.page;
    served_++;
  }

  void Settle(const Record& answer) {
    if (planted_) PlantedWork();
    const bool read = answer.kind == kKindData;
    region()->state(answer.page).store(read ? kStateRead : kStateWrite);
    const uint32_t protection = read ? PROT_READ : PROT_READ | PROT_WRITE;
    Act(kActionProtect, protection, 1, kProtectWake)->record.page = answer.page;
  }

  Region* region() { return session_->FindRegionById(kRegion); }

  Session* const session_;
  const int rank_;
  const bool planted_;
  bool joined_ = false;
  uint32_t served_ = 0;
  Entry actions_[kActions];
  uint32_t action_count_ = 0;
  Entry events_[kEvents];
  uint8_t blobs_[1024];
};

Session* Begin(int rank, void* place) {
  SessionOptions options;
  options.rank = rank;
  options.size = 2;
  Session* session = Session::Create(options);
  PM_CHECK_STATE(session != nullptr, errno, rank);
  RegionOptions pages;
  pages.id = kRegion;
  pages.page_bytes = kPageBytes;
  pages.page_count = kPages;
  pages.base = reinterpret_cast<uint64_t>(place);
  pages.placement = Placement::kFixed;
  pages.fixed_home = 0;
  const int failed = session->MapRegion(pages);
  PM_CHECK_STATE(failed == 0, failed, rank);
  return session;
}

// Serves until it has answered everything that the other member asks for.
int RunHome(Session* session, uint32_t before, uint32_t counted) {
  Engine engine(session, 0, false);
  while (engine.served() < before) engine.Step();
  Moment();
  while (engine.served() < before + counted) engine.Step();
  Moment();
  engine.Step();
  return 0;
}

int RunRequester(Session* session, bool upgrades, bool planted) {
  std::atomic<bool> done{false};
  Engine engine(session, 1, planted);
  while (!engine.joined()) engine.Step();
  std::thread application([&] {
    volatile uint32_t* words =
        reinterpret_cast<volatile uint32_t*>(session->FindRegionById(kRegion)->base());
    const auto touch_all = [&](bool write) {
      for (uint32_t page = 0; page < kPages; page++) {
        volatile uint32_t* word = words + page * (kPageBytes / sizeof(uint32_t));
        if (write) {
          *word = page;
        } else {
          (void)*word;
        }
      }
    };
    touch_all(false);
    if (!upgrades) {
      session->Wake();  // and then touch them once more, when they are gone
      while (session->FindRegionById(kRegion)->state(kPages - 1).load() != kStateNone) {
        usleep(1000);
      }
      usleep(100 * 1000);  // the protections follow the states
    }
    Moment();
    touch_all(upgrades);
    Moment();
    done.store(true);
    session->Wake();
  });
  while (!done.load()) engine.Step();
  application.join();
  const RegionStats& stats = session->FindRegionById(kRegion)->stats();
  const uint64_t faults = stats.read_faults.load() + stats.write_faults.load();
  PM_CHECK_STATE(faults == 2 * kPages, static_cast<long long>(faults), kPages);
  return 0;
}

int Run(bool upgrades, bool planted) {
  const size_t bytes = static_cast<size_t>(kPages) * kPageBytes;
  // A free place: valgrind has none where regions usually are.
  void* place = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(place, bytes);
  int ends[2];
  PM_CHECK(pipe(ends) == 0);
  const pid_t home = fork();
  if (home == 0) {
    Session* session = Begin(0, place);
    const int port = session->transport()->Listen("127.0.0.1", 0);
    PM_CHECK(port > 0 && write(ends[1], &port, sizeof(port)) == sizeof(port));
    _exit(RunHome(session, kPages, kPages));
  }
  int port = 0;
  PM_CHECK(read(ends[0], &port, sizeof(port)) == sizeof(port));
  Session* session = Begin(1, place);
  PM_CHECK(session->transport()->Connect("127.0.0.1", static_cast<uint16_t>(port)) > 0);
  const int failed = RunRequester(session, upgrades, planted);
  int status = 0;
  waitpid(home, &status, 0);
  return failed != 0 || status != 0;
}

}  // namespace
}  // namespace pagemesh

constexpr unsigned kPatienceSeconds = 120;

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  alarm(kPatienceSeconds);  // the two wait for each other
  if (strcmp(mode, "read") == 0) return pagemesh::Run(false, false);
  if (strcmp(mode, "upgrade") == 0) return pagemesh::Run(true, false);
  if (strcmp(mode, "planted") == 0) return pagemesh::Run(true, true);
  fprintf(stderr, "usage: faults read|upgrade|planted\n");
  return 2;
}
