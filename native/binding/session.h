// One member's membership in one mesh, natively: joins memory, faults and transport, and runs the
// engine's wait. One a process at a time.
#ifndef PAGEMESH_BINDING_SESSION_H_
#define PAGEMESH_BINDING_SESSION_H_

#include <pthread.h>

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "base/spin.h"
#include "base/unique_fd.h"
#include "binding/barrier_words.h"
#include "memory/fault.h"
#include "memory/region.h"
#include "memory/word_block.h"
#include "transport/transport.h"

namespace pagemesh {

// An event, native to TypeScript, and an action, TypeScript to native: the same shape, 20 words.
// lib/engine/ring.ts names the words; a test holds the numbers equal.
struct Entry {
  uint32_t kind;
  uint32_t words[3];
  Record record;
};
static_assert(sizeof(Entry) == 80, "20 words");

enum EventKind : uint32_t {
  kEventMessage = 1,  // from rank words[0]; a blob of words[2] bytes at words[1] of the blob area
  kEventClusterFrame = 2,  // from connection words[0]; blob as above; record.words[0] is rank + 1
  kEventOpened = 3,        // connection words[0], which we asked for
  kEventAccepted = 4,      // connection words[0], which somebody else asked for
  kEventClosed = 5,        // connection words[0]; rank + 1 in words[1]; reason in words[2]
  kEventFault = 6,    // record.region, record.page; Access in words[0]; unsent state in words[1]
  kEventWake = 7,     // somebody called Wake
  kEventResumed = 8,  // a thread came back from a fault, and watch_resumes was asked for
  kEventWord = 9,     // the word as it was in words[1] (low), words[2]; request words[0]
  kEventLinkProbed = 10,  // rank words[0]; reason in words[1], 0 if it was reached
};

enum ActionKind : uint32_t {
  kActionSend = 1,        // record to rank words[0]
  kActionSendPage = 2,    // the same, followed by the page's frame
  kActionSendBlob = 3,    // the same, followed by words[2] bytes at words[1] of the blob area
  kActionSendBlobTo = 4,  // the same to connection words[0]
  kActionProtect = 5,     // words[0] PROT_ bits for words[1] pages from record.page; flags words[2]
  kActionWake = 6,        // threads that wait for words[1] pages from record.page
  kActionOpen = 8,  // members on this host may read the page of record.page; after all protections
  kActionWord = 7,  // RDMA atomic at rank words[0], request words[1]; see WordAction
};
// What a kActionWord has in words[2] of the entry, and in the words of its record.
constexpr uint32_t kWordAdds = 0;
constexpr uint32_t kWordCompares = 1;
enum WordAction { kWordRkey, kWordAddress, kWordOperand = 3, kWordExpected = 5 };  // low, then high
enum ProtectFlag : uint32_t {
  kProtectWake = 1,        // then wake the threads that wait for these pages
  kProtectInvalidate = 2,  // count the pages as invalidated
};

// What native code knows of a directory entry's control word; lib/protocol/directory.ts.
// The state, the mark of a busy entry, and that of one that is closed to members on this host.
constexpr uint32_t kControlStateMask = 0x41ff;
constexpr uint32_t kControlClosed = 0x4000;
constexpr uint32_t kEntryOwnedHere = 0x00;          // the home has the page for writing
constexpr uint32_t kEntryClean = 0x01;              // the home's frame is good, and may be copied
constexpr uint32_t kControlClean = 0xffff0001;      // … with no owner and no requester
constexpr uint32_t kControlOwnedAway = 0xff000002;  // … of whom kControlOwnerShift says
constexpr uint32_t kControlExpectsData = 0x80;      // the home expects the page back
constexpr size_t kEntryBytes = 8;                   // the control word, and then the sharers
constexpr uint32_t kSharersShift = 32;
constexpr uint64_t SharerBit(int rank) { return uint64_t{1} << (kSharersShift + rank); }
constexpr uint32_t kControlOwnerShift = 16;
constexpr uint32_t kControlRankMask = 0xff;

struct SessionOptions {
  int rank = 0;
  int size = 1;
  uint32_t map_limit = 0;    // instead of vm.max_map_count, for tests; 0 is the kernel's
  int lifeline_fd = -1;      // when this closes, the launcher is gone and the process ends
  bool userfaultfd = false;  // as the back end of faults, instead of SIGSEGV
};

class Session final : public FaultSink, public TransportClient {
 public:
  // Returns nullptr with errno set; EBUSY if this process has a session.
  static Session* Create(const SessionOptions& options);
  // The running session with this number, or nullptr. Any thread.
  static Session* Get(uint32_t id);
  // Retires all regions and closes everything; Get no longer finds the session. The engine must
  // have left Exchange for good.
  void Destroy();

