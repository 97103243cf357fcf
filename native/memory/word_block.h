// The words of one region that this member homes, where all members agreed to change words by
// atomic operations only. Plain memory: it has no pages to protect, to lend or to cache.
#ifndef PAGEMESH_MEMORY_WORD_BLOCK_H_
#define PAGEMESH_MEMORY_WORD_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pagemesh {

class WordBlock {
 public:
  static constexpr uint32_t kWordBytes = 8;

  // Zeros, for the pages that this member homes, in the order of its directory. There may be none.
  // Returns nullptr with errno set.
  static std::unique_ptr<WordBlock> Map(uint32_t page_bytes, uint32_t page_count);
  ~WordBlock();
  WordBlock(const WordBlock&) = delete;
  WordBlock& operator=(const WordBlock&) = delete;

  uint8_t* base() const { return base_; }
  size_t byte_length() const { return static_cast<size_t>(page_count_) * page_bytes_; }
  // The word at this byte of the page with this index, or nullptr if there is none.
  void* WordAt(uint32_t home_index, uint32_t byte_in_page) const;

  // Peers and this member itself change the words by RDMA atomics: this process's instructions
  // must not, because the device would not see them. Engine thread.
  bool by_rdma() const { return by_rdma_; }
  void set_by_rdma() { by_rdma_ = true; }

 private:
  WordBlock(uint8_t* base, uint32_t page_bytes, uint32_t page_count)
      : base_(base), page_bytes_(page_bytes), page_count_(page_count) {}

  uint8_t* const base_;  // nullptr if there are no pages
  const uint32_t page_bytes_;
  const uint32_t page_count_;
  bool by_rdma_ = false;
};

}  // namespace pagemesh

#endif  // PAGEMESH_MEMORY_WORD_BLOCK_H_
