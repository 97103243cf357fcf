// Memory that members on one host share: a memfd that nobody can make smaller, so that whoever maps
// it never meets SIGBUS.
#ifndef PAGEMESH_BASE_SEALED_MEMORY_H_
#define PAGEMESH_BASE_SEALED_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace pagemesh {

// Zeroed memory of this size for good, with a name for /proc/PID/maps. Not valid, with errno set,
// if there is none.
UniqueFd MakeSealedMemory(const char* name, size_t length);

// Whether the descriptor, a peer's, is such memory, of this size.
bool IsSealedMemory(int fd, size_t length);

// One mapping of shared memory, readable and writable.
class Mapping {
 public:
  Mapping() = default;
  ~Mapping() { Unmap(); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Returns false with errno set.
  bool Map(int fd, size_t length);
  void Unmap();
  uint8_t* data() const { return data_; }
  size_t length() const { return length_; }

 private:
  uint8_t* data_ = nullptr;
  size_t length_ = 0;
};

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_SEALED_MEMORY_H_