  uint32_t id() const { return id_; }
  Transport* transport() { return transport_.get(); }

  // Carries out `action_count` actions, then waits for events, at most `timeout_ms` (-1: no limit).
  // Returns how many events were written, or -1 once Stop was called. Engine thread only. The blob
  // areas hold the payloads of blob records. With `watch_resumes`, a thread that comes back from a
  // fault is an event.
  int Exchange(const Entry* actions, uint32_t action_count, const uint8_t* blobs_out,
               size_t blobs_out_bytes, Entry* events, uint32_t event_capacity, uint8_t* blobs_in,
               size_t blobs_in_bytes, int timeout_ms, bool watch_resumes);
  // Milliseconds since the first Exchange. Engine thread only.
  uint64_t AgeMs() const { return (NowNs() - first_exchange_ns_) / 1000000; }

  // Any thread.
  void Wake();
  // Lets AwaitToken return, now or the next time.
  void WakeProgram();
  void SetView(uint32_t view) { view_.store(view, std::memory_order_relaxed); }
  // Makes Exchange return -1. With `exiting`, the process is on its way out with `exit_code`:
  // threads that still wait in a fault must not keep it (nor go on with a page they do not have).
  void Stop(bool exiting, int exit_code);

  // The token of a lock, from program to program: the engines hear of it afterwards.
  struct TokenAsk {
    uint32_t key_low, key_high;
    uint32_t ticket;
  };
  // Sleeps until a member passes on the token that is asked for, and returns the number of the
  // request that has it; or 0 after WakeProgram. One thread at a time, the program's.
  uint32_t AwaitToken(const TokenAsk& ask);
  // Passes a token on. False: nothing was sent. Any thread.
  bool PassToken(int rank, const TokenAsk& ask, uint32_t request);

  // Regions. Engine thread, but FindRegionById, which any thread may call.
  int MapRegion(RegionOptions options);  // 0 or errno
  void UnmapRegion(uint32_t region_id);
  Region* FindRegionById(uint32_t region_id);

  // Regions of atomic words: this member's part of one, with a number that no other region has.
  // 0 or errno. With `share` peers may change the words by RDMA atomics, if that can be; `*key`
  // says where, and `*shared` whether. UnmapRegion unmaps it. Engine thread.
  int MapWords(uint32_t region_id, uint32_t page_bytes, uint32_t page_count, bool share,
               WordsKey* key, bool* shared);
  WordBlock* FindWords(uint32_t region_id);

  // The barrier in this slot of the words: what BarrierWords says. The program's thread.
  uint32_t TellArrival(uint32_t slot) {
    return barrier_words_.TellOthers(transport_.get(), slot, view_.load());
  }
  bool WaitAtBarrier(uint32_t slot, uint32_t ticket, uint64_t most_ns) {
    return barrier_words_.Wait(this, slot, ticket, most_ns);
  }

  // FaultSink: inside signal handlers.
  bool MayAnswer(Region* region, uint32_t page) override;
  bool ReadDirectly(Region* region, uint32_t page, Access access) override;
  bool ClaimDirectly(Region* region, uint32_t page) override;
  SendResult SendRequest(Region* region, uint32_t page, uint8_t pending_state,
                         uint32_t slot) override;
  uint32_t SendReads(Region* region, const uint32_t* pages, uint32_t count, void* scratch) override;
  void PollAnswers() override;
  void WatchAnswers() override;
  bool BeginLooking(Region* region, uint32_t page) override;
  void EndLooking(Region* region, uint32_t page) override;
  void WakeEngine() override;

  // TransportClient: engine thread.
  uint8_t* FrameFor(int rank, const Record& record, size_t* length) override;
  bool OnRecord(int connection, int rank, const Record& record, const uint8_t* blob) override;
  bool AnswerAtOnce(int rank, const Record& request, Record* answer, const uint8_t** page) override;
  bool TakeAnswer(int rank, const Record& record) override;
  bool ExpectsAnswer(int rank, const Record& record, uint8_t** frame) override;
  bool DescribeSlot(uint32_t slot, uint32_t* region, uint32_t* page) override;
  bool OnWord(uint32_t request, uint64_t before) override;
  bool DescribeRegion(uint32_t region, RegionMemory* memory) override;
  int HomeOf(uint32_t region, uint32_t page) override;
  void OnOpened(int connection) override;
  void OnAccepted(int connection) override;
  void OnClosed(int connection, int rank, uint32_t reason) override;
  void OnLinkProbed(int rank, uint32_t reason) override;

