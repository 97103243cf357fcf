#include "memory/fault.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

#include <atomic>

#include "base/bell.h"
#include "base/check.h"
#include "base/futex_lock.h"
#include "base/spin.h"
#include "base/stamps.h"
#include "memory/prefetch.h"

namespace pagemesh {
namespace {

constexpr uint32_t kMaxWaiters = kMaxFaultSlots;   // threads in a fault at the same time
constexpr uint64_t kMostSpinNs = 4 * 1000 * 1000;  // then a thread sleeps until it is woken
constexpr uint32_t kQueueLength = 8192;
static_assert((kQueueLength & (kQueueLength - 1)) == 0, "the queue index is masked");
constexpr uint32_t kMostAhead = 1024;  // events of threads that ask ahead
// A thread that was woken for another reason may put a second event into the queue before the
// engine has seen the first.
static_assert(kQueueLength >= 3 * kMaxWaiters + kMostAhead, "all events have room");
static_assert(kMaxWaiters == kBellSlots, "each has its slot in the bell");

// One thread that waits in a fault. It sleeps on its slot of the bell, because members on this host
// wake it too, to look for their answers itself. Published before the thread looks at the page's
// state for the last time; the engine changes the state first and then looks for waiters: one of
// them sees the other.
struct Waiter {
  static constexpr uint32_t kFree = 0, kClaimed = 1, kWaiting = 2, kAsleep = 3, kWoken = 4;
  // Of sleepers: in the kernel, with its page asked for; or let go, but perhaps not yet awake.
  static constexpr uint32_t kInKernel = 5, kTouching = 6;
  std::atomic<uint32_t> word{kFree};
  std::atomic<Region*> region{nullptr};
  std::atomic<uint32_t> page{0};
  // Of sleepers only; sleepers_lock, which also guards changes of `word` from kInKernel on.
  bool sleeps_in_kernel = false;
  bool asks = false;  // counted in sleeping_askers
  Access access = Access::kRead;
  std::atomic<uint32_t> thread{0};
  uint64_t since_ns = 0;
  // The processor time that it had used when it was found asleep.
  std::atomic<uint64_t> ran_ns{0};
  std::atomic<uint64_t> touching_until_ns{0};
};
Waiter waiters[kMaxWaiters];
SpinPolicy spin_policy(kMostSpinNs);    // of all faulting threads together
std::atomic<uint32_t> waiter_limit{0};  // waiters at and beyond this were never used
std::atomic<uint32_t> waiting{0};       // how many are claimed: lets the engine skip the search

// Many producers (faulting threads), one consumer (the engine). After D. Vyukov's bounded queue:
// a cell's sequence number says whose turn it is.
struct Cell {
  std::atomic<uint32_t> sequence{0};
  FaultEvent event{};
};
Cell queue[kQueueLength];
std::atomic<uint32_t> queue_tail{0};   // producers
uint32_t queue_head = 0;               // engine thread only
std::atomic<uint32_t> ahead_count{0};  // of the events in the queue that PushUnsentAhead put there

std::atomic<FaultSink*> fault_sink{nullptr};
std::atomic<int> sink_users{0};  // threads that may have read fault_sink and still use it
std::atomic<uint32_t> resume_count{0};
std::atomic<int> sleeping_askers{0};
std::atomic<int> looking_askers{0};
std::atomic<bool> watching_resumes{false};

// Held from before the sink is read until it is used no more.
struct SinkUse {
  SinkUse() { sink_users.fetch_add(1); }
  ~SinkUse() { sink_users.fetch_sub(1); }
  SinkUse(const SinkUse&) = delete;
  SinkUse& operator=(const SinkUse&) = delete;
};

// Members on this host wake nobody here while somebody looks; so after the end of that one must
// look once more.
class Looking {
 public:
  Looking(FaultSink* sink, Region* region, uint32_t page)
      : sink_(sink), region_(region), page_(page) {
    looking_askers.fetch_add(1);
    OwnBell()->lookers.fetch_add(1);
    begun_ = sink_->BeginLooking(region_, page_);
  }
  ~Looking() {
    if (begun_) sink_->EndLooking(region_, page_);
    OwnBell()->lookers.fetch_sub(1);
    looking_askers.fetch_sub(1);
  }
  Looking(const Looking&) = delete;
  Looking& operator=(const Looking&) = delete;

