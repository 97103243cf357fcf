// A region of one member: a memfd mapped twice, the state of its pages, and what the MMU enforces.
#ifndef PAGEMESH_MEMORY_REGION_H_
#define PAGEMESH_MEMORY_REGION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"
#include "memory/back_end.h"
#include "memory/page_state.h"

namespace pagemesh {

enum class Placement : uint32_t { kBlock = 0, kCyclic = 1, kFixed = 2 };

struct RegionOptions {
  uint32_t id = 0;          // the mesh-wide number of the region
  uint32_t page_bytes = 0;  // the coherence unit: a power of two, at least the MMU's page
  uint32_t page_count = 0;
  uint64_t base = 0;  // where the application mapping stands, the same in every member
  Placement placement = Placement::kBlock;
  uint32_t fixed_home = 0;
  uint32_t rank = 0;      // this member
  uint32_t size = 0;      // members of the mesh
  bool prefetch = false;  // ask for pages ahead of threads that read in a regular way
  FaultBackEnd* back_end = nullptr;
};

// Counters of one region at this member, for stats(). Written from several threads.
struct RegionStats {
  std::atomic<uint64_t> read_faults{0};   // touches that had to ask the directory
  std::atomic<uint64_t> write_faults{0};  // the same for writes, upgrades included
  std::atomic<uint64_t> local_faults{0};  // touches of a page held already but lowered (parked)
  std::atomic<uint64_t> pages_received{0};
  std::atomic<uint64_t> pages_sent{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<uint64_t> invalidations{0};     // copies lost to another member's write
  std::atomic<uint64_t> pages_parked{0};      // lowered to stay below vm.max_map_count
  std::atomic<uint64_t> wait_ns{0};           // threads stopped in a fault
  std::atomic<uint64_t> direct_reads{0};      // pages copied from their homes without asking
  std::atomic<uint64_t> direct_writes{0};     // and of these, owned without asking
  std::atomic<uint64_t> pages_prefetched{0};  // asked for ahead of the threads that read
  // Of these, untouched when their stream was given up.
  std::atomic<uint64_t> prefetches_useless{0};
};
constexpr int kRegionStatCount = 14;

struct PrefetchTable;

// Owner: counted references, one of the session and one of every SharedArrayBuffer over it, because
// a view may outlive the mesh. Thread-safety is given per member function.
class Region {
 public:
  // Maps everything. Returns nullptr with errno set: EEXIST if something else stands at `base`,
  // ENOMEM, EMFILE… . The result holds one reference.
  static Region* Map(const RegionOptions& options);
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref();

  const RegionOptions& options() const { return options_; }
  size_t byte_length() const { return static_cast<size_t>(options_.page_count) * page_bytes(); }
  size_t page_bytes() const { return options_.page_bytes; }
  uint32_t page_count() const { return options_.page_count; }
  uintptr_t base() const { return static_cast<uintptr_t>(options_.base); }

  // The service mapping of a page: always readable and writable. Any thread.
  uint8_t* frame(uint32_t page) const { return service_ + page * page_bytes(); }
  std::atomic<uint8_t>& state(uint32_t page) const { return states_[page]; }
  uint8_t* states() const { return reinterpret_cast<uint8_t*>(states_); }

  // The directory of the pages that this member homes: 8 bytes each, a control word and a sharers
  // word, laid out by lib/protocol/directory.ts.
  uint8_t* directory() const { return reinterpret_cast<uint8_t*>(directory_); }
  size_t directory_bytes() const { return static_cast<size_t>(home_page_count_) * 8; }
  uint32_t control_word(uint32_t home_index) const {
    return directory_[2 * static_cast<size_t>(home_index)].load(std::memory_order_acquire);
  }

  // Engine thread; of entries that others do not change, because they are closed.
  void ClearControl(uint32_t home_index, uint32_t bits) {
    directory_[2 * static_cast<size_t>(home_index)].fetch_and(~bits);
  }

