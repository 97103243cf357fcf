// Where other members' frames are and by which key they may be written. Members tell this with
// their requests, chunk by chunk, since that is how rights are given.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_FRAMES_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_FRAMES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "transport/transport.h"

namespace pagemesh {

// The unit in which memory is registered, and so rights are given.
constexpr size_t kVerbsChunkBytes = 4 * 1024 * 1024;

// Where a peer's frame of one page is; nothing is known of it if both are 0.
struct RemoteFrame {
  uint32_t rkey = 0;
  uint64_t address = 0;
  bool known() const { return rkey != 0 || address != 0; }
};

// Engine thread.
class RemoteFrames {
 public:
  // What `teller` says of `owner`'s frame of a page that lies in `memory`. What an owner says of
  // itself stands above what others say of it.
  void Keep(int owner, int teller, const RegionMemory& memory, uint32_t page, RemoteFrame frame);
  RemoteFrame Find(int owner, const RegionMemory& memory, uint32_t page) const;

  // The slot of the thread that looks for the answer about this page itself, or none. One that is
  // taken is forgotten: an answer is given once.
  void KeepSlot(int owner, const RegionMemory& memory, uint32_t page, uint32_t slot);
  uint32_t TakeSlot(int owner, const RegionMemory& memory, uint32_t page);

  void Forget(uint32_t region);

  static constexpr uint32_t kNoSlot = UINT32_MAX;

 private:
  struct Chunk {
    RemoteFrame first;  // of the chunk's first byte
    bool first_hand = false;
    std::vector<uint16_t> slots;  // by page in the chunk, plus one; empty before the first
  };
  using Chunks = std::vector<Chunk>;

  Chunk* At(int owner, const RegionMemory& memory, uint32_t page);
  static size_t IndexOf(const RegionMemory& memory, uint32_t page, size_t* offset);

  std::vector<Chunks> owners_[kMaxMembers];  // by region
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_FRAMES_H_
