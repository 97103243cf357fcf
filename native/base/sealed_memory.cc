#include "base/sealed_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace pagemesh {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

UniqueFd MakeSealedMemory(const char* name, size_t length) {
  UniqueFd fd;
  fd.Reset(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fd;
  if (ftruncate(fd.get(), static_cast<off_t>(length)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    const int error = errno;
    fd.Reset();
    errno = error;
  }
  return fd;
}

bool IsSealedMemory(int fd, size_t length) {
  struct stat status;
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &status) == 0 &&
         status.st_size >= 0 && static_cast<size_t>(status.st_size) == length;
}

bool Mapping::Map(int fd, size_t length) {
  Unmap();
  void* at = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (at == MAP_FAILED) return false;
  data_ = static_cast<uint8_t*>(at);
  length_ = length;
  return true;
}

void Mapping::Unmap() {
  if (data_ != nullptr) munmap(data_, length_);
  data_ = nullptr;
  length_ = 0;
}

}  // namespace pagemesh