  // An entry whole: the control word in the low half, the sharers in the high one. Members on this
  // host change entries too.
  std::atomic<uint64_t>& entry(uint32_t home_index) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(directory_)[home_index];
  }
  // Engine thread: a page that was this member's own is clean, and these have copies.
  void SetEntry(uint32_t home_index, uint32_t control, uint32_t sharers) {
    directory_[2 * static_cast<size_t>(home_index) + 1].store(sharers);
    directory_[2 * static_cast<size_t>(home_index)].store(control);
  }

  // The memory behind it, for members on the same host: the frames, and the directory behind them.
  int memory_fd() const { return memfd_.get(); }
  size_t memory_bytes() const { return byte_length() + directory_room(); }

  // home(P) and P's index in the home's directory: pure functions of the page and the placement,
  // the same as in lib/protocol/placement.ts (a test compares them). Async-signal-safe.
  uint32_t HomeOf(uint32_t page) const;
  uint32_t HomeIndexOf(uint32_t page) const;

  FaultBackEnd* back_end() const { return options_.back_end; }

  // Sets what the MMU enforces for `count` pages from `first`: PROT_NONE, PROT_READ or
  // PROT_READ|PROT_WRITE. Any thread. Never fails for want of mappings: it parks pages first.
  void Protect(uint32_t first, uint32_t count, int protection);

  // Raises the page as far as its state permits, alone or with neighbours in the same position.
  // Returns false if the state does not permit `access`. Async-signal-safe; `parked` tells whether
  // anything had to be done.
  // With kAgain the touch was refused, so what is enforced is not what was said: with neighbours,
  // and what seems to be raised is raised again.
  enum class Raise { kAlone, kWithNeighbours, kAgain };
  bool RaiseIfPermitted(uint32_t page, Access access, Raise how, bool* parked);

  // Whether the MMU refuses every touch of the page just now. Any thread; a hint.
  bool IsLowered(uint32_t page) const;

  // Of automatic prefetch, by memory/prefetch.cc; nullptr: none here.
  PrefetchTable* prefetch_table() const { return prefetch_table_; }

  // Turns the region into private memory of this process: pages held keep their last contents, the
  // others read as zero. No page is ever asked for again.
  void Retire();

  RegionStats& stats() { return stats_; }

 private:
  friend class ProtectionBudget;
  Region() = default;
  ~Region();
  bool MapAll();
  uint32_t BlockPages() const;
  size_t directory_room() const;

  // Callers hold the protection lock.
  GuardedPages Guarded(uint32_t first, uint32_t count) const;
  void SetProtectionLocked(uint32_t first, uint32_t count, int protection);
  uint32_t BoundariesIn(uint32_t first, uint32_t count) const;

  RegionOptions options_;
  UniqueFd memfd_;
  uint8_t* application_ = nullptr;              // as large as the region, PROT_NONE at first
  uint8_t* service_ = nullptr;                  // the same, always read-write, and the directory
  std::atomic<uint8_t>* states_ = nullptr;      // one byte a page
  std::atomic<uint32_t>* directory_ = nullptr;  // two words a page homed here
  uint8_t* protections_ = nullptr;              // what the MMU enforces now; protection lock
  PrefetchTable* prefetch_table_ = nullptr;     // used as threads read
  uint32_t home_page_count_ = 0;
  bool guarded_ = false;  // protection lock; the back end hears of touches
  RegionStats stats_;
  std::atomic<uint32_t> references_{1};
};

// Finds the region that an address belongs to; nullptr if none. Async-signal-safe.
Region* FindRegion(uintptr_t address);

// The kernel allows a process vm.max_map_count mappings, and every change of protection inside a
// region splits one. This counts the splits of all regions, and near the limit it parks pages:
// lowers large ranges to PROT_NONE in one call, which merges mappings. A parked page keeps its
// state and contents; the next touch raises it again without a message.
class ProtectionBudget {
 public:
  // Reads the limit and what the process uses already, and leaves a reserve for everything else.
  // `limit` > 0 replaces what the kernel says (for tests). Any thread, before the first region.
  static void Configure(uint32_t limit);
  static uint32_t limit();
  static uint32_t boundaries();

 private:
  friend class Region;
  static void MakeRoomLocked();
  static bool ParkChunkLocked(Region* region, uint32_t chunk);
};

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_REGION_H_
