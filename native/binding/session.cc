#include "binding/session.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/bell.h"
#include "base/check.h"
#include "base/futex_lock.h"
#include "base/signals.h"
#include "base/stamps.h"
#include "transport/shm/shm_transport.h"
#include "transport/tcp/tcp_transport.h"
#include "transport/verbs/verbs_transport.h"

namespace pagemesh {
namespace {

constexpr uint32_t kWakeToken = 0x80000000U;
constexpr uint32_t kLifelineToken = 0x80000001U;
constexpr int kMaxReady = 64;
constexpr int kLifelineExitCode = 129;  // as after SIGHUP

FutexLock session_lock;
Session* current_session = nullptr;  // session_lock
uint32_t next_session_id = 1;        // session_lock

void CountSent(Region* region) {
  region->stats().pages_sent.fetch_add(1, std::memory_order_relaxed);
  region->stats().bytes_sent.fetch_add(region->page_bytes(), std::memory_order_relaxed);
}

void CountReceived(Region* region) {
  region->stats().pages_received.fetch_add(1, std::memory_order_relaxed);
  region->stats().bytes_received.fetch_add(region->page_bytes(), std::memory_order_relaxed);
}

void AddToEpoll(int epoll_fd, int fd, uint32_t token) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u32 = token;
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

// A worker that waits in a fault cannot be joined, so a process that exits would hang on it; and
// letting the thread go on without its page would show it made-up data. Give the exit a moment,
// then end the process the hard way.
void* EndStuckProcess(void* exit_code) {
  for (;;) {
    const timespec pause = {0, 100 * 1000 * 1000};
    nanosleep(&pause, nullptr);
    if (CountWaiters(nullptr, 0, 0) > 0)
      _exit(static_cast<int>(reinterpret_cast<intptr_t>(exit_code)));
  }
}

void StampHanded(const Entry* events, uint32_t count) {
  if (!StampsAreKept()) return;
  for (uint32_t i = 0; i < count; i++) {
    const bool of_page = events[i].kind == kEventMessage || events[i].kind == kEventFault;
    if (of_page) Stamp(Point::kHanded, events[i].record.region, events[i].record.page);
  }
}

// A handler of the user's may touch shared memory. On the engine's thread it would wait for what
// only that thread can do, so such signals go to other threads, or wait.
void BlockSignals() {
  const sigset_t signals = SignalsThatCanWait();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

}  // namespace

Session::Session(const SessionOptions& options)
    : options_(options), id_(next_session_id++), barrier_words_(options.rank, options.size) {}

Session* Session::Create(const SessionOptions& options) {
  FutexGuard guard(session_lock);
  if (current_session != nullptr) {
    errno = EBUSY;
    return nullptr;
  }
  Session* session = new Session(options);
  if (!session->Open()) {
    const int error = errno;
    delete session;
    errno = error;
    return nullptr;
  }
  current_session = session;
  return session;
}

Session* Session::Get(uint32_t id) {
  FutexGuard guard(session_lock);
  return current_session != nullptr && current_session->id_ == id ? current_session : nullptr;
}

bool Session::Open() {
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  wake_fd_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_.valid() || !wake_fd_.valid()) return false;
  AddToEpoll(epoll_.get(), wake_fd_.get(), kWakeToken);
  if (options_.lifeline_fd >= 0) AddToEpoll(epoll_.get(), options_.lifeline_fd, kLifelineToken);
  const int epoll_fd = epoll_.get();
  transport_ = std::make_unique<ShmTransport>(
      epoll_fd, this, [epoll_fd](TransportClient* client) -> std::unique_ptr<Transport> {
#if PAGEMESH_HAS_VERBS
        return std::make_unique<VerbsTransport>(epoll_fd, client);
#else
        return std::make_unique<TcpTransport>(epoll_fd, client);
#endif
      });
  back_end_ = options_.userfaultfd ? UseUserfaultfd() : UseSigsegv();
  if (back_end_ == nullptr) return false;
  ProtectionBudget::Configure(options_.map_limit);
  FaultEvent left_over;
  while (PopFault(&left_over)) {
  }  // of an earlier session, whose regions are private memory now
  SetFaultSink(this);
  return true;
}

void Session::Destroy() {
  SetFaultSink(nullptr);
  {
    FutexGuard guard(session_lock);
    PM_CHECK(current_session == this);
    current_session = nullptr;
  }
  transport_->CloseAll();  // first of all: peers may write no more
  for (auto& slot : regions_) {
    Region* region = slot.exchange(nullptr);
    if (region == nullptr) continue;
    region->Retire();
    WakeWaiters(region, 0, region->page_count());
    region->Unref();
  }
  delete this;
}

void Session::Wake() {
  woken_.store(true);
  WakeEngine();
}

void Session::WakeEngine() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!sleeping_.load()) return;  // it looks at every queue before it sleeps
  const uint64_t one = 1;
  const ssize_t ignored = write(wake_fd_.get(), &one, sizeof(one));
  (void)ignored;
}

