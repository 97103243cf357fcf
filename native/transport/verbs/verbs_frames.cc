#include "transport/verbs/verbs_frames.h"

namespace pagemesh {

size_t RemoteFrames::IndexOf(const RegionMemory& memory, uint32_t page, size_t* offset) {
  const size_t at = static_cast<size_t>(page) * memory.page_bytes;
  *offset = at % kVerbsChunkBytes;
  return at / kVerbsChunkBytes;
}

RemoteFrames::Chunk* RemoteFrames::At(int owner, const RegionMemory& memory, uint32_t page) {
  std::vector<Chunks>& regions = owners_[owner];
  if (regions.size() <= memory.region) regions.resize(memory.region + 1);
  Chunks& chunks = regions[memory.region];
  if (chunks.empty()) chunks.resize((memory.length + kVerbsChunkBytes - 1) / kVerbsChunkBytes);
  size_t offset;
  const size_t index = IndexOf(memory, page, &offset);
  return index < chunks.size() ? &chunks[index] : nullptr;
}

void RemoteFrames::Keep(int owner, int teller, const RegionMemory& memory, uint32_t page,
                        RemoteFrame frame) {
  Chunk* chunk = At(owner, memory, page);
  if (chunk == nullptr || !frame.known()) return;
  if (chunk->first_hand && teller != owner) return;
  size_t offset;
  IndexOf(memory, page, &offset);
  chunk->first = {frame.rkey, frame.address - offset};
  chunk->first_hand = teller == owner;
}

RemoteFrame RemoteFrames::Find(int owner, const RegionMemory& memory, uint32_t page) const {
  const std::vector<Chunks>& regions = owners_[owner];
  size_t offset;
  const size_t index = IndexOf(memory, page, &offset);
  if (memory.region >= regions.size() || index >= regions[memory.region].size()) return {};
  const RemoteFrame& first = regions[memory.region][index].first;
  return first.known() ? RemoteFrame{first.rkey, first.address + offset} : RemoteFrame{};
}

void RemoteFrames::KeepSlot(int owner, const RegionMemory& memory, uint32_t page, uint32_t slot) {
  Chunk* chunk = At(owner, memory, page);
  if (chunk == nullptr) return;
  if (chunk->slots.empty()) {
    if (slot == kNoSlot) return;
    chunk->slots.resize(kVerbsChunkBytes / memory.page_bytes);
  }
  size_t offset;
  IndexOf(memory, page, &offset);
  chunk->slots[offset / memory.page_bytes] = slot == kNoSlot ? 0 : static_cast<uint16_t>(slot + 1);
}

uint32_t RemoteFrames::TakeSlot(int owner, const RegionMemory& memory, uint32_t page) {
  Chunk* chunk = At(owner, memory, page);
  if (chunk == nullptr || chunk->slots.empty()) return kNoSlot;
  size_t offset;
  IndexOf(memory, page, &offset);
  uint16_t& slot = chunk->slots[offset / memory.page_bytes];
  const uint32_t taken = slot == 0 ? kNoSlot : slot - 1U;
  slot = 0;
  return taken;
}

void RemoteFrames::Forget(uint32_t region) {
  for (auto& regions : owners_) {
    if (region < regions.size()) regions[region].clear();
  }
}

}  // namespace pagemesh