 private:
  FaultSink* const sink_;
  Region* const region_;
  const uint32_t page_;
  bool begun_ = false;
};

// A thread sleeps, or is about to. One that asks lets others wake it to take its answer itself.
class Asleep {
 public:
  Asleep(uint32_t slot, bool asks)
      : slot_(&OwnBell()->slots[slot]), heard_(slot_->rings.load()), asks_(asks) {
    if (!asks_) return;
    slot_->asleep.store(1);
    sleeping_askers.fetch_add(1);
  }
  ~Asleep() {
    if (!asks_) return;
    sleeping_askers.fetch_sub(1);
    slot_->asleep.store(0);
  }
  Asleep(const Asleep&) = delete;
  Asleep& operator=(const Asleep&) = delete;

  void Wait() { WaitForRing(slot_, heard_); }
  bool HasRung() const { return slot_->rings.load() != heard_; }

 private:
  Bell::Slot* const slot_;
  const uint32_t heard_;
  const bool asks_;
};

// A cell's sequence starts at its index; static storage starts at 0, so numbers are stored less it.
uint32_t SequenceOf(uint32_t index) {
  return queue[index & (kQueueLength - 1)].sequence.load(std::memory_order_acquire) +
         (index & (kQueueLength - 1));
}
void SetSequence(uint32_t index, uint32_t value) {
  queue[index & (kQueueLength - 1)].sequence.store(value - (index & (kQueueLength - 1)),
                                                   std::memory_order_release);
}

void PushFault(const FaultEvent& event) {
  uint32_t index = queue_tail.load(std::memory_order_relaxed);
  for (;;) {
    const int32_t ahead = static_cast<int32_t>(SequenceOf(index) - index);
    PM_CHECK_STATE(ahead >= 0, index, queue_head);
    if (ahead == 0 && queue_tail.compare_exchange_weak(index, index + 1)) break;
    if (ahead > 0) index = queue_tail.load(std::memory_order_relaxed);
  }
  queue[index & (kQueueLength - 1)].event = event;
  SetSequence(index, index + 1);
}

Waiter* TryClaimWaiter(Region* region, uint32_t page) {
  for (uint32_t i = 0; i < kMaxWaiters; i++) {
    uint32_t expected = Waiter::kFree;
    if (!waiters[i].word.compare_exchange_strong(expected, Waiter::kClaimed)) continue;
    uint32_t limit = waiter_limit.load();
    while (limit < i + 1 && !waiter_limit.compare_exchange_weak(limit, i + 1)) {
    }
    waiting.fetch_add(1);
    waiters[i].region.store(region);
    waiters[i].page.store(page);
    return &waiters[i];
  }
  return nullptr;
}

Waiter* ClaimWaiter(Region* region, uint32_t page) {
  Waiter* waiter = TryClaimWaiter(region, page);
  for (; waiter == nullptr; waiter = TryClaimWaiter(region, page)) {
    sched_yield();  // thousands of threads are in a fault: wait for one of them to get out
  }
  return waiter;
}

void ReleaseWaiter(Waiter* waiter) {
  waiter->region.store(nullptr);
  waiting.fetch_sub(1);
  waiter->word.store(Waiter::kFree);
  resume_count.fetch_add(1);
  if (!watching_resumes.load()) return;
  const SinkUse use;
  FaultSink* sink = fault_sink.load();
  if (sink != nullptr) sink->WakeEngine();
}

// Takes the page to the state in which its request is on its way. Returns the new state, or 0 if
// there is nothing to ask (any more): the state has changed, or a request is out already.
uint8_t TakePending(std::atomic<uint8_t>& state, Access access, uint8_t direct) {
  uint8_t now = state.load(std::memory_order_acquire);
  for (;;) {
    if ((now & kPagePending) != 0 || Permits(now, access)) return 0;
    const uint8_t held = now & kPageHeld;
    uint8_t next = access == Access::kRead ? kStateReading : kStateWriting;
    if ((now & kPageReadable) != 0) next = kStateUpgrading;
    if (state.compare_exchange_weak(now, next | held | direct)) return next;
  }
}

// Sends the page's request, and those for the pages that the thread will read after it. With a
// slot, the request that names it goes first and alone. False: the engine must send it.
bool Send(FaultSink* sink, Region* region, uint32_t page, uint8_t pending, uint32_t slot) {
  const bool reads = pending == kStateReading;
  const bool alone = !reads || slot != kNoFaultSlot;
  AskedAhead asked = AskedAhead::kNothing;
  if (!alone) asked = AskAhead(sink, region, page, true);
  if (asked != AskedAhead::kNothing) return asked == AskedAhead::kSent;
  if (sink->SendRequest(region, page, pending, slot) != SendResult::kSent) return false;
  if (reads && alone) AskAhead(sink, region, page, false);
  return true;
}

// Makes sure that somebody asks for the page. False: look at its state again. Without a slot the
// answer is the engine's.
bool Ask(Region* region, uint32_t page, Access access, uint32_t slot) {
  const SinkUse use;
  FaultSink* sink = fault_sink.load();
  uint8_t unsent = 0;
  if (sink != nullptr && region->HomeOf(page) != region->options().rank) {
    const Filled filled = Fill(sink, region, page, access);
    if (filled == Filled::kYes) {
      bool parked;
      region->RaiseIfPermitted(page, access, Region::Raise::kAlone, &parked);
      if (access == Access::kRead) AskAhead(sink, region, page, false);
    }
    if (filled != Filled::kNot) return filled == Filled::kInVain;
    const bool direct = slot != kNoFaultSlot && sink->MayAnswer(region, page);
    const uint8_t pending = TakePending(region->state(page), access, direct ? kPageDirect : 0);
    if (pending == 0 || Send(sink, region, page, pending, direct ? slot : kNoFaultSlot)) {
      if (pending == 0 && access == Access::kRead) AskAhead(sink, region, page, false);
      return true;
    }
    unsent = pending;
  }
  PushFault({region->options().id, page, access, unsent});
  if (sink != nullptr) sink->WakeEngine();
  return true;
}

// Looks for the answer for as long as the core has nothing better to do. True: look at the state.
bool LookForAnswer(Waiter* waiter, FaultSink* sink, Region* region, uint32_t page, Access access) {
  const Looking looking(sink, region, page);
  Spin spin(&spin_policy);
  do {
    sink->PollAnswers();
    if (waiter->word.load() != Waiter::kWaiting ||
        Permits(region->state(page).load(std::memory_order_acquire), access)) {
      spin.Found();
      return true;
    }
  } while (spin.GoOn());
  return false;
}

// Sleeps until somebody changes the page's state, or knows better, and says so.
void SleepForAnswer(Waiter* waiter, Asleep* asleep, Region* region, uint32_t page, Access access) {
  // Whoever changes the state from here on wakes this thread.
  if (Permits(region->state(page).load(), access)) return;
  uint32_t expected = Waiter::kWaiting;
  waiter->word.compare_exchange_strong(expected, Waiter::kAsleep);
  while (waiter->word.load() == Waiter::kAsleep && !asleep->HasRung()) asleep->Wait();
}

// Returns when the page's state has changed, or might have.
void WaitForAnswer(Waiter* waiter, Region* region, uint32_t page, Access access) {
  const uint32_t slot = static_cast<uint32_t>(waiter - waiters);
  // A page whose request the engine sent comes by way of the engine, which needs no help.
  // One that was asked for ahead over a link is like one that this thread asked for.
  bool asks = (region->state(page).load() & kPageDirect) != 0;
  if (asks) {
    const SinkUse use;
    FaultSink* sink = fault_sink.load();
    asks = sink != nullptr && sink->MayAnswer(region, page);
    const bool found = asks && LookForAnswer(waiter, sink, region, page, access);
    if (asks) sink->PollAnswers();
    if (found) return;
  }
  Asleep asleep(slot, asks);
  if (asks) {
    const SinkUse use;
    FaultSink* sink = fault_sink.load();
    if (sink != nullptr) sink->WatchAnswers();
  }
  SleepForAnswer(waiter, &asleep, region, page, access);
}

void WaitForGrant(Region* region, uint32_t page, Access access) {
  const uint64_t start_ns = NowNs();
  Waiter* waiter = ClaimWaiter(region, page);
  const uint32_t slot = static_cast<uint32_t>(waiter - waiters);
  bool parked = false;
  for (;;) {
    waiter->word.store(Waiter::kWaiting);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish first, then look at the state
    // Alone: what was asked for ahead has come with it, and that it is touched must be seen, or
    // nobody knows whether it was worth asking.
    if (region->RaiseIfPermitted(page, access, Region::Raise::kAlone, &parked)) break;
    if (!Ask(region, page, access, slot)) continue;
    WaitForAnswer(waiter, region, page, access);
    Stamp(Point::kWoken, region->options().id, page);
  }
  Stamp(Point::kRaised, region->options().id, page);
  ReleaseWaiter(waiter);
  region->stats().wait_ns.fetch_add(NowNs() - start_ns, std::memory_order_relaxed);
}

// The thread has come to a page that is here: it may have been asked for ahead.
void GoOnAhead(Region* region, uint32_t page) {
  if (region->prefetch_table() == nullptr) return;
  const SinkUse use;
  FaultSink* sink = fault_sink.load();
  if (sink != nullptr) AskAhead(sink, region, page, false);
}

// How long a sleeper has to wake up and touch its page before it is given away again, if nothing
// is heard of it; and how long it runs before it certainly has.
constexpr uint64_t kTouchNs = 2 * 1000 * 1000;
constexpr uint64_t kRunNs = 5 * 1000;
constexpr int kLookAgainUs = 20;
FutexLock sleepers_lock;
std::atomic<int> touching{0};  // sleepers in kTouching

// The processor time of a thread of this process; false if that cannot be told.
bool ProcessorNs(uint32_t thread, uint64_t* ns) {
  // include/linux/posix-timers_types.h: the complement of its number, and "per thread, scheduler".
  const clockid_t clock = static_cast<clockid_t>(~thread << 3 | 6);
  timespec time;
  if (thread == 0 || clock_gettime(clock, &time) != 0) return false;
  *ns = static_cast<uint64_t>(time.tv_sec) * 1000000000 + static_cast<uint64_t>(time.tv_nsec);
  return true;
}

// A thread that has been let go uses no processor until it is awake, and then touches its page
// first of all.
bool IsTouching(const Waiter* waiter) {
  if (waiter->word.load() != Waiter::kTouching) return false;
  uint64_t ran_ns = 0;
  if (ProcessorNs(waiter->thread.load(), &ran_ns) && ran_ns > waiter->ran_ns.load() + kRunNs)
    return false;
  return waiter->touching_until_ns.load() > NowNs();
}

// The thread sleeps just now. Later is too late: the protection may be raised before its waiter is
// looked for, and it runs from then on.
void NoteProcessorTime(Waiter* waiter) {
  uint64_t ran_ns = 0;
  if (ProcessorNs(waiter->thread.load(), &ran_ns)) waiter->ran_ns.store(ran_ns);
}

// sleepers_lock
void StopAsking(Waiter* waiter) {
  if (waiter->asks) sleeping_askers.fetch_sub(1);
  waiter->asks = false;
}

// Lets the sleeper go on if the page's state permits its touch. sleepers_lock
bool LetGo(Waiter* waiter, Region::Raise how) {
  bool parked = false;
  if (!waiter->region.load()->RaiseIfPermitted(waiter->page.load(), waiter->access, how, &parked)) {
    return false;
  }
  StopAsking(waiter);
  const uint64_t now_ns = NowNs();
  waiter->touching_until_ns.store(now_ns + kTouchNs);
  if (waiter->word.exchange(Waiter::kTouching) == Waiter::kTouching) return true;
  touching.fetch_add(1);
  waiter->region.load()->stats().wait_ns.fetch_add(now_ns - waiter->since_ns,
                                                   std::memory_order_relaxed);
  return true;
}

// sleepers_lock
void Forget(Waiter* waiter) {
  StopAsking(waiter);
  if (waiter->word.load() == Waiter::kTouching) touching.fetch_sub(1);
  waiter->sleeps_in_kernel = false;
  ReleaseWaiter(waiter);
}

// The state of a sleeper's page has changed.
void WakeSleeper(Waiter* waiter) {
  FaultBackEnd* asks_again = nullptr;
  {
    FutexGuard guard(sleepers_lock);
    if (waiter->word.load() != Waiter::kInKernel) return;
    if (!LetGo(waiter, Region::Raise::kAlone)) {
      waiter->word.store(Waiter::kWoken);
      asks_again = waiter->region.load()->back_end();
    }
  }
  if (asks_again != nullptr) asks_again->Attend();
}

// What was asked for ahead may come in a way that wakes no engine, unless it is said that somebody
// sleeps.
void WatchForSleeper(Waiter* waiter, Region* region, uint32_t page) {
  if ((region->state(page).load() & kPageDirect) == 0) return;
  const SinkUse use;
  FaultSink* sink = fault_sink.load();
  if (sink == nullptr || !sink->MayAnswer(region, page)) return;
  {
    FutexGuard guard(sleepers_lock);
    if (waiter->word.load() != Waiter::kInKernel || waiter->asks) return;
    waiter->asks = true;
    sleeping_askers.fetch_add(1);
  }
  sink->WatchAnswers();
}

void AskForSleeper(Waiter* waiter) {
  Region* region = waiter->region.load();
  const uint32_t page = waiter->page.load();
  const Access access = waiter->access;
  do {
    FutexGuard guard(sleepers_lock);
    if (waiter->word.load() == Waiter::kTouching) return;
    waiter->word.store(Waiter::kInKernel);  // publish first, then look at the state
    if (LetGo(waiter, Region::Raise::kAlone)) return;
  } while (!Ask(region, page, access, kNoFaultSlot));
  WatchForSleeper(waiter, region, page);
}

// What is known of a thread that touches this page, if it slept before. One that touches another
// page has come on.
Waiter* SleeperAt(const Region* region, uint32_t page, uint32_t thread) {
  const uint32_t limit = waiter_limit.load();
  for (uint32_t i = 0; i < limit; i++) {
    Waiter* waiter = &waiters[i];
    if (!waiter->sleeps_in_kernel || waiter->thread.load() != thread) continue;
    if (waiter->region.load() == region && waiter->page.load() == page) return waiter;
    if (thread == 0) continue;  // of another process: nobody knows which
    FutexGuard guard(sleepers_lock);
    Forget(waiter);
  }
  return nullptr;
}

// The sleeper touches its page again: a signal has woken it, the page was taken away before it came
// to it, or it writes after it has read. True: nothing more is to be done.
bool TouchAgain(Waiter* waiter, Access access) {
  FutexGuard guard(sleepers_lock);
  const bool same = access == waiter->access;
  waiter->access = access;
  NoteProcessorTime(waiter);
  if (LetGo(waiter, Region::Raise::kAgain)) return true;
  if (waiter->word.load() == Waiter::kTouching) touching.fetch_sub(1);
  // The page is asked for already; whoever brings it finds the waiter.
  return waiter->word.exchange(Waiter::kInKernel) == Waiter::kInKernel && same;
}

// Threads that wait, and threads that were woken but have not touched the page again yet.
template <typename Visit>
void ForEachWaiter(const Region* region, uint32_t first, uint32_t count, Visit visit) {
  if (waiting.load() == 0) return;
  const uint32_t limit = waiter_limit.load();
  for (uint32_t i = 0; i < limit; i++) {
    if (waiters[i].word.load() < Waiter::kWaiting) continue;
    const Region* theirs = waiters[i].region.load();
    const bool same = theirs == region && waiters[i].page.load() - first < count;
    if (theirs == nullptr || (region != nullptr && !same)) continue;
    visit(&waiters[i]);
  }
}

}  // namespace

int CountLookingAskers() { return looking_askers.load(); }

int CountSleepingAskers() { return sleeping_askers.load(); }

Region* RegionOfSlot(uint32_t slot, uint32_t* page) {
  if (slot >= kMaxWaiters || waiters[slot].word.load() < Waiter::kWaiting) return nullptr;
  if (waiters[slot].word.load() > Waiter::kWoken) return nullptr;  // no peer was told of it
  *page = waiters[slot].page.load();
  return waiters[slot].region.load();
}

uint32_t ResumeCount() { return resume_count.load(); }
void WatchResumes(bool watch) { watching_resumes.store(watch); }

void SetFaultSink(FaultSink* sink) {
  fault_sink.store(sink);
  while (sink_users.load() > 0) sched_yield();  // they send one record, and wait for nothing
}

bool PopFault(FaultEvent* event) {
  if (SequenceOf(queue_head) != queue_head + 1) return false;
  *event = queue[queue_head & (kQueueLength - 1)].event;
  if (event->ahead) ahead_count.fetch_sub(1);
  SetSequence(queue_head, queue_head + kQueueLength);
  queue_head++;
  return true;
}

void PushUnsentAhead(FaultSink* sink, const Region* region, uint32_t page) {
  while (ahead_count.fetch_add(1) >= kMostAhead) {
    ahead_count.fetch_sub(1);
    if (fault_sink.load() != sink) return;  // the engine has ended, and nobody is asked any more
    sched_yield();
  }
  PushFault({region->options().id, page, Access::kRead, kStateReading, true});
  sink->WakeEngine();
}

Filled Fill(FaultSink* sink, Region* region, uint32_t page, Access access) {
  std::atomic<uint8_t>& state = region->state(page);
  uint8_t now = kStateNone;
  if (!state.compare_exchange_strong(now, kStateFilling)) return Filled::kNot;
  uint8_t settled = sink->ReadDirectly(region, page, access) ? kStateRead : kStateNone;
  now = kStateFilling;
  if (settled == kStateRead && access == Access::kWrite &&
      state.compare_exchange_strong(now, kStateClaiming) && sink->ClaimDirectly(region, page)) {
    settled = kStateWrite;
  }
  // Only this thread leaves these states; the engine goes from one to another.
  now = state.load();
  while (now != kStateFillingInVain && !state.compare_exchange_weak(now, settled)) {
  }
  PM_CHECK_STATE((now & kPagePending) != 0, now, page);
  const bool in_vain = now == kStateFillingInVain;
  if (in_vain) state.store(kStateNone);
  if (in_vain || now == kStateClaimingHeard) {
    // In vain, the engine must ask, and the thread must wait for that: if it tried by itself again,
    // the engine's question would spoil the next copy, and so on.
    PushFault({region->options().id, page, access, 0, false});
    sink->WakeEngine();
  }
  WakeWaiters(region, page, 1);  // other threads that touched it meanwhile
  if (in_vain) return Filled::kInVain;
  return settled == kStateNone ? Filled::kNot : Filled::kYes;
}

void WakeWaiters(const Region* region, uint32_t first, uint32_t count) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ForEachWaiter(region, first, count, [](Waiter* waiter) {
    uint32_t was = Waiter::kWaiting;
    if (waiter->word.compare_exchange_strong(was, Waiter::kWoken)) return;  // it looks by itself
    if (was == Waiter::kInKernel) return WakeSleeper(waiter);
    if (was != Waiter::kAsleep) return;
    if (waiter->word.compare_exchange_strong(was, Waiter::kWoken)) {
      Ring(&OwnBell()->slots[waiter - waiters]);
    }
  });
}

int CountWaiters(const Region* region, uint32_t first, uint32_t count) {
  int found = 0;
  ForEachWaiter(region, first, count, [&found](Waiter* waiter) {
    found += waiter->word.load() != Waiter::kTouching || IsTouching(waiter);
  });
  return found;
}

bool ServeFault(uintptr_t address, Access access) {
  Region* region = FindRegion(address);
  if (region == nullptr) return false;
  const uint32_t page = static_cast<uint32_t>((address - region->base()) / region->page_bytes());
  Stamp(Point::kEntered, region->options().id, page);
  RegionStats& stats = region->stats();
  bool parked = false;
  if (region->RaiseIfPermitted(page, access, Region::Raise::kWithNeighbours, &parked)) {
    if (parked) stats.local_faults.fetch_add(1, std::memory_order_relaxed);
    if (parked && access == Access::kRead) GoOnAhead(region, page);
    return true;
  }
  auto& counter = access == Access::kRead ? stats.read_faults : stats.write_faults;
  counter.fetch_add(1, std::memory_order_relaxed);
  WaitForGrant(region, page, access);
  Stamp(Point::kLeft, region->options().id, page);
  return true;
}

void ServeSleeper(FaultBackEnd* back_end, uintptr_t address, Access access, uint32_t thread) {
  Region* region = FindRegion(address);
  if (region == nullptr) return back_end->Retry(address);  // it was unmapped under the thread
  const uint32_t page = static_cast<uint32_t>((address - region->base()) / region->page_bytes());
  RegionStats& stats = region->stats();
  ReadFor(thread);
  Waiter* waiter = SleeperAt(region, page, thread);
  bool parked = false;
  if (waiter != nullptr) {
    if (TouchAgain(waiter, access)) return;
  } else if (region->RaiseIfPermitted(page, access, Region::Raise::kAgain, &parked)) {
    if (parked) stats.local_faults.fetch_add(1, std::memory_order_relaxed);
    if (parked && access == Access::kRead) GoOnAhead(region, page);
    return;
  }
  auto& counter = access == Access::kRead ? stats.read_faults : stats.write_faults;
  if (waiter == nullptr) {
    waiter = TryClaimWaiter(region, page);
    if (waiter == nullptr) {  // thousands of threads are in a fault: it tries again
      ReleaseTouched();
      back_end->Retry(address);
      return;
    }
    waiter->access = access;
    waiter->thread.store(thread);
    NoteProcessorTime(waiter);
    waiter->sleeps_in_kernel = true;
  }
  waiter->since_ns = NowNs();
  counter.fetch_add(1, std::memory_order_relaxed);
  AskForSleeper(waiter);
}

void ServeWokenSleepers() {
  const uint32_t limit = waiter_limit.load();
  for (uint32_t i = 0; i < limit; i++) {
    Waiter* waiter = &waiters[i];
    if (waiter->sleeps_in_kernel && waiter->word.load() == Waiter::kWoken) {
      ReadFor(waiter->thread.load());
      AskForSleeper(waiter);
    }
  }
}

int ReleaseTouched() {
  if (touching.load() == 0) return -1;
  const uint32_t limit = waiter_limit.load();
  for (uint32_t i = 0; i < limit; i++) {
    Waiter* waiter = &waiters[i];
    if (!waiter->sleeps_in_kernel || waiter->word.load() != Waiter::kTouching) continue;
    if (IsTouching(waiter)) continue;
    FutexGuard guard(sleepers_lock);
    Forget(waiter);
  }
  return watching_resumes.load() && touching.load() > 0 ? kLookAgainUs : -1;
}

bool AnyTouching() { return touching.load() > 0; }

}  // namespace pagemesh