void Session::Stop(bool exiting, int exit_code) {
  stopped_.store(true);
  WakeEngine();
  if (!exiting) return;
  pthread_t watchdog;
  void* code = reinterpret_cast<void*>(static_cast<intptr_t>(exit_code));
  if (pthread_create(&watchdog, nullptr, EndStuckProcess, code) == 0) pthread_detach(watchdog);
}

int Session::MapRegion(RegionOptions options) {
  if (options.id > kMaxRegionId || regions_[options.id].load() != nullptr ||
      words_[options.id] != nullptr) {
    return EINVAL;
  }
  const uint32_t mmu_page_bytes = static_cast<uint32_t>(sysconf(_SC_PAGESIZE));
  if (options.page_bytes < mmu_page_bytes || options.page_bytes % mmu_page_bytes != 0 ||
      options.page_count == 0 || options.base % mmu_page_bytes != 0) {
    return EINVAL;
  }
  options.rank = static_cast<uint32_t>(options_.rank);
  options.size = static_cast<uint32_t>(options_.size);
  options.back_end = back_end_;
  const size_t bytes = static_cast<size_t>(options.page_count) * options.page_bytes;
  if (!transport_->AdmitRegion(bytes)) return EPERM;  // what locking beyond the limit says
  Region* region = Region::Map(options);
  if (region == nullptr) return errno;
  regions_[options.id].store(region);
  return transport_->ShareRegion(options.id, region->memory_fd(), region->byte_length(),
                                 region->memory_bytes());
}

void Session::UnmapRegion(uint32_t region_id) {
  if (region_id > kMaxRegionId) return;
  transport_->ForgetRegion(region_id);
  Region* region = regions_[region_id].exchange(nullptr);
  if (region != nullptr) region->Unref();
  words_[region_id].reset();
}

int Session::MapWords(uint32_t region_id, uint32_t page_bytes, uint32_t page_count, bool share,
                      WordsKey* key, bool* shared) {
  *shared = false;
  if (region_id > kMaxRegionId || regions_[region_id].load() != nullptr ||
      words_[region_id] != nullptr || page_bytes == 0 || page_bytes % WordBlock::kWordBytes != 0) {
    return EINVAL;
  }
  std::unique_ptr<WordBlock> block = WordBlock::Map(page_bytes, page_count);
  if (block == nullptr) return errno;
  if (share && transport_->ShareWords(region_id, block->base(), block->byte_length(), key)) {
    block->set_by_rdma();
    *shared = true;
  }
  words_[region_id] = std::move(block);
  return 0;
}

WordBlock* Session::FindWords(uint32_t region_id) {
  return region_id <= kMaxRegionId ? words_[region_id].get() : nullptr;
}

Region* Session::FindRegionById(uint32_t region_id) {
  return region_id <= kMaxRegionId ? regions_[region_id].load(std::memory_order_acquire) : nullptr;
}

bool Session::MayAnswer(Region* region, uint32_t page) {
  return transport_->MayAnswer(static_cast<int>(region->HomeOf(page)));
}

// The entry of a page that another member on this host homes; nullptr if it is not in reach.
std::atomic<uint64_t>* Session::FindEntry(Region* region, uint32_t page, PeerMemory* theirs) {
  const int home = static_cast<int>(region->HomeOf(page));
  if (!transport_->FindPeerMemory(home, region->options().id, theirs)) return nullptr;
  const size_t entry_at = static_cast<size_t>(region->HomeIndexOf(page)) * kEntryBytes;
  if (theirs->frames_bytes != region->byte_length() ||
      entry_at + kEntryBytes > theirs->directory_bytes) {
    return nullptr;
  }
  return reinterpret_cast<std::atomic<uint64_t>*>(theirs->directory + entry_at);
}

