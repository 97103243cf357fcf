// The byte that says what this member may do with one page. The engine's TypeScript
// (lib/protocol/page-table.ts) gives the states their names and decides every change but these: a
// faulting thread may itself take a page from a settled state to a requested one, from there to
// what it asked for when the answer is the last word (kPageDirect), by way of kStateFilling to a
// copy that it fetches without asking, and from there by way of kStateClaiming to owning the page.
// Both sides change a byte by compare-and-swap only. A test holds these numbers equal to the
// TypeScript ones.
#ifndef PAGEMESH_MEMORY_PAGE_STATE_H_
#define PAGEMESH_MEMORY_PAGE_STATE_H_

#include <cstdint>

namespace pagemesh {

// What the bits of a state mean to native code, which knows nothing else of the table.
constexpr uint8_t kPageReadable = 0x01;
constexpr uint8_t kPageWritable = 0x02;
constexpr uint8_t kPagePending = 0x04;     // a request is on its way: ask no second time
constexpr uint8_t kPageWantsWrite = 0x08;  // … and it asks for exclusive access
constexpr uint8_t kPageCollecting = 0x10;  // granted, but not every other copy is confirmed gone
constexpr uint8_t kPageHeld = 0x20;        // pinned: protection must not be lowered below the state
// A faulting thread sent the request itself and looks for the answer itself: `data` from the home
// and `grant` may be carried out natively. Any step of the engine's on the page takes this right
// away.
constexpr uint8_t kPageDirect = 0x40;
constexpr uint8_t kPageAcceptsData = 0x80;  // a peer's bytes may be written into the frame

constexpr uint8_t kStateNone = 0;
constexpr uint8_t kStateRead = kPageReadable;
constexpr uint8_t kStateWrite = kPageReadable | kPageWritable;
constexpr uint8_t kStateReading = kPagePending | kPageAcceptsData;
constexpr uint8_t kStateWriting = kPagePending | kPageWantsWrite | kPageAcceptsData;
constexpr uint8_t kStateFilling = kPagePending | kPageCollecting;
constexpr uint8_t kStateFillingInVain = kPagePending | kPageWantsWrite;
constexpr uint8_t kStateClaiming = kPagePending | kPageWritable;
constexpr uint8_t kStateClaimingHeard = kStateClaiming | kPageWantsWrite;
constexpr uint8_t kStateUpgrading = kPageReadable | kPagePending | kPageWantsWrite;

enum class Access : uint8_t { kRead = 1, kWrite = 2 };

inline bool Permits(uint8_t state, Access access) {
  const uint8_t bits = access == Access::kWrite ? kStateWrite : kStateRead;
  return (state & bits) == bits;
}

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_PAGE_STATE_H_
