// What the MMU is told of a region's pages, and who hears of the touches that it refuses. There are
// two: fault_sigsegv.cc, which always works, and fault_userfaultfd.cc. Nothing else knows which one
// a region has.
#ifndef PAGEMESH_MEMORY_BACK_END_H_
#define PAGEMESH_MEMORY_BACK_END_H_

#include <cstddef>
#include <cstdint>

namespace pagemesh {

// Pages of a region in a row.
struct GuardedPages {
  uint8_t* application;  // the first one, as the application sees it
  const uint8_t* frame;  // the first one, in the service mapping
  size_t page_bytes;
  uint32_t count;
  uint8_t* enforced;  // what the MMU permits of each: PROT_NONE, PROT_READ, PROT_READ|PROT_WRITE

  size_t bytes() const { return count * page_bytes; }
};

// Lives as long as the process. Calls for the pages of one region never overlap: Region holds the
// protection lock.
class FaultBackEnd {
 public:
  FaultBackEnd(const FaultBackEnd&) = delete;
  FaultBackEnd& operator=(const FaultBackEnd&) = delete;

  // Whether each change of protection inside a region costs the process a mapping.
  bool splits_mappings() const { return splits_mappings_; }

  // A region's application mapping was just made, PROT_NONE: from now on its touches are heard of.
  // False with errno set.
  virtual bool Guard(const GuardedPages& all) = 0;
  // Permits just so much, and says so in `enforced`. What is raised may stay lower until it is
  // touched. Threads that the kernel keeps in a touch that is permitted now go on. Async-signal-
  // safe.
  virtual void Permit(const GuardedPages& pages, int protection) = 0;
  // Every touch is permitted, and none is heard of any more.
  virtual void Unguard(const GuardedPages& all) = 0;

  // For threads that sleep in the kernel (ServeSleeper in fault.h): have ServeWokenSleepers called
  // soon, and let the threads that sleep on the page at this address touch it again. Any thread.
  virtual void Attend() = 0;
  virtual void Retry(uintptr_t address) = 0;

 protected:
  explicit FaultBackEnd(bool splits_mappings) : splits_mappings_(splits_mappings) {}
  ~FaultBackEnd() = default;

 private:
  const bool splits_mappings_;
};

// Make a back end ready. nullptr with errno set if this process cannot have it; of userfaultfd
// EPERM, if it is not permitted, ENOSYS or ENOTSUP, if the kernel does not have what is needed. Any
// thread.
FaultBackEnd* UseSigsegv();
FaultBackEnd* UseUserfaultfd();

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_BACK_END_H_
