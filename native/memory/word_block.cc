#include "memory/word_block.h"

#include <sys/mman.h>

namespace pagemesh {

std::unique_ptr<WordBlock> WordBlock::Map(uint32_t page_bytes, uint32_t page_count) {
  uint8_t* base = nullptr;
  if (page_count > 0) {
    // Shared, so that a fork of the program does not move the memory from under the device.
    void* mapped = mmap(nullptr, static_cast<size_t>(page_count) * page_bytes,
                        PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    base = static_cast<uint8_t*>(mapped);
  }
  return std::unique_ptr<WordBlock>(new WordBlock(base, page_bytes, page_count));
}

WordBlock::~WordBlock() {
  if (base_ != nullptr) munmap(base_, byte_length());
}

void* WordBlock::WordAt(uint32_t home_index, uint32_t byte_in_page) const {
  if (home_index >= page_count_ || byte_in_page % kWordBytes != 0 ||
      byte_in_page > page_bytes_ - kWordBytes) {
    return nullptr;
  }
  return base_ + static_cast<size_t>(home_index) * page_bytes_ + byte_in_page;
}

}  // namespace pagemesh