// An entry that says that its page is clean and may be reached may be changed at any time by
// members that do as this one does; otherwise only by its home. While it says so the frame is good.
// Whoever takes the page away closes the entry first, or owns it by itself if nobody else shares
// it, and tells all sharers; what they tell this member makes the copy one in vain (page-table.ts,
// filling).
bool Session::ReadDirectly(Region* region, uint32_t page, Access access) {
  PeerMemory theirs;
  std::atomic<uint64_t>* entry = FindEntry(region, page, &theirs);
  if (entry == nullptr) return false;
  // What this member gave back must not be taken off the entry later.
  if (!transport_->HasSteppedDiscards(static_cast<int>(region->HomeOf(page)))) return false;
  const uint64_t in_the_way =
      access == Access::kWrite ? ~uint64_t{0} << kSharersShift : SharerBit(options_.rank);
  uint64_t now = entry->load();
  do {
    if ((now & kControlStateMask) != kEntryClean || (now & in_the_way) != 0) return false;
  } while (!entry->compare_exchange_weak(now, now | SharerBit(options_.rank)));
  Stamp(Point::kFound, region->options().id, page);
  const size_t frame_at = static_cast<size_t>(page) * region->page_bytes();
  memcpy(region->frame(page), theirs.frames + frame_at, region->page_bytes());
  Stamp(Point::kCopied, region->options().id, page);
  CountReceived(region);
  region->stats().direct_reads.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// The row clean × writeRequestAlone or upgradeRequestAlone of the directory's table, when the home
// has no copy to lower.
bool Session::ClaimDirectly(Region* region, uint32_t page) {
  PeerMemory theirs;
  std::atomic<uint64_t>* entry = FindEntry(region, page, &theirs);
  if (entry == nullptr) return false;
  uint64_t alone = kControlClean | SharerBit(options_.rank);
  const uint32_t owner = static_cast<uint32_t>(options_.rank) << kControlOwnerShift;
  if (!entry->compare_exchange_strong(alone, kControlOwnedAway | owner)) return false;
  region->stats().direct_writes.fetch_add(1, std::memory_order_relaxed);
  return true;
}

SendResult Session::SendRequest(Region* region, uint32_t page, uint8_t pending_state,
                                uint32_t slot) {
  Record record = {};
  record.kind = pending_state == kStateReading   ? kKindReadRequest
                : pending_state == kStateWriting ? kKindWriteRequest
                                                 : kKindUpgradeRequest;
  record.view = view_.load(std::memory_order_relaxed);
  record.region = region->options().id;
  record.page = page;
  const int home = static_cast<int>(region->HomeOf(page));
  Stamp(Point::kAsking, record.region, page);
  const bool sent = transport_->TrySend(home, record, slot);
  Stamp(Point::kSent, record.region, page);
  return sent ? SendResult::kSent : SendResult::kUnsent;
}

uint32_t Session::SendReads(Region* region, const uint32_t* pages, uint32_t count, void* scratch) {
  static_assert(kRequestBytes == sizeof(Record), "memory/fault.h says what scratch must hold");
  auto* records = static_cast<Record*>(scratch);
  for (uint32_t i = 0; i < count; i++) {
    records[i] = {};
    records[i].kind = kKindReadRequest;
    records[i].view = view_.load(std::memory_order_relaxed);
    records[i].region = region->options().id;
    records[i].page = pages[i];
  }
  return transport_->TrySendMany(static_cast<int>(region->HomeOf(pages[0])), records, count);
}

void Session::PollAnswers() {
  if (transport_->PollAnswers()) WakeEngine();
}

void Session::WatchAnswers() {
  if (transport_->WatchAnswers()) WakeEngine();
}

bool Session::BeginLooking(Region* region, uint32_t page) {
  return transport_->BeginLooking(static_cast<int>(region->HomeOf(page)));
}

void Session::EndLooking(Region* region, uint32_t page) {
  transport_->EndLooking(static_cast<int>(region->HomeOf(page)));
}

void Session::WakeProgram() {
  program_woken_.store(true);
  RingIfAsleep(&OwnBell()->program);
}

uint32_t Session::AwaitToken(const TokenAsk& ask) {
  Bell::Slot* slot = &OwnBell()->program;
  awaited_ = ask;
  awaiting_thread_ = pthread_self();
  awaited_state_.store(kAwaited);
  for (;;) {
    const uint32_t heard = slot->rings.load();
    slot->asleep.store(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // then look for the last time
    if (program_woken_.exchange(false)) break;
    if (transport_->WatchTokens()) WakeEngine();
    if (awaited_state_.load() == kCome) break;
    WaitForRing(slot, heard);
  }
  slot->asleep.store(0);
  return StopAwaiting();
}

uint32_t Session::StopAwaiting() {
  for (;;) {
    uint32_t state = kAwaited;
    if (awaited_state_.compare_exchange_strong(state, kNoneAwaited)) return 0;
    if (state == kCome) break;
    sched_yield();  // somebody compares a record
  }
  awaited_state_.store(kNoneAwaited);
  return awaited_request_;
}

bool Session::PassToken(int rank, const TokenAsk& ask, uint32_t request) {
  if (rank < 0 || rank >= options_.size || rank == options_.rank) return false;
  Record record = {};
  record.kind = kKindTokenPassed;
  record.view = view_.load(std::memory_order_relaxed);
  record.words[kTokenKeyLow] = ask.key_low;
  record.words[kTokenKeyHigh] = ask.key_high;
  record.words[kTokenRequest] = request;
  record.words[kTokenTicket] = ask.ticket;
  return transport_->TrySend(rank, record, Transport::kNoSlot);
}

// Any thread. A token that the program's thread waits for just now needs no engine. Who passes it
// on proves by the ticket that the manager has told it to; what has another one is left to the
// engine.
bool Session::TakeToken(const Record& record) {
  if (!CanBeView(record.view)) return false;
  uint32_t state = kAwaited;
  if (!awaited_state_.compare_exchange_strong(state, kTaken)) return false;
  const uint32_t* words = record.words;
  const bool awaited = words[kTokenKeyLow] == awaited_.key_low &&
                       words[kTokenKeyHigh] == awaited_.key_high &&
                       words[kTokenTicket] == awaited_.ticket && words[kTokenRequest] != 0;
  awaited_request_ = words[kTokenRequest];
  const pthread_t thread = awaiting_thread_;
  awaited_state_.store(awaited ? kCome : kAwaited);
  if (awaited && !pthread_equal(thread, pthread_self())) Ring(&OwnBell()->program);
  return awaited;
}

int Session::Exchange(const Entry* actions, uint32_t action_count, const uint8_t* blobs_out,
                      size_t blobs_out_bytes, Entry* events, uint32_t event_capacity,
                      uint8_t* blobs_in, size_t blobs_in_bytes, int timeout_ms,
                      bool watch_resumes) {
  if (first_exchange_ns_ == 0) {
    BlockSignals();
    first_exchange_ns_ = NowNs();
  }
  events_ = events;
  event_count_ = 0;
  event_capacity_ = event_capacity;
  blobs_in_ = blobs_in;
  blobs_in_bytes_ = blobs_in_bytes;
  blobs_in_used_ = 0;
  watch_resumes_ = watch_resumes;
  WatchResumes(watch_resumes);
  if (event_capacity > 0) transport_->MarkStepped();  // not for actions in the midst of events
  Perform(actions, action_count, blobs_out, blobs_out_bytes);
  transport_->Flush();
  if (action_count > 0) Stamp(Point::kSent, 0, kNoPage);
  if (watch_resumes && AnyTouching()) back_end_->Attend();
  for (bool waited = false; event_count_ == 0; waited = true) {
    if (stopped_.load()) return -1;
    if (waited && timeout_ms >= 0) break;
    Poll(timeout_ms);
  }
  StampHanded(events_, event_count_);
  return static_cast<int>(event_count_);
}

// Collects what is there; if there is nothing, first looks again for a while, and then sleeps.
void Session::Poll(int timeout_ms) {
  DrainConnectionEvents();
  const bool refused = transport_->Resume();
  FlushAnswers();
  DrainFaults();
  const bool may_spin = event_count_ == 0 && !refused && timeout_ms != 0 && transport_->Spins();
  if (may_spin && spins_in_a_row_++ < kSpinsInARow && SpinForEvents()) return;
  spins_in_a_row_ = 0;
  Sleep(refused ? 0 : timeout_ms);
}

// Everything that can be seen without a system call.
void Session::CollectLocal() {
  DrainConnectionEvents();
  DrainFaults();
  ReportResumes();
  if (woken_.exchange(false)) {
    Entry event = {};
    event.kind = kEventWake;
    if (!Push(event)) woken_.store(true);
  }
}

// True if there are events.
bool Session::SpinForEvents() {
  transport_->Poll();
  FlushAnswers();
  CollectLocal();
  if (event_count_ > 0) return true;
  Spin spin(&spin_policy_);
  const uint64_t start_ns = NowNs();
  // One that looks is enough: a faulting thread has more to win, and wakes the engine for the rest.
  while (CountLookingAskers() == 0 && spin.GoOn() && !stopped_.load()) {
    const bool handled = transport_->Poll();  // what is answered at once is no event
    FlushAnswers();
    CollectLocal();
    if (!handled && event_count_ == 0) continue;
    spin.Found();
    if (event_count_ > 0) return true;
    if (NowNs() - start_ns > kMostLookingNs) return false;
  }
  return false;
}

void Session::Sleep(int timeout_ms) {
  sleeping_.store(true);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  DrainFaults();  // what was pushed before sleeping_ could be seen
  ReportResumes();
  bool busy = event_count_ > 0 || woken_.load() || stopped_.load();
  if (!busy && timeout_ms != 0 && transport_->Polls()) {
    OwnBell()->engine_awaits.store(barrier_words_.EngineAwaits() ? 1 : 0);
    transport_->Arm(CountSleepingAskers() > 0);
    busy = transport_->Poll() || event_count_ > 0;  // what came before it was armed
  }
  epoll_event ready[kMaxReady];
  const int count = epoll_wait(epoll_.get(), ready, kMaxReady, busy ? 0 : timeout_ms);
  Stamp(Point::kEngineAwake, 0, kNoPage);
  sleeping_.store(false);
  transport_->Disarm();
  for (int i = 0; i < count; i++) {
    const uint32_t token = ready[i].data.u32;
    if (token == kWakeToken) {
      uint64_t value;
      const ssize_t ignored = read(wake_fd_.get(), &value, sizeof(value));
      (void)ignored;
    } else if (token == kLifelineToken) {
      _exit(kLifelineExitCode);
    } else {
      transport_->OnReady(token, ready[i].events);
    }
  }
  FlushAnswers();
  CollectLocal();
}

bool Session::Push(const Entry& event) {
  if (event_count_ == event_capacity_) return false;
  events_[event_count_++] = event;
  return true;
}

void Session::ReportResumes() {
  const uint32_t now = ResumeCount();
  if (!watch_resumes_ || now == resumes_seen_) return;
  Entry event = {};
  event.kind = kEventResumed;
  if (Push(event)) resumes_seen_ = now;
}

void Session::DrainFaults() {
  FaultEvent fault;
  while (event_count_ < event_capacity_ && PopFault(&fault)) {
    Entry event = {};
    event.kind = kEventFault;
    event.words[0] = static_cast<uint32_t>(fault.access);
    event.words[1] = fault.unsent_state;
    event.record.region = fault.region_id;
    event.record.page = fault.page;
    Push(event);
  }
}

void Session::DrainConnectionEvents() {
  while (!connection_events_.empty() && Push(connection_events_.front())) {
    connection_events_.pop_front();
  }
}

void Session::Perform(const Entry* actions, uint32_t count, const uint8_t* blobs,
                      size_t blobs_bytes) {
  bool opens = false;
  for (uint32_t i = 0; i < count;) {
    const Entry& action = actions[i];
    opens = opens || action.kind == kActionOpen;
    if (action.kind == kActionProtect) {
      i += PerformProtect(actions, i, count);
      continue;
    }
    if (action.kind == kActionWake) {
      Region* region = FindRegionById(action.record.region);
      if (region != nullptr) WakeWaiters(region, action.record.page, action.words[1]);
    } else if (action.kind == kActionWord) {
      PerformWord(action);
    } else if (action.kind != kActionOpen) {
      PerformSend(action, blobs, blobs_bytes);
    }
    i++;
  }
  if (opens) PerformOpens(actions, count);
}

// What TypeScript has opened it may have closed and lowered again since: an entry is as its last
// step left it, so all protections come first.
void Session::PerformOpens(const Entry* actions, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    if (actions[i].kind != kActionOpen) continue;
    const Record& record = actions[i].record;
    Region* region = FindRegionById(record.region);
    PM_CHECK_STATE(region != nullptr, record.region, record.page);
    region->ClearControl(region->HomeIndexOf(record.page), kControlClosed);
  }
}

// Carries out this action and those behind it that continue its range, in one call. Returns how
// many.
uint32_t Session::PerformProtect(const Entry* actions, uint32_t at, uint32_t count) {
  const Entry& first = actions[at];
  uint32_t pages = first.words[1], taken = 1;
  while (at + taken < count) {
    const Entry& next = actions[at + taken];
    if (next.kind != kActionProtect || next.record.region != first.record.region ||
        next.words[0] != first.words[0] || next.words[2] != first.words[2] ||
        next.record.page != first.record.page + pages) {
      break;
    }
    pages += next.words[1];
    taken++;
  }
  Region* region = FindRegionById(first.record.region);
  PM_CHECK_STATE(region != nullptr, first.record.region, first.record.page);
  Stamp(Point::kStepped, first.record.region, first.record.page);
  region->Protect(first.record.page, pages, static_cast<int>(first.words[0]));
  Stamp(Point::kProtected, first.record.region, first.record.page);
  if ((first.words[2] & kProtectInvalidate) != 0) {
    region->stats().invalidations.fetch_add(pages, std::memory_order_relaxed);
  }
  if ((first.words[2] & kProtectWake) != 0) WakeWaiters(region, first.record.page, pages);
  return taken;
}

void Session::PerformWord(const Entry& action) {
  const auto wide = [&](int at) {
    return action.record.words[at] | (static_cast<uint64_t>(action.record.words[at + 1]) << 32);
  };
  PM_CHECK_STATE(action.words[0] < kMaxMembers, action.words[0], action.words[1]);
  WordChange change;
  change.request = action.words[1];
  change.compares = action.words[2] == kWordCompares;
  change.word = {action.record.words[kWordRkey], wide(kWordAddress)};
  change.operand = wide(kWordOperand);
  change.expected = wide(kWordExpected);
  transport_->ChangeWord(static_cast<int>(action.words[0]), change);
}

void Session::PerformSend(const Entry& action, const uint8_t* blobs, size_t blobs_bytes) {
  Stamp(Point::kStepped, action.record.region, action.record.page);
  const uint8_t* payload = nullptr;
  switch (action.kind) {
    case kActionSend:
      PM_CHECK(action.record.payload_bytes == 0);
      break;
    case kActionSendPage: {
      Region* region = FindRegionById(action.record.region);
      PM_CHECK_STATE(region != nullptr, action.record.region, action.record.page);
      PM_CHECK(action.record.page < region->page_count());
      PM_CHECK(action.record.payload_bytes == region->page_bytes());
      payload = region->frame(action.record.page);
      CountSent(region);
      break;
    }
    case kActionSendBlob:
    case kActionSendBlobTo:
      PM_CHECK(action.record.payload_bytes == action.words[2]);
      PM_CHECK_STATE(
          action.words[1] <= blobs_bytes && action.words[2] <= blobs_bytes - action.words[1],
          action.words[1], action.words[2]);
      payload = blobs + action.words[1];
      break;
    default:
      PM_CHECK_STATE(false, action.kind, 0);
  }
  if (action.kind == kActionSendBlobTo) {
    transport_->QueueTo(static_cast<int>(action.words[0]), &action.record, payload);
  } else {
    transport_->Queue(static_cast<int>(action.words[0]), &action.record, payload);
  }
}

// A page's bytes are let in only while this member waits for that page: as the requester, or as
// the home that is owed the page by this very member.
uint8_t* Session::FrameFor(int rank, const Record& record, size_t* length) {
  Region* region = FindRegionById(record.region);
  if (region == nullptr || record.page >= region->page_count()) return nullptr;
  *length = region->page_bytes();
  const uint32_t page = record.page;
  if (record.kind == kKindWriteBack) {
    if (region->HomeOf(page) != static_cast<uint32_t>(options_.rank)) return nullptr;
    const uint32_t control = region->control_word(region->HomeIndexOf(page));
    const uint32_t owner = (control >> kControlOwnerShift) & kControlRankMask;
    const bool expected = (control & kControlExpectsData) != 0;
    return expected && owner == static_cast<uint32_t>(rank) ? region->frame(page) : nullptr;
  }
  if (record.kind != kKindData && record.kind != kKindDataExclusive) return nullptr;
  const uint8_t state = region->state(page).load(std::memory_order_acquire);
  if ((state & kPageAcceptsData) != 0) return region->frame(page);
  // A page that was given up because its home went down may still be on its way from its owner.
  const int home = static_cast<int>(region->HomeOf(page));
  if (home == options_.rank || transport_->IsOpen(home)) return nullptr;
  discarded_.resize(region->page_bytes());
  return discarded_.data();
}

bool Session::OnRecord(int connection, int rank, const Record& record, const uint8_t* blob) {
  Stamp(Point::kSeen, record.region, record.page);
  if (record.kind == kKindData && TakeAhead(rank, record)) return true;
  if (record.kind == kKindTokenPassed && TakeToken(record)) return true;
  if (record.kind == kKindBarrierArrive && TakeArrival(rank, record)) return true;
  if (record.kind == kKindReadRequest && rank != kNoRank && transport_->TakesRuns(rank)) {
    if (answer_count_ == kMostAnswers) return false;
    if (AnswerSoon(rank, record)) return true;
  }
  Entry event = {};
  event.record = record;
  const bool cluster = record.kind == kKindCluster;
  event.kind = cluster ? kEventClusterFrame : kEventMessage;
  event.words[0] = static_cast<uint32_t>(cluster ? connection : rank);
  if (cluster) event.record.words[0] = static_cast<uint32_t>(rank + 1);
  if (blob != nullptr) {
    if (blobs_in_bytes_ - blobs_in_used_ < record.payload_bytes) return false;
    event.words[1] = static_cast<uint32_t>(blobs_in_used_);
    event.words[2] = record.payload_bytes;
  }
  if (!Push(event)) return false;
  if (blob != nullptr && record.payload_bytes > 0) {
    memcpy(blobs_in_ + blobs_in_used_, blob, record.payload_bytes);
    blobs_in_used_ += record.payload_bytes;
  }
  if (IsPage(record.kind)) {
    Region* region = FindRegionById(record.region);
    if (region != nullptr) CountReceived(region);
  }
  return true;
}

bool Session::CanBeView(uint32_t view) const {
  return view >= 1 && view <= static_cast<uint32_t>(options_.size);
}

// Whether the engine is in Exchange, and so between two of its steps: an entry is as it left it.
// What the member sent before must not be overtaken, so there may be no event that the engine has
// not seen.
bool Session::MayAnswerRead(int rank, const Record& request, Region** region) const {
  if (request.kind != kKindReadRequest || event_capacity_ == 0 || event_count_ > 0) return false;
  if (!CanBeView(request.view) || rank == options_.rank || request.region > kMaxRegionId)
    return false;
  *region = regions_[request.region].load(std::memory_order_acquire);
  return *region != nullptr && request.page < (*region)->page_count() &&
         (*region)->HomeOf(request.page) == static_cast<uint32_t>(options_.rank);
}

// The rows clean × readRequest and ownedHere × readRequest of the directory's table, for a request
// among many: the answer goes out with others.
bool Session::AnswerSoon(int rank, const Record& request) {
  Region* region = nullptr;
  if (!MayAnswerRead(rank, request, &region)) return false;
  const uint32_t page = request.page;
  // Requests may wait for a page that is held here; only the engine knows whose turn it is.
  if ((region->state(page).load() & kPageHeld) != 0) return false;
  const uint32_t home_index = region->HomeIndexOf(page);
  const uint32_t state = region->control_word(home_index) & kControlStateMask;
  if (state == kEntryClean) {
    if (!AddSharer(region, home_index, rank)) return false;
  } else if (state == kEntryOwnedHere && LowerHere(region, page)) {
    region->SetEntry(home_index, kControlClean | kControlClosed, 1U << rank | 1U << options_.rank);
  } else {
    return false;
  }
  Stamp(Point::kStepped, request.region, page);
  Record& answer = answers_[answer_count_++];
  answer = {};
  answer.payload_bytes = static_cast<uint32_t>(region->page_bytes());
  answer.kind = kKindData;
  answer.view = view_.load(std::memory_order_relaxed);
  answer.region = request.region;
  answer.page = page;
  transport_->Queue(rank, &answer, region->frame(page));
  CountSent(region);
  return true;
}

// False: the page is not clean, or its only sharer has just become its owner.
bool Session::AddSharer(Region* region, uint32_t home_index, int rank) {
  std::atomic<uint64_t>& entry = region->entry(home_index);
  uint64_t now = entry.load();
  do {
    if ((now & kControlStateMask) != kEntryClean) return false;
  } while (!entry.compare_exchange_weak(now, now | SharerBit(rank)));
  return true;
}

// The row write × lowerHere of the page table, but for the protection: LowerRun follows, before
// anything is sent.
bool Session::LowerHere(Region* region, uint32_t page) {
  uint8_t expected = kStateWrite;
  if (!region->state(page).compare_exchange_strong(expected, kStateRead)) return false;
  if (region != lowered_region_ || page != lowered_first_ + lowered_count_) {
    LowerRun();
    lowered_region_ = region;
    lowered_first_ = page;
  }
  lowered_count_++;
  return true;
}

void Session::LowerRun() {
  if (lowered_count_ > 0) lowered_region_->Protect(lowered_first_, lowered_count_, PROT_READ);
  if (lowered_count_ > 0) Stamp(Point::kProtected, lowered_region_->options().id, lowered_first_);
  for (uint32_t i = 0; i < lowered_count_; i++) {
    lowered_region_->ClearControl(lowered_region_->HomeIndexOf(lowered_first_ + i), kControlClosed);
  }
  lowered_region_ = nullptr;
  lowered_count_ = 0;
}

// Ends what was begun for many records at a time.
void Session::FlushAnswers() {
  WakeRun();
  if (answer_count_ == 0) return;
  LowerRun();
  transport_->Flush();
  Stamp(Point::kSent, 0, kNoPage);
  answer_count_ = 0;
}

// As AnswerSoon for clean pages, for a transport that sends the answer itself.
bool Session::AnswerAtOnce(int rank, const Record& request, Record* answer, const uint8_t** page) {
  Region* region = nullptr;
  if (!MayAnswerRead(rank, request, &region)) return false;
  const uint32_t home_index = region->HomeIndexOf(request.page);
  if ((region->control_word(home_index) & kControlStateMask) != kEntryClean) return false;
  Stamp(Point::kSeen, request.region, request.page);
  if (!AddSharer(region, home_index, rank)) return false;
  Stamp(Point::kStepped, request.region, request.page);
  *answer = {};
  answer->payload_bytes = static_cast<uint32_t>(region->page_bytes());
  answer->kind = kKindData;
  answer->view = view_.load(std::memory_order_relaxed);
  answer->region = request.region;
  answer->page = request.page;
  *page = region->frame(request.page);
  CountSent(region);
  return true;
}

// The two rows of the page table that native code may step: reading × data, and writing or
// upgrading × grant, for a thread that waits for just that, or that has asked ahead. Returns the
// region, and between which states the page goes; nullptr if the record is no such answer.
Region* Session::FindAnswered(int rank, const Record& record, uint8_t* from, uint8_t* to) {
  if (record.words[0] != 0 || record.words[1] != 0) return nullptr;  // not the last word
  if (!CanBeView(record.view)) return nullptr;
  Region* region = FindRegionById(record.region);
  if (region == nullptr || record.page >= region->page_count()) return nullptr;
  if (region->HomeOf(record.page) != static_cast<uint32_t>(rank)) return nullptr;
  size_t payload_bytes = region->page_bytes();
  *to = kStateWrite;
  switch (record.kind) {
    case kKindData:
      *from = kStateReading;
      *to = kStateRead;
      break;
    case kKindDataExclusive:
      *from = kStateWriting;
      break;
    case kKindGrant:
      *from = kStateUpgrading;
      payload_bytes = 0;
      break;
    default:
      return nullptr;
  }
  return record.payload_bytes == payload_bytes ? region : nullptr;
}

bool Session::ExpectsAnswer(int rank, const Record& record, uint8_t** frame) {
  uint8_t from, to;
  const Region* region = FindAnswered(rank, record, &from, &to);
  if (region == nullptr) return false;
  const uint8_t now = region->state(record.page).load(std::memory_order_acquire);
  if ((now & ~kPageHeld) != (from | kPageDirect)) return false;
  *frame = record.payload_bytes > 0 ? region->frame(record.page) : nullptr;
  return true;
}

// Takes the step. Returns the region, or nullptr if it is none.
Region* Session::StepAnswer(int rank, const Record& record) {
  uint8_t from, to;
  Region* region = FindAnswered(rank, record, &from, &to);
  if (region == nullptr) return nullptr;
  std::atomic<uint8_t>& state = region->state(record.page);
  uint8_t now = state.load(std::memory_order_acquire);
  do {
    if ((now & ~kPageHeld) != (from | kPageDirect)) return nullptr;
  } while (!state.compare_exchange_weak(now, static_cast<uint8_t>(to | (now & kPageHeld))));
  Stamp(Point::kCame, record.region, record.page);
  if (record.payload_bytes > 0) CountReceived(region);
  return region;
}

bool Session::TakeAnswer(int rank, const Record& record) {
  if (record.kind == kKindTokenPassed) return TakeToken(record);
  if (record.kind == kKindBarrierArrive) return TakeArrival(rank, record);
  const Region* region = StepAnswer(rank, record);
  if (region == nullptr) return false;
  WakeWaiters(region, record.page, 1);
  return true;
}

// A member has come to a barrier that this one uses again and again.
bool Session::TakeArrival(int rank, const Record& record) {
  if (!CanBeView(record.view) || !barrier_words_.Count(rank, record)) return false;
  // It looks at the words after it has said that it waits, and this thread the other way round.
  if (barrier_words_.EngineAwaits()) Wake();
  return true;
}

// As TakeAnswer, on the engine's thread, for a page that came as one of many.
bool Session::TakeAhead(int rank, const Record& record) {
  Region* region = StepAnswer(rank, record);
  if (region == nullptr) return false;
  if (region != came_region_ || record.page != came_first_ + came_count_) {
    WakeRun();
    came_region_ = region;
    came_first_ = record.page;
  }
  came_count_++;
  return true;
}

void Session::WakeRun() {
  if (came_count_ > 0) WakeWaiters(came_region_, came_first_, came_count_);
  came_region_ = nullptr;
  came_count_ = 0;
}

bool Session::DescribeSlot(uint32_t slot, uint32_t* region_id, uint32_t* page) {
  const Region* region = RegionOfSlot(slot, page);
  if (region == nullptr) return false;
  *region_id = region->options().id;
  return true;
}

bool Session::OnWord(uint32_t request, uint64_t before) {
  Entry event = {};
  event.kind = kEventWord;
  event.words[0] = request;
  event.words[1] = static_cast<uint32_t>(before);
  event.words[2] = static_cast<uint32_t>(before >> 32);
  return Push(event);
}

bool Session::DescribeRegion(uint32_t region_id, RegionMemory* memory) {
  const Region* region = FindRegionById(region_id);
  if (region == nullptr) return false;
  *memory = {region_id, region->frame(0), region->byte_length(),
             static_cast<uint32_t>(region->page_bytes())};
  return true;
}

int Session::HomeOf(uint32_t region_id, uint32_t page) {
  const Region* region = FindRegionById(region_id);
  if (region == nullptr || page >= region->page_count()) return kNoRank;
  return static_cast<int>(region->HomeOf(page));
}

void Session::OnOpened(int connection) {
  Entry event = {};
  event.kind = kEventOpened;
  event.words[0] = static_cast<uint32_t>(connection);
  connection_events_.push_back(event);
}

void Session::OnAccepted(int connection) {
  Entry event = {};
  event.kind = kEventAccepted;
  event.words[0] = static_cast<uint32_t>(connection);
  connection_events_.push_back(event);
}

void Session::OnClosed(int connection, int rank, uint32_t reason) {
  Entry event = {};
  event.kind = kEventClosed;
  event.words[0] = static_cast<uint32_t>(connection);
  event.words[1] = static_cast<uint32_t>(rank + 1);
  event.words[2] = reason;
  connection_events_.push_back(event);
}

void Session::OnLinkProbed(int rank, uint32_t reason) {
  Entry event = {};
  event.kind = kEventLinkProbed;
  event.words[0] = static_cast<uint32_t>(rank);
  event.words[1] = reason;
  connection_events_.push_back(event);
}

}  // namespace pagemesh
