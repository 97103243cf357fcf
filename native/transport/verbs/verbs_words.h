// Words that are changed by RDMA atomics: what of this member's memory peers may change so, and the
// operations that this member has under way.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_WORDS_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_WORDS_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_link.h"

#if PAGEMESH_HAS_VERBS

namespace pagemesh {

// An operation goes over the queue pair to the word's home, or to this member itself where it is
// the home: the device that changes a word must be the only one that does. Engine thread only.
class VerbsWords {
 public:
  // nullptr if the device has no atomics, or no memory can be registered for results.
  static std::unique_ptr<VerbsWords> Create(VerbsDevice* device);
  ~VerbsWords();
  VerbsWords(const VerbsWords&) = delete;
  VerbsWords& operator=(const VerbsWords&) = delete;

  // Lets peers change this memory by atomics, and do nothing else with it. `length` may be 0.
  bool Share(uint32_t region, uint8_t* base, size_t length, WordsKey* key);
  // Withdraws that.
  void Withdraw(uint32_t region);

  // Posts the operation now, or later if many are under way. 0 or errno.
  int Change(VerbsLink* link, const WordChange& change);
  // Hands a result over. False: the client has no room, offer the completion again.
  bool OnCompletion(VerbsLink* link, const ibv_wc& completion, TransportClient* client);
  // Posts what was kept. 0 or errno.
  int Progress(VerbsLink* link);
  // Whether operations at that member are under way.
  bool IsBusy(int rank) const;

 private:
  // Operations under way to one member. A device works on at most VerbsDevice::kMaxAtomics of a
  // queue pair at a time, so more than a few times that only fills its queue.
  static constexpr uint32_t kSlots = 64;
  struct Peer {
    std::vector<uint32_t> free_slots;
    uint32_t requests[kSlots] = {};  // by slot
    std::deque<WordChange> waiting;  // in the order in which they were asked for
  };

  explicit VerbsWords(VerbsDevice* device) : device_(device) {}
  Peer& PeerOf(const VerbsLink* link);
  // Where the device puts the word as it was.
  uint64_t* ResultOf(int rank, uint32_t slot) { return &results_[rank * kSlots + slot]; }

  VerbsDevice* const device_;
  std::vector<uint64_t> results_;
  ibv_mr* results_mr_ = nullptr;
  std::unique_ptr<Peer> peers_[kMaxMembers];
  std::unordered_map<uint32_t, ibv_mr*> shared_;  // by region
};

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_WORDS_H_
