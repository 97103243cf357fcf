// What happens when a thread touches a page that the MMU refuses: the thread asks for the page,
// waits, and goes on. The back end (back_end.h) hears of the touch and calls ServeFault.
#ifndef PAGEMESH_MEMORY_FAULT_H_
#define PAGEMESH_MEMORY_FAULT_H_

#include <cstdint>

#include "memory/region.h"

namespace pagemesh {

// A touch that the engine must look at: the directory entry is this member's own, or the request
// could not be sent from the faulting thread.
struct FaultEvent {
  uint32_t region_id;
  uint32_t page;
  Access access;
  uint8_t unsent_state;  // not 0: the page was taken to this state but its request was not sent
  bool ahead = false;    // by PushUnsentAhead
};

enum class SendResult {
  kSent,
  kUnsent,  // the engine must send it
};

// One that waits in a fault is known to peers by its slot: an answer names it in place of its page.
constexpr uint32_t kMaxFaultSlots = 2048;
constexpr uint32_t kNoFaultSlot = kMaxFaultSlots;

// What one request takes where it is written; transport/wire.h has the form.
constexpr uint32_t kRequestBytes = 64;

// How a faulting thread reaches the rest of the member. All calls come from inside a signal
// handler, from any thread, and so must be async-signal-safe.
class FaultSink {
 public:
  virtual ~FaultSink() = default;
  // Takes a copy of a page that is clean at its home, another member on this host, without asking,
  // and makes this member known as a sharer; for writing only if there is no other. False: the home
  // must be asked.
  virtual bool ReadDirectly(Region* region, uint32_t page, Access access) = 0;
  // Makes this member the owner of such a page. False: it is not the only sharer any more.
  virtual bool ClaimDirectly(Region* region, uint32_t page) = 0;
  // Whether a thread may look for the home's answers itself.
  virtual bool MayAnswer(Region* region, uint32_t page) = 0;
  // Sends the request that `pending_state` stands for to the page's home, another member. With
  // `slot`, the answer may be one that wakes nobody.
  virtual SendResult SendRequest(Region* region, uint32_t page, uint8_t pending_state,
                                 uint32_t slot) = 0;
  // Sends requests to read these pages, all of one home, in one go. Returns how many of them, from
  // the first on, were sent. `scratch` has room for `count` times kRequestBytes.
  virtual uint32_t SendReads(Region* region, const uint32_t* pages, uint32_t count,
                             void* scratch) = 0;
  // Takes what answers there are; without a system call if there are none.
  virtual void PollAnswers() = 0;
  // The thread begins to look for the page's answer, and ends: what comes between need not wake the
  // engine. False: nothing is to be ended.
  virtual bool BeginLooking(Region* /*region*/, uint32_t /*page*/) { return false; }
  virtual void EndLooking(Region* /*region*/, uint32_t /*page*/) {}
  // The thread is about to sleep: answers must reach the engine, which wakes it.
  virtual void WatchAnswers() = 0;
  // Something is in the fault queue.
  virtual void WakeEngine() = 0;
};

// What came of an attempt to take a copy of a page, or the page, without asking for it.
enum class Filled {
  kNot,     // the page is not clean at a home on this host, or not in state none: ask for it
  kYes,     // it is in state write, or else read; its protection has not been raised
  kInVain,  // the copy was taken away before it was of use; the engine asks for the page
};
// Tries it. Threads in a fault, so async-signal-safe; the page's home is another member.
Filled Fill(FaultSink* sink, Region* region, uint32_t page, Access access);

// From now on faults of regions go to `sink`; nullptr when no engine runs, and then threads wait.
// Returns when no thread uses the sink before any more.
void SetFaultSink(FaultSink* sink);

// Takes the next event out of the queue. Engine thread only.
bool PopFault(FaultEvent* event);

// A page was taken to state reading for a thread that only asks ahead, and its request could not be
// sent, but somebody else relies on it by now: the engine must send it. `sink` is in use.
void PushUnsentAhead(FaultSink* sink, const Region* region, uint32_t page);

// Lets the threads that wait for one of these pages look at its state again. Any thread.
void WakeWaiters(const Region* region, uint32_t first, uint32_t count);

// How many threads look for their answers just now, and so find the engine's events too. Any
// thread.
int CountLookingAskers();
// How many threads sleep although they sent their requests for answers that wake nobody: while
// there are any, every answer must wake the engine. Any thread.
int CountSleepingAskers();

// The region and page that the thread in this slot waits for; nullptr if there is none. Any thread
// that keeps the session's regions mapped.
Region* RegionOfSlot(uint32_t slot, uint32_t* page);

// How many threads have come back from waiting in a fault so far: it changes when one does.
uint32_t ResumeCount();
// While set, a thread that comes back wakes the engine. Engine thread.
void WatchResumes(bool watch);

// How many threads are in a fault for one of these pages, from before they ask until they touch
// the page again; with nullptr, for any page.
int CountWaiters(const Region* region, uint32_t first, uint32_t count);

// The same for a touch of another thread, which sleeps in the kernel, and which the kernel calls by
// this number (0: by none): asks for the page, and does not wait. Whoever changes the page's state
// raises its protection, which lets the thread go on. All three are for one thread of the back end.
void ServeSleeper(FaultBackEnd* back_end, uintptr_t address, Access access, uint32_t thread);
// Asks again for what sleepers still wait for, although the states of their pages have changed.
void ServeWokenSleepers();
// Forgets sleepers that have touched their pages. Returns in how many microseconds this must be
// called again, -1 if nobody waits for that.
int ReleaseTouched();
// Whether some sleeper may be about to touch its page. Any thread.
bool AnyTouching();

// Serves one fault; returns when the touch may be tried again, or false if the address is in no
// region. Async-signal-safe.
bool ServeFault(uintptr_t address, Access access);

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_FAULT_H_