 private:
  explicit Session(const SessionOptions& options);
  bool Open();
  void Perform(const Entry* actions, uint32_t count, const uint8_t* blobs, size_t blobs_bytes);
  uint32_t PerformProtect(const Entry* actions, uint32_t at, uint32_t count);
  void PerformOpens(const Entry* actions, uint32_t count);
  void PerformWord(const Entry& action);
  void PerformSend(const Entry& action, const uint8_t* blobs, size_t blobs_bytes);
  bool Push(const Entry& event);
  void ReportResumes();
  void DrainFaults();
  void DrainConnectionEvents();
  void Poll(int timeout_ms);
  bool SpinForEvents();
  void Sleep(int timeout_ms);
  void CollectLocal();
  bool AnswerSoon(int rank, const Record& request);
  bool MayAnswerRead(int rank, const Record& request, Region** region) const;
  bool LowerHere(Region* region, uint32_t page);
  static bool AddSharer(Region* region, uint32_t home_index, int rank);
  std::atomic<uint64_t>* FindEntry(Region* region, uint32_t page, PeerMemory* theirs);
  void LowerRun();
  void FlushAnswers();
  Region* FindAnswered(int rank, const Record& record, uint8_t* from, uint8_t* to);
  Region* StepAnswer(int rank, const Record& record);
  bool TakeAhead(int rank, const Record& record);
  bool TakeToken(const Record& record);
  uint32_t StopAwaiting();
  bool TakeArrival(int rank, const Record& record);
  void WakeRun();
  // Whether there can be a view of this number; lib/engine/engine.ts says more of those that
  // cannot.
  bool CanBeView(uint32_t view) const;

  const SessionOptions options_;
  const uint32_t id_;
  UniqueFd epoll_;
  UniqueFd wake_fd_;
  std::unique_ptr<Transport> transport_;  // closes its sockets before epoll_ goes
  FaultBackEnd* back_end_ = nullptr;      // of this session's regions; set by Open
  std::atomic<bool> sleeping_{false};     // the engine is in, or about to enter, epoll_wait
  std::atomic<bool> woken_{false};        // Wake was called since the last kEventWake
  std::atomic<bool> stopped_{false};
  std::atomic<uint32_t> view_{1};
  BarrierWords barrier_words_;

  static constexpr uint32_t kMaxRegionId = 1023;
  std::atomic<Region*> regions_[kMaxRegionId + 1] = {};
  std::unique_ptr<WordBlock> words_[kMaxRegionId + 1];  // engine thread

  // What the program's thread waits for: kAwaited while it does, and kCome once it is here. kTaken
  // is between the two, while somebody who looks at a record compares it with what is awaited.
  enum AwaitedState : uint32_t { kNoneAwaited, kAwaited, kTaken, kCome };
  std::atomic<uint32_t> awaited_state_{kNoneAwaited};
  TokenAsk awaited_ = {};           // set before kAwaited
  pthread_t awaiting_thread_ = {};  // as awaited_
  uint32_t awaited_request_ = 0;    // set before kCome
  std::atomic<bool> program_woken_{false};

  std::deque<Entry> connection_events_;                         // never refused, unlike records
  static constexpr uint64_t kMostSpinNs = 4 * 1000 * 1000;      // then the engine sleeps
  static constexpr uint64_t kMostLookingNs = 20 * 1000 * 1000;  // then timers are looked at
  static constexpr uint32_t kSpinsInARow = 64;  // without a look at the descriptors, at most
  SpinPolicy spin_policy_{kMostSpinNs};
  uint32_t spins_in_a_row_ = 0;
  uint64_t first_exchange_ns_ = 0;  // engine thread; 0 before it
  bool watch_resumes_ = false;
  uint32_t resumes_seen_ = 0;  // ResumeCount at the last kEventResumed
  // Answers that wait for FlushAnswers, and pages that are lowered here before they are sent: with
  // many requests in hand, that is one call each for many pages. Engine thread.
  static constexpr uint32_t kMostAnswers = 256;
  Record answers_[kMostAnswers];
  uint32_t answer_count_ = 0;
  Region* lowered_region_ = nullptr;
  uint32_t lowered_first_ = 0, lowered_count_ = 0;
  // Pages that have come and whose threads WakeRun wakes: a thread that reads one after the other
  // had better find many. Engine thread.
  Region* came_region_ = nullptr;
  uint32_t came_first_ = 0, came_count_ = 0;
  std::vector<uint8_t> discarded_;  // where bytes go that nobody wants any more
  // Where this Exchange writes. Engine thread only.
  Entry* events_ = nullptr;
  uint32_t event_count_ = 0, event_capacity_ = 0;
  uint8_t* blobs_in_ = nullptr;
  size_t blobs_in_bytes_ = 0, blobs_in_used_ = 0;
};

}  // namespace pagemesh

#endif  // PAGEMESH_BINDING_SESSION_H_
