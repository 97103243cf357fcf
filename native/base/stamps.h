// Where the time of a fault goes: the moments of its life, each with the clock. Only the addon that
// `npm run bench -- anatomy` builds for itself, with PAGEMESH_STAMPS, has any of it: even a branch
// at each of these places would cost a fault 3 % of its instructions.
#ifndef PAGEMESH_BASE_STAMPS_H_
#define PAGEMESH_BASE_STAMPS_H_

#include <atomic>
#include <cstdint>
#include <vector>

namespace pagemesh {

// What has just happened. bench/lib/anatomy.mjs puts the moments of one fault in order.
enum class Point : uint32_t {
  kEntered = 1,      // the thread that faults is in its handler, and knows the page
  kFound = 2,        // it has found out that it may copy the page from its home
  kCopied = 3,       // and has done so
  kAsking = 4,       // it is about to send its request
  kPosted = 5,       // a record is where the other member can see it; waking that one comes next
  kSent = 6,         // what was sent is on its way, and who sleeps was woken
  kEngineAwake = 7,  // the engine has come back from its sleep; of no page
  kSeen = 8,         // the engine has a record about the page in hand
  kHanded = 9,       // it hands it to TypeScript
  kStepped = 10,     // the protocol has made its step: what it wants done is known
  kProtected = 11,   // the engine has changed the page's protection
  kCame = 12,        // the answer to a request was carried out in native code
  kWoken = 13,       // the thread that faults has stopped waiting
  kRaised = 14,      // its page is installed: the touch will succeed
  kLeft = 15,        // it is about to leave its handler
};

constexpr uint32_t kNoPage = UINT32_MAX;
constexpr uint32_t kMostStamps = 1 << 20;

struct KeptStamp {
  uint64_t ns;  // CLOCK_MONOTONIC, one clock for all processes of a host
  Point point;
  uint32_t region, page;
};

#ifdef PAGEMESH_STAMPS
// Until somebody asks, none are kept.
extern std::atomic<bool> stamps_are_kept;
void KeepStamp(Point point, uint32_t region, uint32_t page);

inline bool StampsAreKept() { return stamps_are_kept.load(std::memory_order_relaxed); }

// Any thread; async-signal-safe.
inline void Stamp(Point point, uint32_t region, uint32_t page) {
  if (StampsAreKept()) KeepStamp(point, region, page);
}

// What was kept since the last call, in no order. From now on keeps as many as there is `room` for,
// kMostStamps at most; with 0 none. Any thread, but not inside a signal handler.
std::vector<KeptStamp> TakeStamps(uint32_t room);
#else
constexpr bool StampsAreKept() { return false; }
constexpr void Stamp(Point /*point*/, uint32_t /*region*/, uint32_t /*page*/) {}
#endif

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_STAMPS_H_
