#include "memory/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/futex_lock.h"
#include "base/sealed_memory.h"
#include "memory/prefetch.h"

namespace pagemesh {
namespace {

constexpr int kMaxRegions = 1024;
constexpr uint32_t kParkChunkPages = 2048;  // one mprotect call lowers at most this many pages
constexpr uint32_t kRaiseAroundPages = 64;  // neighbours raised with a parked page
constexpr uint32_t kDefaultMaxMapCount = 65530;
constexpr size_t kMmuPageBytes = 4096;

// One lock for all protections: mprotect calls serialise in the kernel anyway, and the budget is
// the process's. Held for microseconds, never across a wait; taken in signal handlers.
FutexLock protection_lock;
uint32_t boundary_limit = kDefaultMaxMapCount / 2;   // protection lock
uint32_t boundary_count = 0;                         // protection lock
uint32_t park_region_hand = 0, park_chunk_hand = 0;  // protection lock: where parking goes on

// What the fault handler searches. Entries are static so that a search never follows a pointer to
// a region that another thread is freeing: it dereferences only the one that holds the address, and
// whoever touches that one keeps it alive.
struct Entry {
  std::atomic<uintptr_t> base{0};
  std::atomic<size_t> length{0};
  std::atomic<Region*> region{nullptr};
};
Entry entries[kMaxRegions];
std::atomic<int> entry_limit{0};  // entries at and beyond this were never used
FutexLock entries_lock;

bool Publish(Region* region) {
  FutexGuard guard(entries_lock);
  for (int i = 0; i < kMaxRegions; i++) {
    if (entries[i].region.load() != nullptr) continue;
    entries[i].length.store(region->byte_length());
    entries[i].region.store(region);
    entries[i].base.store(region->base());
    if (i >= entry_limit.load()) entry_limit.store(i + 1);
    return true;
  }
  errno = ENOSPC;
  return false;
}

void Withdraw(const Region* region) {
  FutexGuard guard(entries_lock);
  for (int i = 0; i < entry_limit.load(); i++) {
    if (entries[i].region.load() != region) continue;
    entries[i].base.store(0);
    entries[i].length.store(0);
    entries[i].region.store(nullptr);
    return;
  }
}

uint32_t CountMappings() {
  FILE* maps = fopen("/proc/self/maps", "re");
  if (maps == nullptr) return 1024;
  uint32_t lines = 0;
  for (int c = fgetc(maps); c != EOF; c = fgetc(maps)) lines += c == '\n';
  fclose(maps);
  return lines;
}

uint32_t MaxMapCount() {
  FILE* file = fopen("/proc/sys/vm/max_map_count", "re");
  if (file == nullptr) return kDefaultMaxMapCount;
  char text[32];
  const bool read = fgets(text, sizeof(text), file) != nullptr;
  fclose(file);
  const unsigned long value = read ? strtoul(text, nullptr, 10) : 0;
  if (value == 0) return kDefaultMaxMapCount;
  return value > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(value);
}

void* MapShared(void* where, size_t length, int protection, int flags, int fd) {
  void* at = mmap(where, length, protection, flags, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

}  // namespace

Region* FindRegion(uintptr_t address) {
  const int limit = entry_limit.load(std::memory_order_acquire);
  for (int i = 0; i < limit; i++) {
    const uintptr_t base = entries[i].base.load(std::memory_order_acquire);
    if (base == 0 || address < base) continue;
    if (address - base < entries[i].length.load(std::memory_order_acquire)) {
      return entries[i].region.load(std::memory_order_acquire);
    }
  }
  return nullptr;
}

Region* Region::Map(const RegionOptions& options) {
  Region* region = new Region();
  region->options_ = options;
  if (region->MapAll() && Publish(region)) return region;
  const int error = errno;
  delete region;
  errno = error;
  return nullptr;
}

bool Region::MapAll() {
  const size_t length = byte_length();
  for (uint32_t page = 0; page < page_count(); page++) {
    home_page_count_ += HomeOf(page) == options_.rank;
  }
  memfd_ = MakeSealedMemory("pagemesh", memory_bytes());
  if (!memfd_.valid()) return false;
  void* base = reinterpret_cast<void*>(this->base());
  void* at = MapShared(base, length, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                       memfd_.get());
  if (at != nullptr && at != base) {  // a kernel before 4.17 takes the address as a hint
    munmap(at, length);
    errno = EEXIST;
    return false;
  }
  application_ = static_cast<uint8_t*>(at);
  if (application_ == nullptr) return false;
  service_ = static_cast<uint8_t*>(MapShared(nullptr, memory_bytes(), PROT_READ | PROT_WRITE,
                                             MAP_SHARED | MAP_NORESERVE, memfd_.get()));
  if (service_ == nullptr) return false;
  directory_ = reinterpret_cast<std::atomic<uint32_t>*>(service_ + length);
  const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const int read_write = PROT_READ | PROT_WRITE;
  states_ = static_cast<std::atomic<uint8_t>*>(
      MapShared(nullptr, page_count(), read_write, anonymous, -1));
  protections_ = static_cast<uint8_t*>(MapShared(nullptr, page_count(), read_write, anonymous, -1));
  if (states_ == nullptr || protections_ == nullptr) return false;
  if (!back_end()->Guard(Guarded(0, page_count()))) return false;
  guarded_ = true;
  if (!options_.prefetch || options_.size == 1) return true;
  prefetch_table_ = static_cast<PrefetchTable*>(
      MapShared(nullptr, sizeof(PrefetchTable), read_write, anonymous, -1));
  return prefetch_table_ != nullptr;
}

void Region::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

Region::~Region() {
  Withdraw(this);
  if (application_ != nullptr) {
    FutexGuard guard(protection_lock);
    if (protections_ != nullptr) boundary_count -= BoundariesIn(0, page_count());
    munmap(application_, byte_length());
  }
  if (service_ != nullptr) munmap(service_, memory_bytes());
  if (states_ != nullptr) munmap(states_, page_count());
  if (protections_ != nullptr) munmap(protections_, page_count());
  if (prefetch_table_ != nullptr) munmap(prefetch_table_, sizeof(PrefetchTable));
}

// Whole pages, and some room even if nothing is homed here: nobody maps nothing.
size_t Region::directory_room() const {
  return (directory_bytes() / kMmuPageBytes + 1) * kMmuPageBytes;
}

uint32_t Region::BlockPages() const { return (page_count() + options_.size - 1) / options_.size; }

uint32_t Region::HomeOf(uint32_t page) const {
  switch (options_.placement) {
    case Placement::kBlock:
      return page / BlockPages();
    case Placement::kCyclic:
      return page % options_.size;
    case Placement::kFixed:
      break;
  }
  return options_.fixed_home;
}

uint32_t Region::HomeIndexOf(uint32_t page) const {
  switch (options_.placement) {
    case Placement::kBlock:
      return page % BlockPages();
    case Placement::kCyclic:
      return page / options_.size;
    case Placement::kFixed:
      break;
  }
  return page;
}

// How many pages in [first, first + count] differ from the page before them, region edges aside.
uint32_t Region::BoundariesIn(uint32_t first, uint32_t count) const {
  if (!back_end()->splits_mappings()) return 0;
  uint32_t boundaries = 0;
  const uint32_t end = first + count;
  for (uint32_t i = first == 0 ? 1 : first; i <= end && i < page_count(); i++) {
    boundaries += protections_[i] != protections_[i - 1];
  }
  return boundaries;
}

GuardedPages Region::Guarded(uint32_t first, uint32_t count) const {
  return {application_ + first * page_bytes(), frame(first), page_bytes(), count,
          protections_ + first};
}

void Region::SetProtectionLocked(uint32_t first, uint32_t count, int protection) {
  boundary_count -= BoundariesIn(first, count);
  back_end()->Permit(Guarded(first, count), protection);
  boundary_count += BoundariesIn(first, count);
}

void Region::Protect(uint32_t first, uint32_t count, int protection) {
  PM_CHECK_STATE(count > 0 && first < page_count() && count <= page_count() - first, first, count);
  FutexGuard guard(protection_lock);
  if (boundary_count + 2 > boundary_limit) ProtectionBudget::MakeRoomLocked();
  SetProtectionLocked(first, count, protection);
}

static int ProtectionOf(uint8_t state) {
  if (Permits(state, Access::kWrite)) return PROT_READ | PROT_WRITE;
  return Permits(state, Access::kRead) ? PROT_READ : PROT_NONE;
}

bool Region::RaiseIfPermitted(uint32_t page, Access access, Raise how, bool* parked) {
  FutexGuard guard(protection_lock);
  const uint8_t state = states_[page].load(std::memory_order_acquire);
  if (!Permits(state, access)) return false;
  const int wanted = ProtectionOf(state);
  *parked = (protections_[page] & wanted) != wanted;
  if (!*parked) {
    if (how == Raise::kAgain && guarded_) SetProtectionLocked(page, 1, wanted);
    return true;
  }
  if (boundary_count + 2 > boundary_limit) ProtectionBudget::MakeRoomLocked();
  if (how == Raise::kAlone) {
    SetProtectionLocked(page, 1, wanted);
    return true;
  }
  // The states may be lowered by the engine meanwhile; it then lowers the protection too, and waits
  // for this lock to do so.
  const auto alike = [&](uint32_t other) {
    return ProtectionOf(states_[other].load(std::memory_order_acquire)) == wanted;
  };
  const uint32_t window_first = page - page % kRaiseAroundPages;
  const uint32_t window_end = window_first + kRaiseAroundPages < page_count()
                                  ? window_first + kRaiseAroundPages
                                  : page_count();
  uint32_t first = page, end = page + 1;
  while (first > window_first && alike(first - 1)) first--;
  while (end < window_end && alike(end)) end++;
  SetProtectionLocked(first, end - first, wanted);
  return true;
}

bool Region::IsLowered(uint32_t page) const {
  return __atomic_load_n(&protections_[page], __ATOMIC_RELAXED) == PROT_NONE;
}

void Region::Retire() {
  const uint32_t pages = page_count();
  for (uint32_t page = 0; page < pages; page++) {
    if ((states_[page].load() & kPageReadable) != 0) continue;
    uint32_t end = page + 1;
    while (end < pages && (states_[end].load() & kPageReadable) == 0) end++;
    // Contents of a page not held are another member's business: give the memory back.
    fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(page * page_bytes()),
              static_cast<off_t>((end - page) * page_bytes()));
    page = end;
  }
  for (uint32_t page = 0; page < pages; page++) states_[page].store(kStateWrite);
  FutexGuard guard(protection_lock);
  boundary_count -= BoundariesIn(0, pages);
  back_end()->Unguard(Guarded(0, pages));
  guarded_ = false;
}

void ProtectionBudget::Configure(uint32_t limit) {
  const uint32_t maximum = limit > 0 ? limit : MaxMapCount();
  const uint32_t used = limit > 0 ? 0 : CountMappings();
  // V8 and malloc go on mapping memory: an eighth of the whole is theirs, 1,024 at least.
  const uint32_t reserve = used + (maximum / 8 > 1024 ? maximum / 8 : 1024);
  FutexGuard guard(protection_lock);
  boundary_limit = maximum > 2 * reserve ? maximum - reserve : maximum / 2;
}

uint32_t ProtectionBudget::limit() {
  FutexGuard guard(protection_lock);
  return boundary_limit;
}

uint32_t ProtectionBudget::boundaries() {
  FutexGuard guard(protection_lock);
  return boundary_count;
}

void ProtectionBudget::MakeRoomLocked() {
  // A quarter less than the limit: each call then lowers many pages and is needed rarely.
  const uint32_t target = boundary_limit / 4 * 3;
  const uint32_t limit = static_cast<uint32_t>(entry_limit.load());
  for (uint32_t seen = 0; seen <= limit && boundary_count > target;) {
    Region* region = park_region_hand < limit ? entries[park_region_hand].region.load() : nullptr;
    if (region == nullptr || !ParkChunkLocked(region, park_chunk_hand)) {
      park_region_hand = park_region_hand + 1 < limit ? park_region_hand + 1 : 0;
      park_chunk_hand = 0;
      seen++;
    } else {
      park_chunk_hand++;
    }
  }
}

// Returns false when the region has no such chunk.
bool ProtectionBudget::ParkChunkLocked(Region* region, uint32_t chunk) {
  const uint64_t chunk_first = static_cast<uint64_t>(chunk) * kParkChunkPages;
  if (chunk_first >= region->page_count()) return false;
  const uint32_t begin = static_cast<uint32_t>(chunk_first);
  const uint32_t end = region->page_count() - begin < kParkChunkPages ? region->page_count()
                                                                      : begin + kParkChunkPages;
  if (region->BoundariesIn(begin, end - begin) <= 2) return true;
  uint32_t first = begin;
  while (first < end) {
    const auto held = [&](uint32_t page) {
      return (region->states_[page].load(std::memory_order_acquire) & kPageHeld) != 0;
    };
    if (held(first)) {
      first++;
      continue;
    }
    uint32_t parked = 0, last = first;
    for (; last < end && !held(last); last++) parked += region->protections_[last] != PROT_NONE;
    if (parked > 0) region->SetProtectionLocked(first, last - first, PROT_NONE);
    region->stats_.pages_parked.fetch_add(parked, std::memory_order_relaxed);
    first = last;
  }
  return true;
}

}  // namespace pagemesh
