#include "transport/verbs/verbs_words.h"

#if PAGEMESH_HAS_VERBS

#include <errno.h>

#include "base/check.h"

namespace pagemesh {

std::unique_ptr<VerbsWords> VerbsWords::Create(VerbsDevice* device) {
  if (!device->has_atomics()) return nullptr;
  std::unique_ptr<VerbsWords> words(new VerbsWords(device));
  words->results_.resize(static_cast<size_t>(kMaxMembers) * kSlots);
  words->results_mr_ =
      device->library().reg_mr(device->pd(), words->results_.data(),
                               words->results_.size() * sizeof(uint64_t), IBV_ACCESS_LOCAL_WRITE);
  return words->results_mr_ == nullptr ? nullptr : std::move(words);
}

VerbsWords::~VerbsWords() {
  for (const auto& [region, mr] : shared_) device_->library().dereg_mr(mr);
  if (results_mr_ != nullptr) device_->library().dereg_mr(results_mr_);
}

bool VerbsWords::Share(uint32_t region, uint8_t* base, size_t length, WordsKey* key) {
  *key = {};
  if (shared_.count(region) != 0) return false;
  if (length == 0) return true;  // no word of the region is here
  ibv_mr* mr = device_->library().reg_mr(device_->pd(), base, length,
                                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
  if (mr == nullptr) return false;
  shared_[region] = mr;
  *key = {mr->rkey, reinterpret_cast<uintptr_t>(base)};
  return true;
}

void VerbsWords::Withdraw(uint32_t region) {
  const auto found = shared_.find(region);
  if (found == shared_.end()) return;
  device_->library().dereg_mr(found->second);
  shared_.erase(found);
}

VerbsWords::Peer& VerbsWords::PeerOf(const VerbsLink* link) {
  std::unique_ptr<Peer>& peer = peers_[link->rank()];
  if (peer == nullptr) {
    peer = std::make_unique<Peer>();
    for (uint32_t slot = 0; slot < kSlots; slot++) peer->free_slots.push_back(slot);
  }
  return *peer;
}

int VerbsWords::Change(VerbsLink* link, const WordChange& change) {
  PeerOf(link).waiting.push_back(change);
  return Progress(link);
}

int VerbsWords::Progress(VerbsLink* link) {
  if (peers_[link->rank()] == nullptr) return 0;
  Peer& peer = *peers_[link->rank()];
  while (!peer.waiting.empty() && !peer.free_slots.empty()) {
    const WordChange& change = peer.waiting.front();
    const uint32_t slot = peer.free_slots.back();
    ibv_sge result = {};
    result.addr = reinterpret_cast<uintptr_t>(ResultOf(link->rank(), slot));
    result.length = sizeof(uint64_t);
    result.lkey = results_mr_->lkey;
    const int failed = link->PostWord(change, &result, slot);
    if (failed == EAGAIN) return 0;  // its queue is full; a completion leads here again
    if (failed != 0) return failed;
    peer.requests[slot] = change.request;
    peer.free_slots.pop_back();
    peer.waiting.pop_front();
  }
  return 0;
}

bool VerbsWords::IsBusy(int rank) const {
  const Peer* peer = peers_[rank].get();
  return peer != nullptr && (peer->free_slots.size() < kSlots || !peer->waiting.empty());
}

bool VerbsWords::OnCompletion(VerbsLink* link, const ibv_wc& completion, TransportClient* client) {
  const uint32_t slot = VerbsLink::WordSlotOf(completion.wr_id);
  PM_CHECK_STATE(slot < kSlots && peers_[link->rank()] != nullptr, slot, link->rank());
  Peer& peer = *peers_[link->rank()];
  if (!client->OnWord(peer.requests[slot], *ResultOf(link->rank(), slot))) return false;
  peer.free_slots.push_back(slot);
  return true;
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS
